"""What a checkpoint says of documents: tables, arrays, pictures, words for [MASK]."""

import json

import numpy as np
import pandas as pd
import pytest
from tiny_runs import Tiny, make_tiny

from sciforge.core.data.store import prepare
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.text import DOMAIN, BertConfig, Documents, TagWords, TextCodec
from sciforge.text.inference.document_embeddings import DocumentEmbeddings
from sciforge.text.inference.document_scores import DocumentScores
from sciforge.text.inference.fill_masks import FillMasks, fill
from sciforge.text.inference.roc import RocCurve, area, roc
from sciforge.text.inference.word_tags import WordTags

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Tiny, Model, Model]:
    """The tiny runs, and predictors of the pretrained and the fine-tuned checkpoint."""
    made = make_tiny("text", tmp_path_factory.mktemp("outputs"))
    tuned = train(made.finetuning)
    return (
        made,
        Model.load(made.checkpoint.path, device="cpu"),
        Model.load(tuned.path, device="cpu", batch=3),
    )


def test_scores_keep_the_order_of_the_files(runs, tmp_path):
    _, _, tuned = runs
    texts = ["Koko bada.", "Tata, bada dafu dafu dafu dafu.", 'He said "koko", then left.', "x"]
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n")
    result = DocumentScores(files=tmp_path / "a.txt").run(tuned)
    table = pd.read_csv(result.save(tmp_path / "a.csv"))  # with pandas' defaults
    assert list(table.columns) == ["name", "line", "label", "probability"]
    assert table["name"].tolist() == [f"a.txt:{n}" for n in range(1, 5)]
    for row, text in zip(table.itertuples(), texts, strict=True):
        p = tuned.outputs([{"text": text}])["probability"][0]
        assert row.probability == pytest.approx(p[1], abs=2e-6)
        assert row.label == tuned.objective.classes[int(p.argmax())]
    assert json.loads((tmp_path / "a.json").read_text())["checkpoint"] == str(tuned.checkpoint.path)


def test_bad_documents_stop_or_are_listed(runs, tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes(b"Koko bada.\n\nTata \xff dafu.\nKoko.\n")
    with pytest.raises(DataError, match="a.txt:2: the document is empty"):
        DocumentScores(files=tmp_path / "a.txt").run(runs[2])
    result = DocumentScores(files=tmp_path / "a.txt", on_error="skip").run(runs[2])
    assert result.to_pandas()["line"].tolist() == [1, 4]
    assert [reject["line"] for reject in result.about["rejected"]] == [2, 3]
    assert "2 bad documents left out" in caplog.text


def test_embeddings_are_means_of_states(runs, tmp_path):
    _, plain, tuned = runs
    (tmp_path / "a.txt").write_text("Koko bada.\n\nTata bada dafu dafu.\n")
    for predictor in (plain, tuned):
        embeddings = DocumentEmbeddings(
            layers=(0, -1), files=tmp_path / "a.txt", documents="paragraph"
        )
        out = embeddings.run(predictor).save(tmp_path / "a.npz")
        with np.load(out) as found:
            assert found["names"].tolist() == ["a.txt:1", "a.txt:3"] and found["layer_0"].shape == (
                2,
                16,
            )
            batch = predictor.codec.collate([predictor.codec.encode({"text": "Koko bada."})])
            told = DOMAIN.embed(predictor.network, batch)[0].detach().numpy()
            assert found["layer_2"][0] == pytest.approx(told, abs=1e-6)
    with pytest.raises(ConfigError, match=r"give some of 0..2"):
        DocumentEmbeddings(files=tmp_path / "a.txt", layers=(3,)).run(plain)


def test_roc_curve_and_scores(runs, tmp_path):
    from sklearn.metrics import roc_auc_score

    made, plain, tuned = runs
    result = RocCurve(data=made.labelled.path, split="test").run(tuned)
    assert result.save(tmp_path / "roc.png").read_bytes().startswith(b"\x89PNG")
    rows, points = pd.read_csv(tmp_path / "roc.scores.csv"), pd.read_csv(tmp_path / "roc.roc.csv")
    expected = tuned.evaluate(made.labelled, split="test")["auroc"]
    assert roc_auc_score(rows["label"] == "yes", rows["probability"]) == pytest.approx(
        expected, abs=1e-9
    )
    area_below = np.trapezoid(points["true_positive_rate"], points["false_positive_rate"])
    assert area_below == pytest.approx(expected, abs=1e-5) and result.about["auc"] == pytest.approx(
        expected
    )
    same = tuned.roc(made.labelled)
    assert (
        same.curve.auc == result.curve.auc
        and f"{same.curve.auc:.3f}" in same.plot().texts[0].get_text()
    )
    with pytest.raises(ConfigError, match="trained for MaskedWords"):
        RocCurve(data=made.labelled.path).run(plain)
    with pytest.raises(ConfigError, match="positive is 'yess'.*did you mean 'yes'"):
        RocCurve(data=made.labelled.path, positive="yess").run(tuned)
    with pytest.raises(ConfigError, match="no labels"):
        RocCurve(data=made.store.path).run(tuned)


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
    table = tuned.fill_masks("Koko [MASK], bada.", top=2).to_pandas()
    assert table["rank"].tolist() == [1, 2] and set(table["text"]) == {"Koko [MASK], bada."}
    with pytest.raises(ConfigError, match="top"):
        FillMasks(texts=("[MASK]",), top="ten")
    with pytest.raises(ConfigError, match=r"no \[MASK\] in 'Koko'"):
        fill(plain, "Koko")
    with pytest.raises(ConfigError, match="reads 62"):
        fill(plain, "[MASK] " + "bada " * 80)


def test_outputs_refuse_checkpoints_of_another_kind(runs, tmp_path):
    _, plain, tuned = runs
    (tmp_path / "a.txt").write_text("Koko.\n")
    with pytest.raises(ConfigError, match="not for labels of documents"):
        DocumentScores(files=tmp_path / "a.txt").run(plain)
    with pytest.raises(ConfigError, match="not for tags of words"):
        WordTags(files=tmp_path / "a.txt").run(tuned)
    with pytest.raises(ConfigError, match="no file"):
        DocumentScores(files=()).run(tuned)
    with pytest.raises(ConfigError, match="also read from"):
        DocumentScores(files=tmp_path / "a.txt").run(tuned).save(tmp_path / "a.txt")
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
    assert any(not np.array_equal(before, x) for x in after) and {x.shape for x in after} == {
        before.shape
    }
    assert all(c["text"].strip() and c["label"] == "a" and "words" not in c for c in changed)
    again = augmentation.apply(record, np.random.default_rng(3))
    assert again["text"] == changed[3]["text"] and record["text"].startswith("In 1987")
    assert augmentation.apply({"text": "."}, np.random.default_rng(0))["text"].strip()


CONLL = (
    "Mary\tB-per\nsaw\tO\nOld\tB-loc\nTrafford\tI-loc\n.\tO\n\n"
    "In\tO\nParis\tB-loc\nAnn\tB-per\nSmith\tI-per\nslept\tO\n\n"
)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory) -> Model:
    """A model whose head for tags is solved on two sentences."""
    folder = tmp_path_factory.mktemp("tagger")
    (folder / "a.conll").write_text(CONLL * 6)
    store = prepare(Documents(files=folder / "a.conll", shares=(1.0, 0.0, 0.0)), folder / "tags")
    run = Run(
        data=store.path,
        out=folder / "run",
        model=BertConfig(width=16, depth=2, heads=2, hidden=32),
        codec=TextCodec(size=40, length=48),
        objective=TagWords(length=32),
        schedule=Schedule(steps=1, batch=8, lr=0.0, kind="constant"),
        hardware=Hardware(device="cpu", precision="float64", threads=1),
    )
    return Model.load(train(run).path, device="cpu")


def test_tags_are_written_as_conll(tagger, tmp_path):
    (tmp_path / "a.conll").write_text(CONLL)
    result = WordTags(files=tmp_path / "a.conll").run(tagger)
    assert result.save(tmp_path / "b.conll").read_text() == CONLL
    assert list(result.to_pandas().columns) == ["document", "word", "tag"]


def test_tags_of_texts_and_of_lists_of_words_are_those_of_the_file(tagger):
    words = ["Mary", "saw", "Old", "Trafford", "."]
    expected = ["B-per", "O", "B-loc", "I-loc", "O"]
    for text in (words, " ".join(words)):
        assert tagger.tags([text]).to_pandas()["tag"].tolist() == expected
        assert tagger.predict([text])["tags"][0] == expected
    with pytest.raises(DataError, match="input 1: a word is empty"):
        tagger.tags([words, ["a b"]])
