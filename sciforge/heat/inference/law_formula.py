"""The law of a checkpoint as text, equation, source code or picture."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sciforge.core.files.output_files import about, write_whole
from sciforge.core.files.results import Result
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import Table
from sciforge.errors import ConfigError
from sciforge.heat.inference.fitted_law import FittedLaw
from sciforge.heat.inference.formula import exponents, formula, latex
from sciforge.heat.inference.plot import SUFFIXES, draw_law, draw_parity, save_figure
from sciforge.heat.inference.python_source import to_python
from sciforge.heat.model.nusselt_net import POWER
from sciforge.heat.model.transfer_audit import FEWEST, TransferAudit, compare
from sciforge.heat.objectives.nusselt import HEAD

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from sciforge.core.training.model import Model

TEXTS = (".txt", ".md", ".tex", ".py")


@dataclass(frozen=True, kw_only=True)
class LawFormula(Settings):
    """The law of a checkpoint in the form that the suffix of the file says.

    Saved as .txt or .md (formula, exponents with intervals, and on 4 points or more what
    pretraining did), .tex (an equation), .py (a function that needs the standard library only),
    .png, .pdf or .svg (parity, residuals, exponents), or .csv or .tsv (the exponents).
    """

    def run(self, model: "Model") -> "FormulaResult":
        """Return the law; raises ConfigError for a checkpoint that is no Nusselt law."""
        used = getattr(model.objective, "laws", ())
        return FormulaResult(FittedLaw.of_predictor(model), used, about(self, model))


class FormulaResult(Result):
    """The law of a checkpoint.

    Args:
        law: points and posterior.
        used: names of the laws to audit; empty takes all.
        about: where it comes from.
    """

    def __init__(self, law: FittedLaw, used: tuple[str, ...], about: dict[str, Any]) -> None:
        self.law, self.used, self._about = law, used, about

    @property
    def about(self) -> dict[str, Any]:
        """Where the law comes from, as JSON values."""
        return self._about

    def __str__(self) -> str:
        return formula(self.law)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a row for each exponent, with its 90 % interval and where it is from."""
        return exponents(self.law).to_pandas()

    def latex(self) -> str:
        """Return the law as a LaTeX equation."""
        return latex(self.law)

    def to_python(self) -> str:
        """Return the source of a function that needs the standard library only."""
        return to_python(self.law)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw predicted against measured Nusselt numbers; raises ConfigError for a prior
        without points.
        """
        return draw_parity(self.law, ax)

    def save(self, path: Path | str) -> Path:
        """Write the law in the form that the suffix says, with its provenance; return the path.

        Raises:
            ConfigError: another suffix.
            DataError: the disk is full or may not be written.
        """
        import json

        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            return save_figure(draw_law(self.law), path)
        if suffix in (".csv", ".tsv"):
            return super().save(path)
        if suffix not in TEXTS:
            raise ConfigError(
                f"{path}: the suffix is none of {', '.join(TEXTS + SUFFIXES)}; rename it"
            )
        provenance = json.dumps(self._about)
        if suffix == ".py":
            text = f"# {provenance}\n{to_python(self.law)}"
        elif suffix == ".tex":
            text = f"% {provenance}\n{latex(self.law)}\n"
        else:
            markdown = suffix == ".md"
            remark = f"<!-- {provenance.replace('--', '- -')} -->" if markdown else provenance
            text = f"{_report(self.law, self.used, markdown)}\n{remark}\n"
        return write_whole(path, lambda work: work.write_text(text, encoding="utf-8"))


def _report(view: FittedLaw, used: tuple[str, ...], markdown: bool) -> str:
    """Return formula, exponents and audit as text."""
    tables = [exponents(view).table()]
    if (audit := transfer_audit_of(view, used)) is not None:
        tables.append(audit.table())
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


def transfer_audit_of(view: FittedLaw, used: tuple[str, ...] = ()) -> TransferAudit | None:
    """Return what pretraining did to the leave-one-out errors; None on fewer than FEWEST points or
    without published laws.

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
