"""A store gives back what was put in, refuses what does not fit together, and splits without
leaks.
"""

import tracemalloc
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from sciforge.core.data.store import ShardWriter, Store, prepare
from sciforge.errors import ConfigError, DataError


@dataclass(frozen=True)
class Parts:
    """Shards of records given as (ragged, fixed) pairs."""

    shards: InitVar[tuple]
    domain: ClassVar[str] = "none"
    kind: ClassVar[str] = "test"

    def __post_init__(self, shards):
        object.__setattr__(self, "parts", shards)

    def sources(self):
        return range(len(self.parts))

    def write(self, source, shard, on_reject):
        for ragged, fixed in self.parts[source]:
            shard.add(ragged, **fixed)

    def finish(self, store):
        return {}


def record(n: int, **fixed) -> tuple[dict, dict]:
    return {"rows": np.full((n, 2), n, np.float32)}, {
        "name": f"é{n}",
        "number": np.int64(n),
        **fixed,
    }


def test_what_goes_in_comes_out(tmp_path):
    store = prepare(Parts(((record(3), record(0)), (), (record(5),))), tmp_path / "s")
    assert [r["name"] for r in store] == ["é3", "é0", "é5"] and len(store) == 3
    assert [r["rows"].shape for r in store] == [(3, 2), (0, 2), (5, 2)] and (
        store[2]["rows"] == 5
    ).all()
    assert store.column("number").tolist() == [3, 0, 5] and store.lengths("rows").tolist() == [
        3,
        0,
        5,
    ]
    with pytest.raises(IndexError):
        store[3]
    with pytest.raises(DataError, match="no column 'nam'"):
        store.column("nam")


def test_without_a_split_all_is_training(tmp_path):
    store = prepare(Parts(((record(3), record(1)),)), tmp_path / "s")
    assert len(store.split("train")) == 2 and not len(store.split("validation"))
    with pytest.raises(ConfigError, match="no split 'tests'"):
        store.split("tests")


def test_splits_are_disjoint_and_whole(tmp_path):
    made = tuple(record(n, split=np.uint8(n % 3)) for n in range(1, 8))
    store = prepare(Parts((made[:4], made[4:])), tmp_path / "s")
    numbers = {
        name: store.split(name).column("number").tolist()
        for name in ("train", "validation", "test")
    }
    assert numbers == {"train": [3, 6], "validation": [1, 4, 7], "test": [2, 5]}


def test_a_split_in_some_shards_only_does_not_leak_into_training(tmp_path):
    store = prepare(Parts(((record(1, split=np.uint8(2)),), (record(2),))), tmp_path / "s")
    with pytest.raises(DataError, match="split"):
        store.split("train")


def test_a_column_missing_from_a_record_is_refused(tmp_path):
    with pytest.raises(DataError, match="'value' is in 1 of 2 records"):
        prepare(Parts(((record(1, value=np.float64(1)), record(2)),)), tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_a_store_is_never_overwritten_and_never_half_there(tmp_path):
    prepare(Parts(((record(1),),)), tmp_path / "s")
    with pytest.raises(ConfigError, match="exists already"):
        prepare(Parts(((record(2),),)), tmp_path / "s")
    assert Store.open(tmp_path / "s").column("number").tolist() == [1]
    with pytest.raises(DataError, match="no usable record"):
        prepare(Parts(((),)), tmp_path / "t")
    assert [f.name for f in tmp_path.iterdir()] == ["s"]


def test_the_memory_that_a_record_takes_does_not_grow_with_their_number(tmp_path: Path):
    """Each record of a text column once made a list as long as the shard so far."""

    def peak() -> int:
        tracemalloc.start()
        writer.end(name="x", value=0)
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    writer = ShardWriter(tmp_path, "shard")
    peaks = []
    for count in (100, 20_000):
        while writer.num_records < count:
            writer.end(name="x", value=0)
        peaks.append(min(peak() for _ in range(5)))  # the list of offsets grows now and then
    writer.release()
    assert peaks[1] < peaks[0] + 10_000
