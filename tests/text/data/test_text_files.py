"""Files of text, good and hostile: what becomes a document, and what one line says of the rest."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from sciforge.core.data.store import Reject
from sciforge.errors import ConfigError, DataError
from sciforge.text.data.lines import Document, Layout
from sciforge.text.data.readers import read_documents

PLAIN, LINES, FILE = Layout(), Layout(documents="line"), Layout(documents="file")


def read(
    path: Path, content: str | bytes, layout: Layout = PLAIN
) -> tuple[list[Document], list[Reject]]:
    """Write a file and read it, bad documents skipped."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rejects: list[Reject] = []
    return list(read_documents(path, layout, rejects.append)), rejects


def texts(path: Path, content: str | bytes, layout: Layout = PLAIN) -> list[str]:
    """Return the texts of a file that must be wholly good."""
    documents, rejects = read(path, content, layout)
    assert not rejects
    return [document.text for document in documents]


def only_reason(path: Path, content: str | bytes, layout: Layout = PLAIN) -> str:
    """Return why the one bad document of a file was refused; without a reject list it must raise
    the same.
    """
    _, rejects = read(path, content, layout)
    assert len(rejects) == 1
    with pytest.raises(DataError) as caught:
        list(read_documents(path, layout))
    assert str(caught.value).startswith(f"{path}:{rejects[0].line}: {rejects[0].reason}")
    assert "\n" not in str(caught.value) and ";" in str(caught.value)
    return rejects[0].reason


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [(PLAIN, ["a b c", "d"]), (LINES, ["a", "b c", "d"]), (FILE, ["a b c\n\nd"])],
)
def test_what_one_document_of_plain_text_is(tmp_path: Path, layout: Layout, wanted: list[str]):
    content = "a\n b\t c \r\n\n\nd" if layout.documents != "line" else "a\nb  c\r\nd"
    assert texts(tmp_path / "a.txt", content, layout) == wanted


def test_gzip_and_byte_order_mark(tmp_path: Path):
    assert texts(tmp_path / "a.txt.gz", gzip.compress(b"\xef\xbb\xbfa b")) == ["a b"]


def test_tables(tmp_path: Path):
    layout = Layout(label="kind", split="part", group="author")
    rows = 'name,text,kind,part,author\nx,"a, ""b""\nc",yes,train,me\n\ny,d,no,test,you\n'
    found, rejects = read(tmp_path / "a.csv", rows, layout)
    assert not rejects
    assert [(d.name, d.text, d.label, d.split, d.group, d.line) for d in found] == [
        ("x", 'a, "b" c', "yes", "train", "me", 2),
        ("y", "d", "no", "test", "you", 5),
    ]
    assert texts(tmp_path / "b.csv", "text;n\na;1\n") == ["a"]


def test_tab_separated_text_has_no_quoting(tmp_path: Path):
    rows = 'text\tn\n"Classy" and "Decent", they said\t1\n"whole ""cell"""\t2\n" open\t3\n'
    assert texts(tmp_path / "a.tsv", rows) == [
        '"Classy" and "Decent", they said',
        'whole "cell"',
        '" open',
    ]


def test_json_lines(tmp_path: Path):
    rows = [
        {"text": "a b", "stars": 5, "id": 7},
        {"text": "c", "stars": 0.5, "name": "n"},
        {"text": "d", "stars": True},
    ]
    found, rejects = read(
        tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n", Layout(label="stars")
    )
    assert not rejects
    assert [(d.text, d.label, d.name) for d in found] == [
        ("a b", "5", "7"),
        ("c", "0.5", "n"),
        ("d", "true", ""),
    ]


def test_tagged_words(tmp_path: Path):
    conll = "-DOCSTART- -X- O\n\nJane NNP B-PER\nleft VBD O\n\nBath NNP B-LOC\n"
    found, rejects = read(tmp_path / "a.conll", conll)
    assert not rejects
    assert [(d.text, d.words, d.tags, d.line) for d in found] == [
        ("Jane left", ((0, 4), (5, 9)), ("B-PER", "O"), 3),
        ("Bath", ((0, 4),), ("B-LOC",), 6),
    ]
    row = json.dumps({"words": ["Jane", "left"], "tags": ["B-PER", "O"]})
    assert read(tmp_path / "a.jsonl", row, Layout(text="words", tags="tags"))[0][0].words == (
        (0, 4),
        (5, 9),
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"words": ["a"], "tags": []}, "1 words but 0 tags"),
        ({"words": ["a b"], "tags": ["O"]}, "holds a space"),
        ({"words": "a", "tags": ["O"]}, "not lists"),
        ({"words": [], "tags": []}, "empty"),
        ({"words": [1], "tags": ["O"]}, "not lists"),
    ],
)
def test_bad_tags_of_json(tmp_path: Path, row: dict, reason: str):
    assert reason in only_reason(
        tmp_path / "a.jsonl", json.dumps(row), Layout(text="words", tags="tags")
    )


@pytest.mark.parametrize("line", ["alone", "a b c"])
def test_bad_tagged_lines(tmp_path: Path, line: str):
    assert "line 3 has" in only_reason(tmp_path / "a.conll", f"ok O\n\n{line}\n\nfine O\n")


@pytest.mark.parametrize(
    ("name", "content", "layout", "reason"),
    [
        ("a.txt", "ok\n\ngood\n", LINES, "is empty"),
        ("a.txt", "ok\n---\ngood\n", LINES, "no letter or digit"),
        ("a.txt", "ok\n\nbad\0\n\ngood", PLAIN, "NUL"),
        ("a.txt", b"ok\n\ncaf\xe9\n\ngood", PLAIN, "0xe9 at offset 7 is not UTF-8"),
        ("a.txt", b"ok\ncaf\xe9\ngood", LINES, "0xe9 at offset 6 is not UTF-8"),
        ("a.txt", b"\xef\xbb\xbfok\n\n\xff\n\ngood", PLAIN, "0xff at offset 7"),
        ("a.csv", b"text,n\nok,1\n\xe9,2\ngood,3\n", PLAIN, "0xe9 at offset 12"),
        ("a.csv", "text,n\nok,1\nbad\ngood,2\n", PLAIN, "1 cells and the header 2"),
        ("a.csv", 'text,n\nok,1\n"bad" x,2\ngood,3\n', PLAIN, "not a row"),
        ("a.csv", 'text,n\nok,1\ngood,2\n"never closed,3\n', PLAIN, "not a row"),
        ("a.csv", "text,n\nok,1\n ,2\ngood,3\n", PLAIN, "is empty"),
        ("a.csv", "text,y\nok,1\nbad,\ngood,2\n", Layout(label="y"), "the label is missing"),
        ("a.tsv", "text\ty\nok\t1\nbad\t2\t3\ngood\t2\n", PLAIN, "3 cells"),
        ("a.jsonl", '{"text": "ok"}\n{"text"\n{"text": "good"}', PLAIN, "not JSON"),
        ("a.jsonl", '{"text": "ok"}\n[1]\n{"text": "good"}', PLAIN, "a list"),
        ("a.jsonl", '{"text": "ok"}\n{"txt": "a"}\n{"text": "good"}', PLAIN, "did you mean 'txt'"),
        ("a.jsonl", '{"text": "ok"}\n{"text": 5}\n{"text": "good"}', PLAIN, "a int, not text"),
        ("a.jsonl", '{"text": "ok"}\n{"text": "a\\ud800"}\n{"text": "good"}', PLAIN, "surrogate"),
        (
            "a.jsonl",
            '{"text": "ok", "y": 1}\n{"text": "a"}\n{"text": "good", "y": 1}',
            Layout(label="y"),
            "missing",
        ),
        ("a.jsonl", '{"text": "ok"}\n' + "[" * 100_000 + '\n{"text": "good"}', PLAIN, "not JSON"),
    ],
)
def test_bad_documents_have_a_reason(
    tmp_path: Path, name: str, content: str | bytes, layout: Layout, reason: str
):
    assert reason in only_reason(tmp_path / name, content, layout)
    assert [d.text for d in read(tmp_path / name, content, layout)[0]] == ["ok", "good"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", "text".encode("utf-16"), "UTF-16"),
        ("a.txt", gzip.compress(b"text"), "ending .gz"),
        ("a.txt", b"%PDF-1.4", "PDF"),
        ("a.txt.gz", b"text", "not a whole gzip file"),
        ("a.txt.gz", gzip.compress(b"text" * 10_000)[:-20], "not a whole gzip file"),
        ("a.csv", b"body,n\na,1\n", "no column 'text'"),
        ("a.csv", b"te\xe9xt,n\na,1\n", "not UTF-8"),
    ],
)
def test_bad_files_stop_in_one_line(tmp_path: Path, name: str, content: bytes, reason: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        list(read_documents(path, PLAIN, [].append))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_settings_that_cannot_be(tmp_path: Path):
    for name, layout in (
        ("a.pdf", PLAIN),
        ("a.txt", Layout(label="y")),
        ("a.conll", Layout(split="s")),
    ):
        with pytest.raises(ConfigError, match=name):
            list(read_documents(tmp_path / name, layout))
    with pytest.raises(DataError, match="check the path"):
        list(read_documents(tmp_path / "missing.txt", PLAIN))


def test_a_decompression_bomb_is_refused(tmp_path: Path):
    path = tmp_path / "a.txt.gz"
    with gzip.open(path, "wb", 1) as out:
        for _ in range(300):
            out.write(bytes(2**20))
    with pytest.raises(DataError, match="bomb"):
        list(read_documents(path, PLAIN, [].append))


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_one_giant_line_is_refused_in_bounded_memory(tmp_path: Path, name: str):
    path, size = tmp_path / name, 40_000_000
    first = {"a.txt": b"ok\n", "a.csv": b"text\nok\n", "a.jsonl": b'{"text": "ok"}\n'}[name]
    path.write_bytes(first + b"word " * (size // 5) + first.splitlines()[-1].rjust(3, b"\n"))
    rejects: list[Reject] = []
    tracemalloc.start()
    found = [
        d.text
        for d in read_documents(path, Layout(documents="line", longest=10_000), rejects.append)
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        found[0] == "ok" and len(rejects) == 1 and "longer than 10,000 letters" in rejects[0].reason
    )
    assert peak < size / 8


@pytest.mark.parametrize("letter", ["a", "é", "漢"])
def test_a_giant_line_is_cut_between_words(tmp_path: Path, letter: str):
    content = " ".join([letter * 7] * 5000)
    parts = texts(tmp_path / "a.txt", content, Layout(cut=True, longest=1000))
    assert " ".join(parts) == content and max(map(len, parts)) <= 1256 and len(parts) > 30


@pytest.mark.parametrize("content", ["a" * 5000, "é" * 5000, "漢" * 2500 + "a"])
def test_a_word_without_end_is_cut_between_letters(tmp_path: Path, content: str):
    found, rejects = read(tmp_path / "a.txt", content, Layout(cut=True, longest=1000))
    assert "".join(d.text for d in found) == content and not rejects


def test_a_long_paragraph_is_refused_and_the_next_is_read(tmp_path: Path):
    content = "word\n" * 1000 + "\nshort\n"
    found, rejects = read(tmp_path / "a.txt", content, Layout(longest=1000))
    assert [d.text for d in found] == ["short"] and [r.line for r in rejects] == [1]
    assert "--documents line" in rejects[0].reason
    assert (
        " ".join(texts(tmp_path / "b.txt", content, Layout(longest=1000, cut=True)))
        == "word " * 1000 + "short"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "text\tlabel\nGood room\tyes\n", "header of a table"),
        ("a.txt", "label,text\nyes,Good room\n", "header of a table"),
        ("a.csv", "text,label,text\na,b,c\n", "more than once"),
        ("a.txt", b"BZh91AY&SY", "bzip2"),
        ("a.txt", b"\xfd7zXZ\x00\x00", "xz"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words):
        list(read_documents(path, Layout()))


def test_a_sentence_with_the_word_text_is_no_header(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("A text, short as it is.\n")
    assert len(list(read_documents(path, Layout()))) == 1


def test_numbers_of_json_are_the_same_class_however_written(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = ('{"text": "a", "y": 1}', '{"text": "b", "y": 1.0}', '{"text": "c", "y": NaN}')
    path.write_text("\n".join(rows) + "\n")
    rejects = []
    documents = list(read_documents(path, Layout(label="y"), rejects.append))
    assert [document.label for document in documents] == ["1", "1"]
    assert [reject.reason for reject in rejects] == ["the label is missing"]
