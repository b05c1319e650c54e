"""Labels of documents and words: classes, numbers, tags, and what the head is solved to."""

import math

import numpy as np
import pytest
import torch

from sciforge.core.data.store import Store, prepare
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.text.data.codec import TextCodec
from sciforge.text.data.documents import Documents
from sciforge.text.data.ngrams import letter_grams
from sciforge.text.model.bert import BertConfig
from sciforge.text.objectives.document_labels import ClassifyDocuments, RateDocuments, shortened
from sciforge.text.objectives.word_tags import TagWords, entity_metrics, first_pieces

pytest.importorskip("tokenizers")

NOUNS = "garden river window candle mountain letter carriage evening breakfast silver".split()
STILL = Schedule(steps=1, batch=8, lr=0.0, kind="constant")
TINY = BertConfig(width=16, depth=1, heads=2, hidden=32)
HARDWARE = Hardware(device="cpu", threads=1)


def trained(folder, store: Store, objective, **changes) -> Model:
    """Train on a store without moving the net: the head as it was solved."""
    run = {
        "data": store.path,
        "out": folder / type(objective).__name__,
        "model": TINY,
        "objective": objective,
    }
    run |= {"codec": TextCodec(size=300, length=48), "schedule": STILL, "hardware": HARDWARE}
    return Model.load(train(Run(**{**run, **changes})).path, device="cpu")


@pytest.fixture(scope="module")
def rated(tmp_path_factory) -> Store:
    """Documents whose number of stars is how often they say silver."""
    folder, rng = tmp_path_factory.mktemp("rated"), np.random.default_rng(0)
    rows = []
    for _ in range(160):
        silver = int(rng.integers(0, 5))
        words = [*rng.choice(NOUNS[:-1], 6), *["silver"] * silver]
        rows.append(
            f"{' '.join(rng.permutation(words))}.,{silver},{'rich' if silver > 2 else 'poor'}"
        )
    (folder / "a.csv").write_text("text,stars,kind\n" + "\n".join(dict.fromkeys(rows)) + "\n")
    options = {"files": (folder / "a.csv",), "shares": (0.7, 0.1, 0.2)}
    prepare(Documents(label_column="kind", **options), folder / "classes")
    return prepare(Documents(label_column="stars", numeric=True, **options), folder / "numbers")


def test_the_solved_head_knows_what_counts_tell(tmp_path, rated):
    classes = Store.open(rated.path.parent / "classes")
    metrics = trained(tmp_path, classes, ClassifyDocuments(length=48)).evaluate(classes)
    assert metrics["auroc"] > 0.95 and metrics["log_loss"] < 0.5
    metrics = trained(tmp_path, rated, RateDocuments(length=48)).evaluate(rated)
    assert metrics["r2"] > 0.8 and metrics["rmse"] < 0.7


def test_log_loss_is_that_of_scikit_learn(rated):
    from sklearn.metrics import log_loss

    classes = Store.open(rated.path.parent / "classes")
    rows, rng = classes.split("test"), np.random.default_rng(0)
    p_N2 = rng.dirichlet([1, 1], len(rows))
    objective = ClassifyDocuments(classes=("poor", "rich"))
    told = log_loss([label == "rich" for label in rows.column("label")], p_N2[:, 1])
    assert objective.metrics({"probability": p_N2}, rows)["log_loss"] == pytest.approx(told)


def test_letter_grams_are_those_of_scikit_learn():
    from sklearn.feature_extraction.text import CountVectorizer

    text = "The room's  windows, the ROOM and\nthe Rooms."
    peer = CountVectorizer(
        analyzer="char",
        ngram_range=(2, 5),
        preprocessor=lambda t: f" {' '.join(t.lower().split())} ",
    )
    counts = np.sort(peer.fit_transform([text]).data)
    buckets, weights = letter_grams(text)
    assert len(np.unique(buckets)) == len(buckets)
    # collisions add up, nothing is lost
    assert np.exp(weights - 1).sum() == pytest.approx(counts.sum(), rel=1e-6)
    assert len(counts) - len(buckets) <= 2  # of 2^15 buckets


def test_unknown_labels_and_empty_documents_are_refused(rated):
    codec, rng = TextCodec(size=300, length=48).fit(rated), np.random.default_rng(0)
    objective = ClassifyDocuments(classes=("poor", "rich"))
    with pytest.raises(DataError, match="label 'fair' is none of poor, rich"):
        objective.prepare({"text": "a river", "label": "fair"}, codec, rng, False)
    with pytest.raises(DataError, match="'n' holds no word"):
        objective.prepare({"text": " \u200b ", "name": "n"}, codec, rng, False)
    with pytest.raises(DataError, match="--label-column"):
        ClassifyDocuments().resolve(rated)
    with pytest.raises(ConfigError, match="no vocabulary yet"):
        TextCodec().pieces("a")


def test_long_documents_are_cut_at_either_end(rated):
    codec = TextCodec(size=300, length=48).fit(rated)
    text = " ".join(["river"] * 60 + ["window"] * 60)
    for cut, last in (("head", "river"), ("ends", "window")):
        example = ClassifyDocuments(length=40, cut=cut)._encode({"text": text}, codec)
        assert len(example["ids"]) == 40 and codec.decode(example["ids"].tolist()).endswith(last)
    # Sun et al.: 128 and 382
    assert shortened(np.arange(512), 510, "ends").tolist() == [*range(128), *range(130, 512)]


CONLL = (
    "Mary\tB-per\nsaw\tO\nOld\tB-loc\nTrafford\tI-loc\n.\tO\n\n"
    "In\tO\nParis\tB-loc\nAnn\tB-per\nSmith\tI-per\nslept\tO\n\n"
)


def test_tags_are_learnt_at_first_pieces(tmp_path):
    (tmp_path / "a.conll").write_text(CONLL * 6)
    store = prepare(
        Documents(files=(tmp_path / "a.conll",), shares=(1.0, 0.0, 0.0)), tmp_path / "tags"
    )
    assert store.meta["tags"] == ["B-loc", "B-per", "I-loc", "I-per", "O"]
    predictor = trained(tmp_path, store, TagWords(length=32), codec=TextCodec(size=40, length=48))
    metrics = predictor.evaluate(store, split="train")
    assert metrics["f1"] == metrics["accuracy"] == 1.0 and metrics["entities"] == 2 * len(
        store.split("train")
    )
    codec = predictor.codec
    record = {
        "text": "Mary saw Trafford",
        "words": np.array([[0, 4], [5, 8], [9, 17]]),
        "tags": "B-per O B-loc",
    }
    example = predictor.objective.prepare(record, codec, np.random.default_rng(0), False)
    pieces = [codec.token(i) for i in example["ids"][example["word_token"]].tolist()]
    assert [piece[0] for piece in pieces] == ["m", "s", "t"] and len(example["ids"]) > 5
    short = TagWords(length=5, classes=predictor.objective.classes)
    cut = short.prepare(
        {**record, "words": record["words"]}, codec, np.random.default_rng(0), False
    )
    assert cut["word_token"].tolist()[-1] == 0 and cut["target_tags"].tolist()[-1] == -100
    with pytest.raises(DataError, match="tag 'B-org'"):
        short.prepare({**record, "tags": "B-org O O"}, codec, np.random.default_rng(0), False)


def test_entities_are_scored_whole():
    told = [["B-a", "I-a", "O", "B-b"], ["O", "B-a"]]
    found = [["B-a", "O", "O", "B-b"], ["B-b", "B-a"]]
    metrics = entity_metrics(told, found)  # right: 2 of 3 there, of 4 said
    assert metrics == pytest.approx(
        {"f1": 4 / 7, "precision": 0.5, "recall": 2 / 3, "entities": 3.0}
    )
    assert entity_metrics([["O"]], [["O"]])["f1"] == 0.0
    assert entity_metrics([["NOUN", "VERB"]], [["NOUN", "NOUN"]])["f1"] == 0.5


def test_first_pieces_of_bytes_may_begin_with_a_space():
    assert first_pieces(np.array([[0, 2], [2, 6]]), np.array([[0, 2], [3, 6]])).tolist() == [0, 1]
    assert first_pieces(np.zeros((0, 2), int), np.array([[0, 2]])).tolist() == [-1]


def test_class_weights_move_the_trunk_by_descent(tmp_path, rated):
    classes = Store.open(rated.path.parent / "classes")
    schedule = Schedule(steps=3, batch=8, lr=1e-3, kind="constant", warmup=0.0)
    predictor = trained(tmp_path, classes, ClassifyDocuments(length=48), schedule=schedule)
    still = trained(tmp_path / "still", classes, ClassifyDocuments(length=48))
    moved, stood = predictor.network.state_dict(), still.network.state_dict()
    assert not torch.equal(
        moved["encoder.blocks.0.mlp.up.weight"], stood["encoder.blocks.0.mlp.up.weight"]
    )
    assert math.isfinite(predictor.evaluate(classes)["loss"])
