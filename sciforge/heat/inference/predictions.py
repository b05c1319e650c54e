"""What a checkpoint of heat writes: predicted Nusselt numbers, the law in several forms, and which readings to take next."""

import copy
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sciforge.core.files.output_files import provenance, whole_files, write_whole
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import Table
from sciforge.errors import ConfigError, DataError, printable
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.data.readers import read_table
from sciforge.heat.inference.experiment_design import next_experiment
from sciforge.heat.inference.fitted_law import CHANNEL_BASIS, FittedLaw
from sciforge.heat.inference.formula import exponents, formula, latex
from sciforge.heat.inference.plot import SUFFIXES, plot
from sciforge.heat.inference.python_source import to_python
from sciforge.heat.model.extrapolation import Certificate, certify
from sciforge.heat.model.mixture import moments, quantile
from sciforge.heat.model.nusselt_net import POWER
from sciforge.heat.model.transfer_audit import FEWEST, Ledger, compare
from sciforge.heat.objectives.nusselt import HEAD

if TYPE_CHECKING:
    from sciforge.core.training.model import Model

TEXTS = (".txt", ".md", ".tex", ".py")
FIGURES = ("Nu", "low", "high", "spread", "hull", "groups_out_of_range", "problem")
NO_VALUE = "a law that counts has no value here (a smooth wall?)"


def groups_of(file: Path, columns: Sequence[str], view: FittedLaw) -> tuple[torch.Tensor, np.ndarray]:
    """Return the groups of a table's rows [M, G] and their lines [M]; raises DataError, ConfigError as `read_table`."""
    if not view.codec.channel:
        raise ConfigError("this law is of columns of your own; tables hold channels: use NusseltLaw.predict in Python")
    table = read_table(file, columns, measured=False)
    rows = np.stack([np.asarray(table.points[name], float) for name in view.columns], 1)
    return torch.from_numpy(rows), table.line


@dataclass(frozen=True, kw_only=True)
class PredictedNusselt(Settings):
    """Nusselt numbers of the points in a table, as a CSV, with intervals and whether anything was measured there.

    A prior that was not specialised predicts too, from the published laws alone, with intervals as wide as it is unsure.

    Args:
        file: table of points (.csv, .tsv, plain or gzipped); a column Nu is not needed.
        out: the CSV to write: line, the groups, Nu (the median), low, high, spread (of log Nu, noise included), hull (`inside` or
            `outside` that of the measured points), groups_out_of_range, problem.
        columns: ours=theirs where a column is not found by itself, e.g. "alpha_deg=angle [rad]".
        rig: whose points these are; empty takes that of the training points where there was one, `new` one never seen.
        coverage: of the interval from low to high, for a new reading.
    """

    file: Path
    out: Path
    columns: tuple[str, ...] = ()
    rig: str = ""
    coverage: float = 0.9

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.coverage < 1:
            raise ConfigError(f"coverage is {self.coverage}; it must lie between 0 and 1")

    def write(self, model: "Model") -> Path:
        """Write the table and return its path.

        Raises:
            DataError: the table, see `read_table`.
            ConfigError: the checkpoint is no Nusselt law of a channel, or knows several rigs and not this one.
        """
        view = FittedLaw.of_predictor(model)
        if self.rig and self.rig != "new" and self.rig not in view.rigs:
            known = ", ".join(printable(name) for name in view.rigs if name) or "none"
            raise ConfigError(f"no rig {self.rig!r} in the checkpoint (known: {known}); say `new` for one never seen")
        x_MG, line_M = groups_of(self.file, self.columns, view)
        mixture = view.mixture(x_MG, self.rig or None)
        mean_M, spread_M = moments(*mixture)
        tails = ((1 - self.coverage) / 2, (1 + self.coverage) / 2)
        low_M, high_M = (quantile(*mixture, share) for share in tails)
        metrics_M4 = torch.stack([mean_M.exp(), low_M.exp(), high_M.exp(), spread_M], 1).tolist()
        hull = self._hull(view, x_MG)
        with whole_files(self.out, sources=(self.file,)) as (handle,):
            handle.write(f"# {provenance(self, model)}\n")
            handle.write(f"# basis: {CHANNEL_BASIS}\n")
            handle.write(f"# {_known(view)}; low to high holds a new reading with probability {self.coverage:g}\n")
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(["line", *view.columns, *FIGURES])
            for row, (line, groups, metrics) in enumerate(zip(line_M, x_MG.tolist(), metrics_M4, strict=True)):
                good = bool(np.isfinite(metrics).all())
                cells = [f"{value:.6g}" for value in metrics] if good else [""] * 4
                where = (
                    ("", "")
                    if hull is None
                    else ("inside" if hull.inside_M[row] else "outside", " ".join(hull.groups[row]))
                )
                table.writerow([line, *(f"{v:.8g}" for v in groups), *cells, *where, "" if good else NO_VALUE])
        return self.out

    def _hull(self, view: FittedLaw, x_MG: torch.Tensor) -> Certificate | None:
        if not len(view.x_NG):
            return None
        known_NG = view.x_NG.double().numpy()
        # a checkpoint holds its points in single precision, which must not put a point outside of itself
        asked_MG = x_MG.numpy().astype(np.float32).astype(np.float64)
        return certify(view.codec, view.posterior.prior.length_D.numpy(), known_NG, asked_MG)


def _known(view: FittedLaw) -> str:
    """Return what predictions are from, in a line."""
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in view.laws.items() if share >= 0.005)
    if not len(view.x_NG):
        return f"from the prior alone, no measured point: {shares}"
    return f"from {len(view.x_NG)} measured points and {shares}"


@dataclass(frozen=True, kw_only=True)
class LawFormula(Settings):
    """The law of a checkpoint in the form that the suffix of `out` says.

    Args:
        out: .txt or .md (formula, exponents with intervals, and on 4 points or more what pretraining did), .tex (an equation),
            .py (a function that needs the standard library only), .png, .pdf or .svg (parity, residuals, exponents).
    """

    out: Path

    def __post_init__(self):
        super().__post_init__()
        if self.out.suffix.lower() not in TEXTS + SUFFIXES:
            raise ConfigError(f"{self.out}: the suffix is none of {', '.join(TEXTS + SUFFIXES)}; rename it")

    def write(self, model: "Model") -> Path:
        """Write the law and return its path; raises ConfigError for a checkpoint that is no Nusselt law."""
        view = FittedLaw.of_predictor(model)
        suffix = self.out.suffix.lower()
        if suffix in SUFFIXES:
            return plot(view, self.out)
        says = provenance(self, model)
        if suffix == ".py":
            text = f"# {says}\n{to_python(view)}"
        elif suffix == ".tex":
            text = f"% {says}\n{latex(view)}\n"
        else:
            remark = f"<!-- {says.replace('--', '- -')} -->" if suffix == ".md" else says
            text = f"{_report(view, getattr(model.objective, 'laws', ()), markdown=suffix == '.md')}\n{remark}\n"
        return write_whole(self.out, lambda work: work.write_text(text, encoding="utf-8"))


def _report(view: FittedLaw, used: tuple[str, ...], markdown: bool) -> str:
    """Return formula, exponents and ledger as text."""
    tables = [exponents(view).table()]
    if (ledger := ledger_of(view, used)) is not None:
        tables.append(ledger.table())
    if not markdown:
        return "\n\n".join([formula(view), *(table.text() for table in tables)]) + "\n"
    head, *rest = formula(view).splitlines()
    words = "\n".join(f"- {_escaped(line)}" for line in rest)
    return "\n\n".join([f"```\n{head}\n```", words, *(_markdown(table) for table in tables)]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _markdown(table: Table) -> str:
    rows = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    lines = ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
    return "\n".join([*lines, *(["", table.note] if table.note else [])])


def ledger_of(view: FittedLaw, used: tuple[str, ...] = ()) -> Ledger | None:
    """Return what pretraining did to the leave-one-out errors; None on fewer than FEWEST points or without published laws.

    Args:
        view: of a checkpoint or an estimator.
        used: names of the laws to compare; empty takes all.
    """
    rows = view.posterior.rows
    if len(rows.log_N) < FEWEST or view.net.laws == (POWER,):
        return None
    unfitted = copy.deepcopy(view.net)
    with torch.no_grad():
        unfitted.delta_KF.copy_(view.net.heads[HEAD].centre_KF)
    return compare(unfitted, view.x_NG.double(), rows.log_N, rows.factor_N, rows.rig_N, used)


@dataclass(frozen=True, kw_only=True)
class NextExperiment(Settings):
    """Which of the readings in a table to take next, as a CSV, the most useful first.

    Args:
        file: table of readings that could be taken (.csv, .tsv, plain or gzipped); a column Nu is not needed.
        out: the CSV to write: reading, line (of the table), the groups, plate (`measured`, `new`, `as N`), Nu expected, spread
            there and root mean square spread over all candidates after it (of log Nu).
        count: how many.
        columns: ours=theirs where a column is not found by itself.
    """

    file: Path
    out: Path
    count: int = 5
    columns: tuple[str, ...] = ()

    def write(self, model: "Model") -> Path:
        """Write the readings and return the path; raises ConfigError, DataError as `read_table` and `next_experiment`."""
        view = FittedLaw.of_predictor(model)
        x_MG, line_M = groups_of(self.file, self.columns, view)
        try:
            found = next_experiment(view, x_MG.numpy(), self.count)
        except DataError as error:
            raise DataError(str(error), self.file) from None
        with whole_files(self.out, sources=(self.file,)) as (handle,):
            handle.write(f"# {provenance(self, model)}\n")
            handle.write(f"# {_known(view)}; the candidates' spread is {found.before:.6g} before the first\n")
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(["reading", "line", *GROUPS, "plate", "Nu_expected", "spread_there", "spread_of_all_after"])
            for number, r in enumerate(found.readings, 1):
                metrics = (f"{v:.6g}" for v in (r.nusselt, r.spread, r.remaining))
                table.writerow([number, line_M[r.place], *(f"{v:.8g}" for v in r.groups.values()), r.plate, *metrics])
        return self.out
