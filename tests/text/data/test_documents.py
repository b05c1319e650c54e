"""Stores of documents: splits without leaks, labels, sentences, reject files, equal bytes for
every number of workers.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from sciforge.core.data.groups import split_by_group
from sciforge.core.data.store import Store, prepare
from sciforge.errors import ConfigError, DataError
from sciforge.text.data.documents import Documents, key_of
from sciforge.text.data.sentences import split_sentences

DATA = Path(__file__).parents[3] / "datasets"
REVIEWS = Path(__file__).parents[4] / "shared/data/text"


def written(path: Path, lines: list[str]) -> Path:
    """Write lines and return the path."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_store_of_plain_text(tmp_path: Path):
    file = written(
        tmp_path / "a.txt", ["One here. Two", "there.", "", "Three. Four! Five?", "", "Six."]
    )
    store = prepare(Documents(files=(file,), shares=(1.0, 0.0, 0.0)), tmp_path / "store")
    assert (store.domain, store.kind, len(store)) == ("text", "documents", 3)
    assert store[0]["text"] == "One here. Two there."
    offsets = store[1]["sentences"]
    assert offsets.dtype == np.int32
    parts = [store[1]["text"][a:b].strip() for a, b in zip(offsets, offsets[1:], strict=False)]
    assert parts == split_sentences(store[1]["text"]) == ["Three.", "Four!", "Five?"]
    assert store.meta["counts"]["train"] == 3 and store.meta["sentences"] == 6
    assert [store[i]["line"] for i in range(3)] == [1, 4, 6]


def test_labels_become_classes_or_numbers(tmp_path: Path):
    file = written(tmp_path / "a.csv", ["text,y", *(f"number {n},{n % 3}" for n in range(12))])
    classes = prepare(Documents(files=(file,), label_column="y"), tmp_path / "classes")
    assert (
        classes.meta["classes"] == ["0", "1", "2"]
        and classes[4]["label"] == "1"
        and "value" not in classes[0]
    )
    numbers = prepare(
        Documents(files=(file,), label_column="y", numeric=True), tmp_path / "numbers"
    )
    assert (
        numbers[4]["value"] == 1.0 and "label" not in numbers[0] and numbers.meta["classes"] == []
    )


def test_tagged_words_keep_their_places(tmp_path: Path):
    file = written(
        tmp_path / "a.conll", ["Jane B-PER", "left O", "Bath B-LOC", "", "She O", "wept O"]
    )
    store = prepare(Documents(files=(file,), shares=(1.0, 0.0, 0.0)), tmp_path / "store")
    record = store[0]
    assert record["words"].tolist() == [[0, 4], [5, 9], [10, 14]] and record["tags"].split() == [
        "B-PER",
        "O",
        "B-LOC",
    ]
    assert [record["text"][a:b] for a, b in record["words"]] == ["Jane", "left", "Bath"]
    assert store.meta["tags"] == ["B-LOC", "B-PER", "O"]


def test_equal_documents_stay_in_one_split(tmp_path: Path):
    rows = [f"Text number {n % 40}." if n < 60 else f"TEXT  number {n % 40}" for n in range(120)]
    store = prepare(
        Documents(files=(written(tmp_path / "a.txt", rows),), documents="line"), tmp_path / "store"
    )
    splits = {}
    for i in range(len(store)):
        splits.setdefault(int(store[i]["key"]), set()).add(int(store[i]["split"]))
    assert len(splits) == 40 and all(len(found) == 1 for found in splits.values())
    counts = store.meta["counts"]
    assert (
        counts["repeated"] == 80 and counts["train"] + counts["validation"] + counts["test"] == 120
    )
    assert counts["train"] == 96 and counts["validation"] == counts["test"] == 12


def test_groups_stay_in_one_split_and_their_copies_are_left_out(tmp_path: Path):
    rows = [{"text": f"group {n // 5} text {n % 5}", "who": str(n // 5)} for n in range(100)]
    rows += [{"text": "said by all", "who": str(n)} for n in range(20)]
    file = written(tmp_path / "a.jsonl", [json.dumps(row) for row in rows])
    store = prepare(Documents(files=(file,), group_column="who"), tmp_path / "store")
    for group in range(20):
        found = {int(store[i]["split"]) for i in range(100) if rows[i]["who"] == str(group)}
        assert len(found) == 1
    kept = {int(store[i]["split"]) for i in range(100, 120)} - {3}
    assert kept == {2} and store.meta["counts"]["copies_of_held_out"] > 0


def test_a_split_column_rules_and_its_leaks_are_left_out(tmp_path: Path):
    rows = [
        "text\ty\tpart",
        "a one\t1\ttrain",
        "b two\t2\tdev",
        "c three\t1\ttest",
        "C, three!\t1\ttrain",
        "d\t2\tValid",
    ]
    options = {"label_column": "y", "split_column": "part"}
    store = prepare(
        Documents(files=(written(tmp_path / "a.tsv", rows),), **options), tmp_path / "store"
    )
    assert store.column("split").tolist() == [0, 1, 2, 3, 1]
    assert [len(store.split(name)) for name in ("train", "validation", "test")] == [1, 2, 1]
    assert store.meta["counts"]["copies_of_held_out"] == 1


def test_excluded_documents_are_in_no_split(tmp_path: Path):
    unwanted = written(tmp_path / "test.csv", ["text,y", "The room wasn't clean.,1"])
    file = written(tmp_path / "a.txt", ["The room wasn ' t clean .", "It was."])
    preparer = Documents(
        files=(file,), documents="line", exclude=(unwanted,), shares=(1.0, 0.0, 0.0)
    )
    store = prepare(preparer, tmp_path / "store")
    assert [record["text"] for record in store.split("train")] == ["It was."]
    assert store.meta["counts"]["excluded"] == 1


def test_bad_documents_go_to_the_reject_file(tmp_path: Path):
    good = [f"text {n},{n}" for n in range(8)]
    path = tmp_path / "a.csv"
    path.write_bytes(
        "\n".join(["text,y", *good, ",1", "no label,", "no number,x"]).encode() + b"\n\xe9,1\n"
    )
    preparer = Documents(files=(path,), label_column="y", numeric=True)
    with pytest.raises(DataError, match="a.csv:10: the document is empty"):
        prepare(preparer, tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()
    store = prepare(preparer, tmp_path / "store", on_error="skip")
    lines = [
        json.loads(line) for line in (tmp_path / "store/rejected.jsonl").read_text().splitlines()
    ]
    assert len(store) == 8 and [line["line"] for line in lines] == [10, 11, 12, 13]
    for line, word in zip(
        lines, ["empty", "label is missing", "'x' is not a number", "not UTF-8"], strict=True
    ):
        assert word in line["reason"]


def test_a_file_with_nothing_good_in_it_does_no_harm(tmp_path: Path):
    bad = written(tmp_path / "bad.csv", ["text,y", ",1"])
    good = written(tmp_path / "good.csv", ["text,y", "a,1", "b,2"])
    options = {"label_column": "y", "shares": (1.0, 0.0, 0.0)}
    store = prepare(Documents(files=(bad, good), **options), tmp_path / "store", on_error="skip")
    assert store.meta["classes"] == ["1", "2"]
    with pytest.raises(DataError, match="nothing to prepare"):
        prepare(Documents(files=(bad,), **options), tmp_path / "none", on_error="skip")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"files": ()}, "no file"),
        ({"shares": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"shares": (0.0, 0.5, 0.5)}, "add up to 1"),
        ({"numeric": True}, "needs --label-column"),
        ({"longest": 0}, "at least 1"),
        ({"label_column": "y"}, "has no column"),
        ({"exclude": (Path("a.pdf"),)}, "rename the file"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, options: dict, reason: str):
    file = written(tmp_path / "a.txt", ["text"])
    with pytest.raises(ConfigError, match=reason):
        prepare(Documents(**{"files": (file,), **options}), tmp_path / "store")


def test_tagged_and_plain_files_do_not_mix(tmp_path: Path):
    files = (written(tmp_path / "a.conll", ["a O"]), written(tmp_path / "b.txt", ["a"]))
    with pytest.raises(ConfigError, match="prepare them apart"):
        prepare(Documents(files=files), tmp_path / "store")


def test_an_unknown_split_and_no_training_document(tmp_path: Path):
    for rows, reason in (
        (["text,s", "a,tset"], "did you mean 'test'"),
        (["text,s", "a,test"], "left for training"),
    ):
        with pytest.raises(DataError, match=reason):
            prepare(
                Documents(files=(written(tmp_path / "a.csv", rows),), split_column="s"),
                tmp_path / "store",
            )


def test_workers_change_no_byte(tmp_path: Path):
    files = tuple(
        written(tmp_path / f"{n}.txt", [f"line {n} {m}." for m in range(50)]) for n in range(3)
    )
    stores = [
        prepare(Documents(files=files, documents="line"), tmp_path / f"store{n}", workers=n)
        for n in (1, 2)
    ]
    assert stores[0].digests() == stores[1].digests() and stores[0].meta == stores[1].meta


def test_shares_of_groups_of_one_are_exact():
    split_N = split_by_group(np.arange(1000, dtype=np.uint64), (0.7, 0.2, 0.1), seed=3)
    assert np.bincount(split_N).tolist() == [700, 200, 100]
    assert not np.array_equal(
        split_N, split_by_group(np.arange(1000, dtype=np.uint64), (0.7, 0.2, 0.1), seed=4)
    )


def test_austen_does_not_leak(tmp_path: Path):
    options = {"label_column": "label", "split_column": "split", "group_column": "chapter"}
    store = prepare(
        Documents(files=(DATA / "austen-speech.csv.gz",), **options), tmp_path / "store"
    )
    assert store.meta["counts"]["test"] == 600 and store.meta["counts"]["copies_of_held_out"] <= 5
    novels = gzip.decompress((DATA / "austen-novels.txt.gz").read_bytes()).decode()
    held = [store[i]["text"] for name in ("validation", "test") for i in store.split(name).indices]
    assert sum(text in novels for text in held) == 0
    learnt = [record["text"] for record in store.split("train")]
    assert sum(text in novels for text in learnt) > 0.9 * len(learnt)
    groups = {
        name: {record["group"] for record in store.split(name)}
        for name in ("train", "validation", "test")
    }
    assert not groups["train"] & (groups["validation"] | groups["test"])


@pytest.mark.skipif(
    not REVIEWS.exists(), reason="the hotel reviews are for evaluation only and not here"
)
def test_hotel_reviews(tmp_path: Path):
    labelled = REVIEWS / "deceptive_hotel_reviews.tsv.gz"
    preparer = Documents(files=(labelled,), label_column="label", split_column="split")
    store = prepare(preparer, tmp_path / "labelled")
    assert store.meta["classes"] == ["fake", "truthful"]
    counts = store.meta["counts"]
    assert (
        counts["train"],
        counts["validation"],
        counts["test"],
        counts["copies_of_held_out"],
    ) == (999, 200, 400, 1)


def test_a_key_ignores_what_spacing_and_case_change():
    assert key_of("Off - site , GREAT!") == key_of("off-site, great")
    assert key_of("café") != key_of("cafe")


def test_stores_survive_a_round_trip(tmp_path: Path):
    file = written(tmp_path / "a.txt", ["naïve café “quoted” 漢字 😀."])
    prepare(Documents(files=(file,), shares=(1.0, 0.0, 0.0)), tmp_path / "store")
    assert Store.open(tmp_path / "store")[0]["text"] == "naïve café “quoted” 漢字 😀."


def test_columns_that_are_not_used_are_noted(tmp_path):
    path = tmp_path / "a.csv"
    rows = "".join(f"Room {i} is fine,yes,train,{i}\n" for i in range(9))
    path.write_text("text,label,split,id\n" + rows)
    notes = prepare(Documents(files=(path,)), tmp_path / "one").meta["notes"]
    assert notes == [
        "columns not used: label, split; --split-column split takes the splits from it"
    ]
    options = {"label_column": "label", "split_column": "split"}
    notes = prepare(Documents(files=(path,), **options), tmp_path / "two").meta["notes"]
    assert notes == ["splits taken from the column split"]


def test_options_for_text_are_refused_for_tables(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("text\nfine room\n")
    for options in ({"documents": "line"}, {"cut": True}):
        with pytest.raises(ConfigError, match="for .txt files"):
            prepare(Documents(files=(path,), **options), tmp_path / "one")


def test_what_is_to_be_excluded_must_be_readable(tmp_path):
    train, test = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    row = '{{"words": ["Room", "{0}"], "tags": ["O", "B-x"], "text": "Room {0}"}}\n'
    train.write_text("".join(row.format(i) for i in range(8)))
    test.write_text(row.format(3))
    options = {"text_column": "words", "tags_column": "tags", "exclude": (test,)}
    store = prepare(Documents(files=(train,), **options), tmp_path / "one")
    assert store.meta["counts"]["excluded"] == 1
    test.write_text('{"other": "Room 3"}\n')
    with pytest.raises(DataError, match="no key 'words'"):
        prepare(Documents(files=(train,), **options), tmp_path / "two")


@pytest.mark.parametrize("tags", [("B-c", "L-c", "U-c"), ("B-c", "E-c", "S-c"), ("U-c",) * 3])
def test_other_schemes_of_tags_are_named(tmp_path, tags):
    path = tmp_path / "a.conll"
    path.write_text(
        "".join(f"Cell{i} {tags[0]}\nline {tags[1]}\ngrows O\nHeLa {tags[2]}\n\n" for i in range(9))
    )
    with pytest.raises(DataError, match="BILOU or BIOES"):
        prepare(Documents(files=(path,)), tmp_path / "one")
