"""Stores made of some records of other stores: what an experiment trains on."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.data.store import SPLITS, ShardWriter, Store
from sciforge.core.files.atomic import atomic_folder, write_json


def write_store(
    path: Path, splits: Mapping[str, Iterable[Mapping[str, Any]]], like: Store
) -> Store:
    """Write records as a store, in their order.

    Args:
        path: of the new store.
        splits: name -> its records.
        like: a store with the same columns, whose metadata (classes, scales) the new one takes
            over.

    Raises:
        DataError: records have other columns.
    """
    kinds = {
        name: spec["kind"]
        for shard in like.index["shards"]
        for name, spec in shard["columns"].items()
    }
    with atomic_folder(path) as work:
        shard = ShardWriter(work, "shard-00000")
        try:
            for split, records in splits.items():
                number = np.int8(SPLITS.index(split))
                for record in records:
                    ragged = {
                        name: value for name, value in record.items() if kinds[name] == "ragged"
                    }
                    fixed = {
                        name: value for name, value in record.items() if kinds[name] != "ragged"
                    }
                    shard.add(ragged, **{**fixed, "split": number})
            shards = [shard.close()]
        finally:
            shard.release()
        write_json(work / "index.json", {**like.index, "shards": shards, "rejected": 0})
    return Store.open(path)
