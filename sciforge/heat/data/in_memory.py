"""Measured points that users hold in a DataFrame, as a preparer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from sciforge.core.data.groups import group_names
from sciforge.core.data.store import SPLITS, ShardWriter, Store
from sciforge.core.data.targets import split_numbers
from sciforge.core.files.settings import Settings
from sciforge.errors import DataError
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.data.measurements import OnReject, add_point, counts_and_ranges
from sciforge.heat.data.readers import IN_MEMORY, MeasuredTable, read_frame
from sciforge.heat.data.reference_basis import CHANNEL_BASIS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class MeasurementsInMemory(Settings):
    """Measured heat transfer of a table in memory; made by `of`.

    Args:
        basis: of Nu, where the table's `attrs` do not state it; by default that of the published
            laws.
        seed: recorded; nothing is drawn.
    """

    basis: str = CHANNEL_BASIS
    seed: int = 0
    table: MeasuredTable | None = field(default=None, init=False, repr=False, compare=False)
    splits: tuple[int, ...] = field(default=(), init=False, repr=False, compare=False)

    domain: ClassVar[str] = "heat"
    kind: ClassVar[str] = "measurements"

    @classmethod
    def of(
        cls,
        frame: "pd.DataFrame",
        split: Sequence[str] | None = None,
        group: Sequence[Any] | None = None,
        **options: Any,
    ) -> Self:
        """Return the preparer of a table.

        Args:
            frame: points with Nu, as `read_frame` takes them.
            split: `train`, `validation` or `test` of each row; None puts all in train.
            group: of each row; None for none.
            options: fields of this class.

        Raises:
            DataError: as `read_frame`, or an unknown split; names the row by its place.
        """
        preparer = cls(**options)
        basis = "" if "basis" in frame.attrs else preparer.basis
        table = read_frame(frame, basis=basis)
        if not basis:
            object.__setattr__(preparer, "basis", table.basis)
        names = group_names(group, len(table))
        table = table if names is None else replace(table, group=names)
        object.__setattr__(preparer, "table", table)
        object.__setattr__(preparer, "splits", tuple(split_numbers(split, len(table)).tolist()))
        return preparer

    def sources(self) -> Sequence[str]:
        """Return the table as one source."""
        if self.table is None:
            raise DataError("there is no table; make the preparer by `of`")
        return [str(IN_MEMORY)]

    def write(self, source: str, shard: ShardWriter, on_reject: OnReject) -> None:
        """Append the rows."""
        for row, split in enumerate(self.splits):
            add_point(shard, self.table, row, split, source)

    def finish(self, store: Store) -> dict[str, Any]:
        """Return rigs, basis, counts and the ranges of training."""
        points = {name: np.asarray(store.column(name)) for name in GROUPS}
        split = np.asarray(store.column("split"))
        # a table that is only evaluated
        ranged = split if (split == 0).any() else np.zeros_like(split)
        notes = [f"Nu is taken on the basis: {self.basis}", *self.table.notes]
        meta = counts_and_ranges(points, ranged, store.column("rig"))
        meta["counts"] = {name: int((split == place).sum()) for place, name in enumerate(SPLITS)}
        return meta | {
            "basis": self.table.basis,
            "notes": notes,
            "split": "given",
            "seed": self.seed,
        }
