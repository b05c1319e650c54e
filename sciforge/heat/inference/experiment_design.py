"""Which readings to take next: those that most reduce the mean predictive variance over all
candidates.

I-optimality, and not D-optimality: what counts is how well the law predicts where the user will use
it, which the candidates say; the determinant would reward exponents that nobody asks for. The
mixture's own covariance (within each component, and between them, so laws that disagree are told
apart) is that of the best linear prediction, whose variance after a reading needs no value of it
and is never below what is expected of the exact posterior. Each choice conditions the covariance
before the next (Cohn, Ghahramani & Jordan, J. Artif. Intell. Res. 4 (1996) 129; greedy: Krause,
Singh & Guestrin, J. Mach. Learn. Res. 9 (2008) 235).

Legend of shape letters: M candidates, G groups, C components.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciforge.core.files.tables import Table
from sciforge.errors import ConfigError, DataError, printable
from sciforge.heat.inference.fitted_law import Fitted, FittedLaw
from sciforge.heat.model.posterior import Rows, covariance

if TYPE_CHECKING:
    import pandas as pd

MOST = 3000  # candidates; their covariance is held whole
BLOCK = 4_000_000  # numbers of covariances computed at a time


@dataclass(frozen=True)
class Suggestion:
    """One reading to take.

    Args:
        place: which candidate, counted from 0.
        groups: its groups.
        nusselt: what is expected (the median).
        std: standard deviation of log Nu there before this reading (and after those above it),
            without the reading's noise.
        remaining: root mean square of the std over all candidates after it.
        plate: `measured`, `new`, or `as 2` where reading 2 of this list is on it.
    """

    place: int
    groups: dict[str, float]
    nusselt: float
    std: float
    remaining: float
    plate: str


@dataclass(frozen=True)
class Suggestions:
    """Readings to take, the most useful first.

    Args:
        readings: in this order; each counts on those before it.
        before: root mean square of the std over all candidates before any of them.
    """

    readings: tuple[Suggestion, ...]
    before: float

    def to_pandas(self) -> "pd.DataFrame":
        """Return a row for each reading: reading, the groups, plate, Nu_expected, std_there,
        std_of_all_after.
        """
        import pandas as pd

        rows = [
            {
                "reading": number,
                **r.groups,
                "plate": r.plate,
                "Nu_expected": r.nusselt,
                "std_there": r.std,
                "std_of_all_after": r.remaining,
            }
            for number, r in enumerate(self.readings, 1)
        ]
        return pd.DataFrame(rows)

    def table(self) -> Table:
        """Return the readings as a table; groups that are the same in all stand in its note."""
        names = list(self.readings[0].groups)
        still = [
            name
            for name in names
            if len({r.groups[name] for r in self.readings}) == 1 and len(self.readings) > 1
        ]
        shown = [name for name in names if name not in still]
        rows = []
        for number, r in enumerate(self.readings, 1):
            metrics = (f"{r.nusselt:.4g}", f"{100 * r.std:.1f}", f"{100 * r.remaining:.2f}")
            rows.append(
                (str(number), *(f"{r.groups[name]:.6g}" for name in shown), r.plate, *metrics)
            )
        same = "".join(
            f"; {printable(name)} {self.readings[0].groups[name]:.6g} in all" for name in still
        )
        note = f"before the first, the candidates' std is {100 * self.before:.2f} %{same}"
        heads = (
            "reading",
            *map(printable, shown),
            "plate",
            "Nu expected",
            "std there %",
            "std of all after %",
        )
        return Table(heads, tuple(rows), note)


def next_experiment(law: Fitted | FittedLaw, candidates: Any, count: int = 1) -> Suggestions:
    """Choose the readings that most reduce the mean predictive variance of log Nu over all
    candidates, one after the other.

    Args:
        law: fitted.
        candidates: groups of the readings that could be taken, as `NusseltLaw.predict` takes them;
            of several rigs, those of the points, a new one is meant.
        count: how many.

    Raises:
        ConfigError: `count` is not 1 to the number of candidates, or there are too many.
        DataError: a candidate that physics does not allow, or where no law has a value.
    """
    view = FittedLaw.of(law)
    x_MG = view.points_of(candidates)
    if len(x_MG) > MOST:
        raise ConfigError(f"{len(x_MG)} candidates; give at most {MOST}")
    if not 1 <= count <= len(x_MG):
        raise ConfigError(f"count is {count} of {len(x_MG)} candidates; give 1 to {len(x_MG)}")
    rig = 0 if len(view.rigs) == 1 else len(view.rigs)  # a new rig, but one for all candidates
    rows = view.net.rows(x_MG, rig_N=torch.full((len(x_MG),), rig))
    mean_M, joint_MM = joint(view, rows)
    if not bool(mean_M.isfinite().all()):
        row = int((~mean_M.isfinite()).nonzero()[0, 0])
        raise DataError(
            f"candidate {row}: a law that counts has no value there (a smooth wall?); leave it out"
        )
    c = view.posterior.components
    noise = float(c.weight_C @ c.noise_C**2)
    plates = _plates(view, rows)
    before = math.sqrt(float(joint_MM.diagonal().mean()))
    found: list[Suggestion] = []
    for _ in range(count):
        gain_M = joint_MM.square().sum(0) / (joint_MM.diagonal() + noise)
        gain_M[[s.place for s in found]] = -1.0
        best = int(gain_M.argmax())
        std = math.sqrt(float(joint_MM[best, best]))
        joint_MM = joint_MM - torch.outer(joint_MM[best], joint_MM[best]) / (
            joint_MM[best, best] + noise
        )
        remaining = math.sqrt(max(float(joint_MM.diagonal().mean()), 0.0))
        groups = dict(zip(view.columns, x_MG[best].tolist(), strict=True))
        earlier = [n for n, s in enumerate(found, 1) if plates[s.place] == plates[best]]
        plate = f"as {earlier[0]}" if earlier and plates[best] != "measured" else plates[best]
        plate = "new" if plate.startswith("plate") else plate
        found.append(Suggestion(best, groups, math.exp(float(mean_M[best])), std, remaining, plate))
    return Suggestions(tuple(found), before)


def joint(view: FittedLaw, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return mean [M] and covariance [M, M] of log Nu at points under the whole mixture, without
    the noise of readings.
    """
    found, c = view.posterior, view.posterior.components
    total_M = len(rows.log_N)
    mean_CM, _ = found.predict(rows)
    mean_M = c.weight_C @ mean_CM
    apart_CM = (mean_CM - mean_M) * c.weight_C.sqrt()[:, None]
    joint_MM = apart_CM.T @ apart_CM
    size = max(1, BLOCK // total_M**2)
    for part in torch.arange(len(c.weight_C)).split(size):
        some = type(c)(*(value[part] for value in vars(c).values()))
        cross_CMN = covariance(found.prior, some, rows, found.rows)
        half_CNM = torch.linalg.solve_triangular(found.factor_CNN[part], cross_CMN.mT, upper=False)
        own_CMM = covariance(found.prior, some, rows, rows) - half_CNM.mT @ half_CNM
        joint_MM += torch.einsum("c,cmn->mn", some.weight_C, own_CMM)
    return mean_M, joint_MM


def _plates(view: FittedLaw, rows: Rows) -> list[str]:
    """Return of each candidate a name of its plate: `measured` where the points have it; without
    plates, every point is one.
    """
    plate_D = view.posterior.prior.plate_D
    if not bool(plate_D.any()):
        return [f"plate {place}" for place in range(len(rows.log_N))]
    known = {
        tuple(round(v, 9) for v in place)
        for place in view.posterior.rows.coordinate_ND[:, plate_D].tolist()
    }
    found = []
    for place in rows.coordinate_ND[:, plate_D].tolist():
        key = tuple(round(v, 9) for v in place)
        found.append("measured" if key in known else f"plate {key}")
    return found
