"""Valid files of text, and what reads them, for tests/core/test_hostile.py to damage."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tiny_runs import exhaust

from sciforge.text.data.lines import Layout
from sciforge.text.data.readers import read_documents

PLAIN = (
    "One document. It has two sentences.\n\nA second one, \u201cquoted\u201d: na\u00efve.\n"
).encode()
TABLE = b'text,label\n"A fine room, really.",true\nNothing worked.,fake\n'
LINES = b'{"text": "A fine room.", "label": "true"}\n{"text": "Nothing worked.", "label": "fake"}\n'
TAGGED = b"Jane B-PER\nsmiled O\n. O\n\nBath B-LOC\n"


def reader(**layout: str) -> Callable[[Path], None]:
    """Return what reads a file with its parts at these places."""
    return exhaust(partial(read_documents, layout=Layout(**layout)))


# Name -> (a valid file, its ending, what reads it).
PARSERS: dict[str, tuple[bytes, str, Callable[[Path], Any]]] = {
    "plain text": (PLAIN, ".txt", reader()),
    "text table": (TABLE, ".csv", reader(label="label")),
    "text lines": (LINES, ".jsonl", reader(label="label")),
    "tagged words": (TAGGED, ".conll", reader()),
}
