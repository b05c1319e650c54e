"""What is written about documents: tables, arrays, pictures, words for [MASK]."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import Tiny, make_tiny

from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.text import DOMAIN
from sciforge.text.inference.documents import DocumentEmbeddings, DocumentScores, FillMasks, RocCurve, WordTags, fill
from sciforge.text.inference.roc import area, roc

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Tiny, Model, Model]:
    """The tiny runs, and predictors of the pretrained and the fine-tuned checkpoint."""
    made = make_tiny("text", tmp_path_factory.mktemp("outputs"))
    tuned = train(made.finetuning)
    return made, Model.load(made.checkpoint.path, device="cpu"), Model.load(tuned.path, device="cpu", batch=3)


def table(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith('# {"checkpoint"')
    return list(csv.DictReader(lines[1:]))


def test_scores_keep_the_order_of_the_files(runs, tmp_path):
    _, _, tuned = runs
    texts = ["Koko bada.", "Tata, bada dafu dafu dafu dafu.", 'He said "koko", then left.', "x"]
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n")
    rows = table(DocumentScores(files=(tmp_path / "a.txt",), out=tmp_path / "a.csv").write(tuned))
    assert [row["name"] for row in rows] == [f"a.txt:{n}" for n in range(1, 5)]
    for row, text in zip(rows, texts, strict=True):
        p = tuned.outputs([{"text": text}])["probability"][0]
        assert [float(row["p(no)"]), float(row["p(yes)"])] == pytest.approx(p.tolist(), abs=2e-6)
        assert row["class"] == tuned.objective.classes[int(p.argmax())]


def test_bad_documents_stop_or_are_listed(runs, tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(b"Koko bada.\n\nTata \xff dafu.\nKoko.\n")
    options = {"files": (tmp_path / "a.txt",), "out": tmp_path / "a.csv"}
    with pytest.raises(DataError, match="a.txt:2: the document is empty"):
        DocumentScores(**options).write(runs[2])
    assert not (tmp_path / "a.csv").exists()
    rows = table(DocumentScores(on_error="skip", **options).write(runs[2]))
    assert [row["line"] for row in rows] == ["1", "4"]
    rejects = [json.loads(line) for line in (tmp_path / "a.rejected.jsonl").read_text().splitlines()]
    assert [reject["line"] for reject in rejects] == [2, 3] and "2 bad documents left out" in capsys.readouterr().err


def test_embeddings_are_means_of_states(runs, tmp_path):
    _, plain, tuned = runs
    (tmp_path / "a.txt").write_text("Koko bada.\n\nTata bada dafu dafu.\n")
    for predictor in (plain, tuned):
        options = {"files": (tmp_path / "a.txt",), "out": tmp_path / "a.npz", "documents": "paragraph"}
        out = DocumentEmbeddings(layers=(0, -1), **options).write(predictor)
        with np.load(out) as found:
            assert found["names"].tolist() == ["a.txt:1", "a.txt:3"] and found["layer_0"].shape == (2, 16)
            batch = predictor.codec.collate([predictor.codec.encode({"text": "Koko bada."})])
            told = DOMAIN.embed(predictor.network, batch)[0].detach().numpy()
            assert found["layer_2"][0] == pytest.approx(told, abs=1e-6)
    with pytest.raises(ConfigError, match=r"give some of 0..2"):
        DocumentEmbeddings(files=(tmp_path / "a.txt",), out=tmp_path / "b.npz", layers=(3,)).write(plain)


def test_roc_curve_and_scores(runs, tmp_path):
    from sklearn.metrics import roc_auc_score

    made, plain, tuned = runs
    out = RocCurve(data=made.labelled.path, out=tmp_path / "roc.png", split="test").write(tuned)
    assert out.read_bytes().startswith(b"\x89PNG")
    rows, points = table(tmp_path / "roc.scores.csv"), table(tmp_path / "roc.roc.csv")
    yes, p = [row["label"] == "yes" for row in rows], [float(row["p(yes)"]) for row in rows]
    told = tuned.evaluate(made.labelled, split="test")["auroc"]
    assert roc_auc_score(yes, p) == pytest.approx(told, abs=1e-9)
    steps = np.array([[float(q["false_positive_rate"]), float(q["true_positive_rate"])] for q in points])
    assert np.trapezoid(steps[:, 1], steps[:, 0]) == pytest.approx(told, abs=1e-5)
    with pytest.raises(ConfigError, match="trained for MaskedWords"):
        RocCurve(data=made.labelled.path, out=tmp_path / "b.png").write(plain)
    with pytest.raises(ConfigError, match="positive is 'yess'.*did you mean 'yes'"):
        RocCurve(data=made.labelled.path, out=tmp_path / "b.png", positive="yess").write(tuned)
    with pytest.raises(ConfigError, match="no labels"):
        RocCurve(data=made.store.path, out=tmp_path / "b.png").write(tuned)
    assert not (tmp_path / "b.png").exists() and not list(tmp_path.glob("*.tmp*"))


def test_roc_is_that_of_scikit_learn_with_ties():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    yes, score = rng.random(200) < 0.3, rng.integers(0, 9, 200) / 8
    curve = roc(yes, score)
    assert curve.auc == pytest.approx(roc_auc_score(yes, score), abs=1e-12)
    assert curve.low < curve.auc < curve.high
    assert area(np.array([2.0]), np.array([2.0])) == 0.5
    with pytest.raises(DataError, match="both classes"):
        roc(np.ones(3, bool), np.ones(3))


def test_masks_are_filled_with_the_likeliest_words(runs, tmp_path):
    _, plain, tuned = runs
    found = fill(plain, "Koko [MASK] bada [MASK].", top=4)
    assert len(found) == 2 and all(len(words) == 4 for words in found)
    for words in found:
        shares = [p for _, p in words]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1
    rows = table(FillMasks(texts=("Koko [MASK], bada.",), out=tmp_path / "a.csv", top=2).write(tuned))
    assert [row["rank"] for row in rows] == ["1", "2"] and rows[0]["text"] == "Koko [MASK], bada."
    with pytest.raises(ConfigError, match=r"no \[MASK\] in 'Koko'"):
        fill(plain, "Koko")
    with pytest.raises(ConfigError, match="reads 62"):
        fill(plain, "[MASK] " + "bada " * 80)


def test_outputs_refuse_checkpoints_of_another_kind(runs, tmp_path):
    _, plain, tuned = runs
    (tmp_path / "a.txt").write_text("Koko.\n")
    with pytest.raises(ConfigError, match="not for labels of documents"):
        DocumentScores(files=(tmp_path / "a.txt",), out=tmp_path / "a.csv").write(plain)
    with pytest.raises(ConfigError, match="not for tags of words"):
        WordTags(files=(tmp_path / "a.txt",), out=tmp_path / "a.conll").write(tuned)
    with pytest.raises(ConfigError, match="no file"):
        DocumentScores(files=(), out=tmp_path / "a.csv").write(tuned)
    with pytest.raises(ConfigError, match="also read from"):
        DocumentScores(files=(tmp_path / "a.txt",), out=tmp_path / "a.txt").write(tuned)
    assert (tmp_path / "a.txt").read_text() == "Koko.\n"


@pytest.mark.parametrize("name", sorted(DOMAIN.augmentations))
def test_augmentations_change_what_they_say_and_leave_a_text(name):
    augmentation = DOMAIN.augmentations[name]
    record = {
        "text": "In 1987, Mr. Brown (of Bath) LOST 25 silver spoons; who found them?",
        "label": "a",
        "words": np.zeros((1, 2)),
    }
    changed = [augmentation.apply(record, np.random.default_rng(n)) for n in range(8)]
    before, after = augmentation.nuisance(record), [augmentation.nuisance(c) for c in changed]
    assert any(not np.array_equal(before, x) for x in after) and {x.shape for x in after} == {before.shape}
    assert all(c["text"].strip() and c["label"] == "a" and "words" not in c for c in changed)
    again = augmentation.apply(record, np.random.default_rng(3))
    assert again["text"] == changed[3]["text"] and record["text"].startswith("In 1987")
    assert augmentation.apply({"text": "."}, np.random.default_rng(0))["text"].strip()


def test_tags_are_written_as_conll(tmp_path):
    from test_text_labels import CONLL, trained

    from sciforge.core.data.store import prepare
    from sciforge.text.data.codec import TextCodec
    from sciforge.text.data.documents import Documents
    from sciforge.text.objectives.word_tags import TagWords

    (tmp_path / "a.conll").write_text(CONLL * 6)
    store = prepare(Documents(files=(tmp_path / "a.conll",), shares=(1.0, 0.0, 0.0)), tmp_path / "tags")
    predictor = trained(tmp_path, store, TagWords(length=32), codec=TextCodec(size=40, length=48))
    out = WordTags(files=(tmp_path / "a.conll",), out=tmp_path / "b.conll").write(predictor)
    assert out.read_text().split("\n", 1)[1] == CONLL * 6
