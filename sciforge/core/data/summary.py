"""What `prepare`, `fit` and `train` say of prepared data before anybody relies on them: what was
dropped and why, duplicates, near duplicates across splits, and groups that span splits.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sciforge.core.data.duplicates import (
    Duplicates,
    NearDuplicates,
    estimate_near_duplicates,
    find_duplicates,
)
from sciforge.core.data.groups import TornGroups, groups_of, number_of, splits_of, torn_groups
from sciforge.core.data.store import SPLITS, Store
from sciforge.errors import DataError

REASONS_SHOWN = 5
# what differs between two records that are dropped for one reason
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|[-+]?\d[\d.,]*(?:e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Dropped:
    """Records that were dropped for one reason.

    Args:
        count: how many.
        reason: of the first.
        first: file, line and name of the first.
    """

    count: int
    reason: str
    first: str


@dataclass(frozen=True)
class Checks:
    """What was looked for in a store.

    Args:
        dropped: bad records, the most frequent reason first.
        duplicates: records that are the same; None where they are not compared.
        near: near duplicates of test records in training; a sentence where they were not looked
            for; None where the question does not arise.
        groups: how many groups the records have by name; 0 for none.
        torn: groups that span splits; None where there are none.
    """

    dropped: tuple[Dropped, ...] = ()
    duplicates: Duplicates | None = None
    near: NearDuplicates | str | None = None
    groups: int = 0
    torn: TornGroups | None = None

    @classmethod
    def of(cls, store: Store) -> "Checks":
        """Look at a store; near duplicates are looked for in small ones only."""
        names = groups_of(store)
        return cls(
            dropped=dropped_records(store),
            duplicates=find_duplicates(store),
            near=estimate_near_duplicates(store),
            groups=len(set(names or ())),
            torn=None if names is None else torn_groups(names, splits_of(store)),
        )

    @property
    def dropped_sentences(self) -> list[str]:
        """What is said of bad records, a sentence for each reason."""
        if not self.dropped:
            return []
        count = sum(kind.count for kind in self.dropped)
        shown = self.dropped[:REASONS_SHOWN]
        lines = [f"{number_of(count, 'bad record')} dropped (rejected.jsonl says which and why)"]
        lines += [f"{kind.count} dropped: {kind.reason} (first: {kind.first})" for kind in shown]
        more = len(self.dropped) - len(shown)
        return [*lines, f"and {number_of(more, 'other reason')}"] if more else lines

    @property
    def sentences(self) -> list[str]:
        """What is said of duplicates and groups."""
        lines = [] if self.duplicates is None else self.duplicates.sentences()
        if isinstance(self.near, str):
            lines.append(self.near)
        elif self.near is not None:
            lines += self.near.sentences()
        if self.torn is not None:
            lines.append(self.torn.text())
        elif self.groups:
            lines.append(f"{number_of(self.groups, 'group')}, each whole in one split")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return asdict(self)


def dropped_records(store: Store) -> tuple[Dropped, ...]:
    """Return why records were dropped, by reason; numbers and quoted words make no other reason.

    Raises:
        DataError: rejected.jsonl is damaged.
    """
    file = store.path / "rejected.jsonl"
    if not store.index.get("rejected") or not file.exists():
        return ()
    counts: dict[str, int] = {}
    first: dict[str, tuple[str, str]] = {}
    try:
        for text in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(text)
            kind = _VARIABLE.sub("...", row["reason"])
            counts[kind] = counts.get(kind, 0) + 1
            line = "" if row["line"] is None else f":{row['line']}"
            name = f" {row['name']}" if row["name"] else ""
            first.setdefault(kind, (row["reason"], f"{row['path']}{line}{name}"))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"not a list of rejected records ({error}); prepare again", file) from None
    order = sorted(counts, key=lambda kind: -counts[kind])
    return tuple(Dropped(counts[kind], *first[kind]) for kind in order)


def split_counts(store: Store) -> dict[str, int]:
    """Return the number of records in each split that has some, and in no split."""
    split_N = splits_of(store)
    counts = {name: int((split_N == number).sum()) for number, name in enumerate(SPLITS)}
    counts["no split"] = len(split_N) - sum(counts.values())
    return {name: count for name, count in counts.items() if count}


def label_sentences(rows: Sequence[Mapping[Any, Any]]) -> list[str]:
    """Return a line for each target, with what each split holds of it.

    Args:
        rows: of `Dataset.summary`, one a split.
    """
    targets = dict.fromkeys(key for row in rows for key in row if key not in ("split", "records"))
    lines = []
    for target in targets:
        parts = [
            f"{row['split']} {row[target]}" for row in rows if isinstance(row.get(target), str)
        ]
        lines.append(f"{target}: {'; '.join(parts)}")
    return lines
