"""The audit of near duplicates, the same for every domain."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciforge.core.data.duplicates import (
    count_near,
    features_of,
    find_duplicates,
    fingerprint_of,
    held_out_split,
    name_of,
)
from sciforge.core.data.groups import COLUMN, groups_of, splits_of, torn_groups
from sciforge.core.data.near_duplicates import NearPairs, near_pairs
from sciforge.core.data.store import SPLITS, Store
from sciforge.core.data.summary import split_counts
from sciforge.core.domain import Inputs, get_domain
from sciforge.core.files.results import write_table
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import AuditReport, Section, Table
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 40  # letters of a record in the table of examples


@dataclass(frozen=True, kw_only=True)
class AuditNearDuplicates(Settings):
    """Do test records nearly stand in training, and what must stay together so that they do not?

    Args:
        data: a prepared store.
        similarity: features in common, of all that either record has, from which two are near
            duplicates; None for the domain's own.
        examples: how many of the nearest pairs to show.
        groups: table to write (NAME.csv or NAME.tsv): the records with a column `group` that links
            near duplicates, and groups that were named before, to prepare again with
            --group-column group; None writes nothing.
    """

    data: Path
    similarity: float | None = None
    examples: int = 5
    groups: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 10_000, "examples")
        if self.similarity is not None and not 0 < self.similarity <= 1:
            raise ConfigError(f"similarity is {self.similarity}; it lies above 0 and up to 1")

    def run(self) -> AuditReport:
        """Return the count and share of test records with a near duplicate in training, the nearest
        pairs, exact duplicates and torn groups.

        Raises:
            ConfigError: the records of the store are not compared.
        """
        store = Store.open(self.data)
        fingerprint = fingerprint_of(store)
        if fingerprint is None:
            raise ConfigError(
                f"{store.path}: records of a store of {store.domain} {store.kind} are not compared;"
                " audit a store of labelled records"
            )
        similarity = self.similarity or fingerprint.similarity
        pairs = near_pairs(features_of(store, fingerprint), similarity)
        tables, metrics, warnings = _counts(store, pairs, similarity)
        if examples := self._examples(store, pairs):
            tables.append(examples)
        more, sentences = _exact(store)
        paragraphs = [f"Records are compared by {fingerprint.summary}."]
        groups, whole = link(store, pairs), "with this column as --group-column"
        several = int((np.bincount(groups[groups >= 0]) > 1).sum()) if (groups >= 0).any() else 0
        if self.groups is not None:
            written = write_table(Path(self.groups), grouped_frame(store, groups), {}, ())
            paragraphs.append(f"{written} has the records with their groups; prepare it {whole}.")
        elif metrics.get("near_duplicates"):
            paragraphs.append("--groups FILE writes groups that keep near duplicates together.")
        metrics |= more | {"linked_groups": float(several)}
        section = Section("Near duplicates", tuple(paragraphs), tuple(tables))
        return AuditReport(section, metrics, (*warnings, *sentences))

    def _examples(self, store: Store, pairs: NearPairs) -> Table | None:
        split_N = splits_of(store)
        if (split := held_out_split(split_N)) is None or not self.examples:
            return None
        held_out, training = np.flatnonzero(split_N == split), np.flatnonzero(split_N == 0)
        nearest, similarity = pairs.nearest(held_out, training)
        order = np.argsort(-similarity, kind="stable")[: self.examples]
        rows = tuple(
            (f"{similarity[at]:.2f}", _shown(store, held_out[at]), _shown(store, nearest[at]))
            for at in order
            if nearest[at] >= 0
        )
        if not rows:
            return None
        return Table(("similarity", f"{SPLITS[split]} record", "training record"), rows)


def _counts(
    store: Store, pairs: NearPairs, similarity: float
) -> tuple[list[Table], dict[str, float], tuple[str, ...]]:
    """Return the table of the held-out splits, its figures, and warnings."""
    split_N = splits_of(store)
    rows, metrics, warnings = [], {}, []
    main = held_out_split(split_N)
    for split in (1, 2):
        if main is None or not (split_N == split).any():
            continue
        near = count_near(pairs, split_N, split, similarity)
        share = near.count / near.records
        rows.append((near.split, str(near.records), str(near.count), f"{share:.1%}"))
        prefix = "" if split == main else f"{near.split}_"
        metrics[f"{prefix}near_duplicates"] = float(near.count)
        metrics[f"{prefix}share"] = share
        if near.count:
            warnings.append(
                f"{near.count} of {near.records} {near.split} records with a near duplicate in"
                " training"
            )
    if not rows:
        note = "there is no held-out split, so that nothing can leak into it"
        counts = tuple((name, str(count)) for name, count in split_counts(store).items())
        return [Table(("split", "records"), counts, note)], {}, ()
    head = ("split", "records", "with a near duplicate in training", "share")
    return (
        [Table(head, tuple(rows), f"Near: similarity of {similarity:g} or more.")],
        metrics,
        (*warnings,),
    )


def _exact(store: Store) -> tuple[dict[str, float], list[str]]:
    """Return figures and warnings of exact duplicates and of torn groups."""
    metrics: dict[str, float] = {}
    sentences: list[str] = []
    if (exact := find_duplicates(store)) is not None:
        metrics |= {f"duplicates_{k}": float(getattr(exact, k)) for k in ("within", "across")}
        metrics["duplicates_conflicting"] = float(exact.conflicting)
        sentences += exact.sentences()
    if (groups := groups_of(store)) is not None:
        torn = torn_groups(groups, splits_of(store))
        metrics["torn_groups"] = float(torn.count if torn else 0)
        sentences += [torn.text()] if torn else []
    return metrics, sentences


def _shown(store: Store, place: int) -> str:
    """Return a record for a table: its name, and the first text of its natural columns."""
    record = store[int(place)]
    reader = get_domain(store.domain).inputs or Inputs()
    row = reader.frame([record], store.meta).iloc[0]
    name = name_of(record, int(place)).strip("'")
    texts = [v for k, v in row.items() if isinstance(v, str) and v != name and k != "label"]
    return " ".join([name, texts[0][:SHOWN]]) if texts else name


def link(store: Store, pairs: NearPairs) -> np.ndarray:
    """Return a number for each record, int [N]: near duplicates and named groups share one; -1 for
    records in no split.
    """
    names = groups_of(store)
    known = None if names is None else np.unique(names, return_inverse=True)[1]
    groups = pairs.groups(known)
    used = np.isin(splits_of(store), range(len(SPLITS)))
    _, first, inverse = np.unique(groups[used], return_index=True, return_inverse=True)
    linked = np.full(len(groups), -1)
    linked[used] = np.argsort(np.argsort(first))[inverse]  # in the order of the records
    return linked


def grouped_frame(store: Store, groups: np.ndarray) -> "pd.DataFrame":
    """Return the records that are in a split, in natural columns, with `split` and `group`."""
    split_N = splits_of(store)
    places = np.flatnonzero(groups >= 0)
    reader = get_domain(store.domain).inputs or Inputs()
    frame = reader.frame([store[int(place)] for place in places], store.meta)
    names = [f"group {number}" for number in groups[places].tolist()]
    splits = [SPLITS[number] for number in split_N[places].tolist()]
    return frame.assign(**{"split": splits, COLUMN: names})
