"""The bundled checkpoint and the bundled text: what modern-mini-english knows of chapters that
it has not seen.
"""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the package tokenizers is in the extra [text]")

from sciforge.core.data.store import prepare
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.model import Model
from sciforge.text.data.documents import Documents

DATASETS = Path(__file__).parents[3] / "datasets"
MINI = DATASETS / "checkpoints" / "modern-mini-english"


@pytest.fixture(scope="module")
def passages(tmp_path_factory: pytest.TempPathFactory):
    """Return the store of spoken and narrated passages."""
    options = {"label_column": "label", "split_column": "split", "group_column": "chapter"}
    folder = tmp_path_factory.mktemp("austen") / "store"
    return prepare(Documents(files=(DATASETS / "austen-speech.csv.gz",), **options), folder)


def test_hidden_words_of_unseen_chapters(passages):
    predictor = Model.load(MINI, device="cpu")
    objective, codec = predictor.objective, predictor.codec
    held = objective.examples(passages, "test")
    nats = evaluate(predictor.network, objective, codec, held, predictor.engine, 0, 32)["word_nats"]
    ids = np.concatenate([codec.pieces(record["text"])[0] for record in passages.split("test")])
    seen = np.concatenate([codec.pieces(record["text"])[0] for record in passages.split("train")])
    frequency = (np.bincount(seen, minlength=codec.num_tokens) + 1) / (len(seen) + codec.num_tokens)
    # it knows more than how often each piece comes
    assert nats < -np.log(frequency[ids]).mean() - 0.3


def test_the_checkpoint_is_small_and_general():
    checkpoint = Checkpoint.open(MINI)
    assert sum(file.stat().st_size for file in MINI.iterdir()) < 8e6
    assert checkpoint.codec.num_tokens < 8000 and checkpoint.model_config.width == 128
    assert (
        str(checkpoint.run.data) == "runs/general"
        and checkpoint.body["provenance"]["git_dirty"] is False
    )
