"""The classical rivals: what they say, and that they reach the metrics published with the hotel
reviews.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sciforge.core.data import sampling
from sciforge.core.data.store import prepare
from sciforge.errors import ConfigError
from sciforge.text.data.documents import Documents
from sciforge.text.evaluation.baselines import BASELINES

REVIEWS = Path(__file__).parents[4] / "shared/data/text/deceptive_hotel_reviews.tsv.gz"
CLASSES = SimpleNamespace(classes=("cold", "unseen", "warm"))
RECORDS = [
    {"text": f"the {word} day number {n}", "label": word}
    for n in range(12)
    for word in ("cold", "warm")
]


@pytest.mark.parametrize("name", BASELINES)
def test_classes_are_in_the_objectives_order(name: str):
    found = BASELINES[name](CLASSES, RECORDS[:16], RECORDS[16:], seed=0)["probability"]
    assert found.shape == (8, 3) and np.allclose(found.sum(1), 1) and (found[:, 1] == 0).all()
    assert [CLASSES.classes[place] for place in found.argmax(1)] == [
        record["label"] for record in RECORDS[16:]
    ]


@pytest.mark.parametrize("name", BASELINES)
def test_one_class_alone_is_certain(name: str):
    found = BASELINES[name](CLASSES, RECORDS[::2], RECORDS[1:3], seed=0)["probability"]
    assert found.tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("name", ["word_tfidf", "letter_tfidf"])
def test_numbers_are_learnt(name: str):
    records = [
        {"text": f"{word} food", "value": value} for word, value in (("bad", 1.0), ("good", 5.0))
    ] * 8
    low, high = BASELINES[name](SimpleNamespace(), records, records[:2], seed=0)["value"]
    assert low < 2 and high > 4


def test_naive_bayes_of_numbers_is_their_mean():
    records = [{"text": "a", "value": 1.0}, {"text": "b", "value": 5.0}]
    assert BASELINES["naive_bayes"](SimpleNamespace(), records, records, seed=0)[
        "value"
    ].tolist() == [3.0, 3.0]


def test_words_with_tags_have_no_rival():
    with pytest.raises(ConfigError, match="leave these out of --methods"):
        BASELINES["word_tfidf"](
            CLASSES, [{"text": "a", "tags": "O"}], [{"text": "a", "tags": "O"}], seed=0
        )


@pytest.mark.skipif(
    not REVIEWS.exists(), reason="the hotel reviews are for evaluation only and not here"
)
@pytest.mark.parametrize(("name", "published"), [("word_tfidf", 0.861), ("letter_tfidf", 0.877)])
def test_published_metrics_at_100_labels(name: str, published: float, tmp_path: Path):
    from sklearn.metrics import roc_auc_score

    store = prepare(
        Documents(files=(REVIEWS,), label_column="label", split_column="split"), tmp_path / "store"
    )
    train, test = store.split("train"), store.split("test")
    truth = np.array(test.column("label")) == "truthful"
    metrics = []
    for seed in range(3):
        chosen = train.take(sampling.balanced_subset(train.labels(), 100, seed))
        outputs = BASELINES[name](SimpleNamespace(classes=("fake", "truthful")), chosen, test, seed)
        metrics.append(roc_auc_score(truth, outputs["probability"][:, 1]))
    assert np.mean(metrics) == pytest.approx(published, abs=0.03)
