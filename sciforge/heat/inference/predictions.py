"""Predicted Nusselt numbers of points in a table, and which readings to take next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sciforge.core.files.output_files import about
from sciforge.core.files.results import TableResult
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError, printable
from sciforge.heat.data.readers import read_table
from sciforge.heat.data.reference_basis import CHANNEL_BASIS
from sciforge.heat.inference.experiment_design import next_experiment
from sciforge.heat.inference.fitted_law import FittedLaw
from sciforge.heat.model.extrapolation import Certificate, certify
from sciforge.heat.model.mixture import moments, quantile

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from sciforge.core.training.model import Model

NO_VALUE = "a law that counts has no value here (a smooth wall?)"


def groups_of(
    file: Path, columns: Sequence[str], view: FittedLaw
) -> tuple[torch.Tensor, np.ndarray]:
    """Return the groups of a table's rows [M, G] and their lines [M]; raises DataError,
    ConfigError as `read_table`.
    """
    if not view.codec.channel:
        raise ConfigError(
            "this law is of columns of your own; tables hold channels: use NusseltLaw.predict in"
            " Python"
        )
    table = read_table(file, columns, measured=False)
    rows = np.stack([np.asarray(table.points[name], float) for name in view.columns], 1)
    return torch.from_numpy(rows), table.line


@dataclass(frozen=True, kw_only=True)
class PredictedNusselt(Settings):
    """Nusselt numbers of the points in a table, with intervals and whether anything was measured
    there.

    A prior that was not specialised predicts too, from the published laws alone, with intervals as
    wide as it is unsure. Columns: line, the groups, Nu (the median), Nu_lower, Nu_upper, std_log_Nu
    (noise included), extrapolates (whether the point lies outside the measured ones; empty for a
    prior), groups_out_of_range, problem. Saved as .csv or .tsv.

    Args:
        file: table of points (.csv, .tsv, plain or gzipped); a column Nu is not needed.
        columns: ours=theirs where a column is not found by itself, e.g. "alpha_deg=angle [rad]".
        rig: whose points these are; empty takes that of the training points where there was one,
            `new` one never seen.
        coverage: of the interval from Nu_lower to Nu_upper, for a new reading.
    """

    file: Path
    columns: tuple[str, ...] = ()
    rig: str = ""
    coverage: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.coverage < 1:
            raise ConfigError(f"coverage is {self.coverage}; it must lie between 0 and 1")

    def run(self, model: "Model") -> TableResult:
        """Return the table.

        Raises:
            DataError: the table, see `read_table`.
            ConfigError: the checkpoint is no Nusselt law of a channel, or knows several rigs and
                not this one.
        """
        import pandas as pd

        view = FittedLaw.of_predictor(model)
        if self.rig and self.rig != "new" and self.rig not in view.rigs:
            known = ", ".join(printable(name) for name in view.rigs if name) or "none"
            raise ConfigError(
                f"no rig {self.rig!r} in the checkpoint (known: {known}); say `new` for one never"
                " seen"
            )
        x_MG, line_M = groups_of(self.file, self.columns, view)
        mixture = view.mixture(x_MG, self.rig or None)
        mean_M, std_M = moments(*mixture)
        tails = ((1 - self.coverage) / 2, (1 + self.coverage) / 2)
        lower_M, upper_M = (quantile(*mixture, share) for share in tails)
        columns = {"line": line_M, **dict(zip(view.columns, x_MG.numpy().T, strict=True))}
        columns |= {
            "Nu": mean_M.exp(),
            "Nu_lower": lower_M.exp(),
            "Nu_upper": upper_M.exp(),
            "std_log_Nu": std_M,
        }
        frame = pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})
        names = ["Nu", "Nu_lower", "Nu_upper", "std_log_Nu"]
        usable_M = np.isfinite(frame[names]).all(axis=1)
        frame.loc[~usable_M, names] = np.nan
        certificate = self._certificate(view, x_MG)
        if certificate is None:
            frame["extrapolates"], frame["groups_out_of_range"] = None, ""
        else:
            frame["extrapolates"] = ~np.asarray(certificate.inside_M, bool)
            frame["groups_out_of_range"] = [" ".join(groups) for groups in certificate.groups]
        frame["problem"] = np.where(usable_M, "", NO_VALUE)
        facts = {"basis": CHANNEL_BASIS, "from": sources_of(view), "coverage": self.coverage}
        return TableResult(
            frame, {**about(self, model), **facts}, _draw_predictions, sources=(self.file,)
        )

    def _certificate(self, view: FittedLaw, x_MG: torch.Tensor) -> Certificate | None:
        if not len(view.x_NG):
            return None
        known_NG = view.x_NG.double().numpy()
        # a checkpoint holds its points in single precision, which must not put a point outside of
        # itself
        asked_MG = x_MG.numpy().astype(np.float32).astype(np.float64)
        return certify(view.codec, view.posterior.prior.length_D.numpy(), known_NG, asked_MG)


def _draw_predictions(frame: "pd.DataFrame", ax: "Axes") -> None:
    """Draw Nu against Re, one point a row, with its interval."""
    known = frame[frame["problem"] == ""]
    bars = [known["Nu"] - known["Nu_lower"], known["Nu_upper"] - known["Nu"]]
    ax.errorbar(
        known["Re"], known["Nu"], bars, fmt="o", markersize=4, color="#0072B2", ecolor="#7FB2D6"
    )
    ax.set(xscale="log", yscale="log", xlabel="Re", ylabel="Nu")


def sources_of(view: FittedLaw) -> str:
    """Return which points and laws predictions are from, in a line."""
    shares = ", ".join(
        f"{name} {100 * share:.0f} %" for name, share in view.laws.items() if share >= 0.005
    )
    if not len(view.x_NG):
        return f"from the prior alone, no measured point: {shares}"
    return f"from {len(view.x_NG)} measured points and {shares}"


@dataclass(frozen=True, kw_only=True)
class NextExperiment(Settings):
    """Which of the readings in a table to take next, the most useful first.

    Columns: reading, line (of the table), the groups, plate (`measured`, `new`, `as N`),
    Nu_expected, std_there and root mean square std over all candidates after it, std_of_all_after
    (of log Nu). Saved as .csv or .tsv.

    Args:
        file: table of readings that could be taken (.csv, .tsv, plain or gzipped); a column Nu is
            not needed.
        count: how many.
        columns: ours=theirs where a column is not found by itself.
    """

    file: Path
    count: int = 5
    columns: tuple[str, ...] = ()

    def run(self, model: "Model") -> TableResult:
        """Return the readings; raises ConfigError, DataError as `read_table` and
        `next_experiment`.
        """
        import pandas as pd

        view = FittedLaw.of_predictor(model)
        x_MG, line_M = groups_of(self.file, self.columns, view)
        try:
            suggestions = next_experiment(view, x_MG.numpy(), self.count)
        except DataError as error:
            raise DataError(str(error), self.file) from None
        frame = suggestions.to_pandas()
        frame.insert(1, "line", [int(line_M[r.place]) for r in suggestions.readings])
        facts = {"from": sources_of(view), "std_before": suggestions.before}
        return TableResult(
            pd.DataFrame(frame), {**about(self, model), **facts}, sources=(self.file,)
        )
