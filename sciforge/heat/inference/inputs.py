"""Users' own tables of measured points: what `fit`, `evaluate` and `predict` of a Nusselt law
take and give.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sciforge.core.domain import FitRecipe, Inputs, Record
from sciforge.core.training.run import Hardware, Schedule
from sciforge.errors import ConfigError
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.data.in_memory import MeasurementsInMemory
from sciforge.heat.data.readers import read_frame
from sciforge.heat.objectives.nusselt import Nusselt

if TYPE_CHECKING:
    import pandas as pd

    from sciforge.core.data.store import Store
    from sciforge.core.training.checkpoint import Checkpoint
    from sciforge.core.training.model import Model


def exact(store: "Store", parent: "Checkpoint", count: int) -> dict[str, Any]:
    """Return the settings of the closed-form fit: the posterior is solved before the only step,
    which moves nothing.
    """
    return {
        "objective": Nusselt(),
        "schedule": Schedule(steps=1, batch=64, lr=0.0, weight_decay=0.0),
        "hardware": Hardware(device="cpu", precision="float64", threads=1),
    }


class PointInputs(Inputs):
    """Natural inputs are DataFrames, one row a point, columns by the names and aliases of CSV
    files.
    """

    takes_tables: ClassVar[bool] = True
    recipes: ClassVar[Mapping[str, FitRecipe]] = {
        "exact": FitRecipe("three points or more: the posterior in closed form", exact)
    }

    def records(self, inputs: Sequence[Any]) -> list[Record]:
        """Return the groups of each row.

        Raises:
            DataError: a column is missing or a row is bad; names the row by its place.
            ConfigError: not a DataFrame.
        """
        table = read_frame(_frame(inputs), measured=False)
        rows = range(len(table))
        return [{**{n: table.points[n][i] for n in GROUPS}, "rig": table.rig[i]} for i in rows]

    def preparer(
        self,
        inputs: Sequence[Any],
        targets: "pd.DataFrame | None",
        *,
        split: Sequence[str] | None,
        seed: int,
        group: Sequence[Any] | None = None,
    ) -> MeasurementsInMemory:
        """Return a preparer of measured points; targets name Nu, or the table has a column of
        it.
        """
        frame = _frame(inputs)
        if targets is not None:
            if targets.shape[1] != 1:
                raise ConfigError(
                    f"a Nusselt law learns one target; give Nu, not {', '.join(targets)}"
                )
            frame = frame.assign(Nu=targets.iloc[:, 0].to_numpy())
        return MeasurementsInMemory.of(frame, split, group, seed=seed)

    def columns(
        self, model: "Model", outputs: Mapping[str, np.ndarray]
    ) -> dict[str, Sequence[Any]]:
        """Return Nu (the median), Nu_lower, Nu_upper (90 % of new readings) and std_log_Nu."""
        names = {"value": "Nu", "low": "Nu_lower", "high": "Nu_upper", "std": "std_log_Nu"}
        return {names[name]: values for name, values in outputs.items()}

    def frame(self, records: Sequence[Record], meta: Mapping[str, Any]) -> "pd.DataFrame":
        """Return the groups, Nu, friction factor, uncertainty and rig of measured points."""
        import pandas as pd

        if records and "value" not in records[0]:
            return super().frame(records, meta)
        names = {**{name: name for name in GROUPS}, "value": "Nu", "fanning": "fanning"}
        names |= {"uncertainty": "uncertainty", "rig": "rig"}
        return pd.DataFrame({new: [r[old] for r in records] for old, new in names.items()})


def _frame(inputs: Any) -> "pd.DataFrame":
    import pandas as pd

    if not isinstance(inputs, pd.DataFrame):
        raise ConfigError(f"points are given as a DataFrame with columns {', '.join(GROUPS)}")
    return inputs
