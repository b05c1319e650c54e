"""Which rows of a table are possible measurements, and what a reader of the whole table should
be told.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sciforge.core.data.store import Reject
from sciforge.errors import DataError
from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.data.quantities import QUANTITIES

OnReject = Callable[[Reject], None] | None

HINTS = {
    "alpha_deg": "count from the flow, 90 is transverse (a reversed or V rib is no angle above 90)",
    "e_D": "rib height over the hydraulic diameter of the smooth channel",
    "W_H": "width of the ribbed walls over their distance, not the inverse",
}
GAS = (0.65, 1.1)  # Prandtl numbers of gases and steam, which hardly change in a rig
LARGEST_UNCERTAINTY = 0.5  # relative; what lies above is in percent, or no measurement


def suspicions(points: Mapping[str, np.ndarray], rig: Sequence[str], nu: np.ndarray) -> list[str]:
    """Return a line for repeated points, for a single point, and for groups whose exponent the data
    cannot tell.

    A constant Prandtl number of a gas is no suspicion: nearly all channels are measured in air.

    >>> points = {"Re": np.array([1e4, 2e4]), "Pr": np.array([0.7, 0.7]), "W_H": np.ones(2)}
    >>> suspicions(points, ["a", "a"], np.array([50.0, 90.0]))
    ['W_H never changes; the data cannot tell its exponent, which stays as the prior has it']
    """
    if len(nu) == 1:
        return ["a single point; it sets the level, no exponent"]
    found = []
    rows = list(zip(*points.values(), rig, strict=True))
    again = len(rows) - len(set(rows))
    copies = len(rows) - len(set(zip(rows, nu.tolist(), strict=True)))
    if again:
        same = f", {copies} of them with the same Nu too" if copies else ""
        found.append(
            f"{again} points repeat another of the same rig{same}; drop copies, or keep them if"
            " measured twice"
        )
    still = [name for name, column in points.items() if np.all(column == column[0])]
    if still := [name for name in still if name != "Pr" or not GAS[0] <= points["Pr"][0] <= GAS[1]]:
        them = "its exponent, which stays" if len(still) == 1 else "their exponents, which stay"
        verb = "never changes" if len(still) == 1 else "never change"
        found.append(f"{', '.join(still)} {verb}; the data cannot tell {them} as the prior has it")
    return found


class Rows:
    """Finds bad rows: the first is an error, or all are reported and left out."""

    def __init__(self, path: Path, on_reject: OnReject) -> None:
        self.path, self.on_reject = path, on_reject

    def bad(self, line: int, what: str) -> None:
        """Raise DataError, or report."""
        if self.on_reject is None:
            raise DataError(what, self.path, line)
        self.on_reject(Reject(str(self.path), line, "", what))

    def numbers(
        self,
        cells_of_line: Sequence[tuple[int, Sequence[str]]],
        width: int,
        places: Mapping[str, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns at `places` [N, K], NaN where a cell is empty, and the lines [N].

        Args:
            cells_of_line: number and cells of each line.
            width: of the header.
            places: name of a quantity -> its column.
        """
        rows, lines = [], []
        for line, cells in cells_of_line:
            try:
                if len(cells) < width or any(cells[width:]):
                    found = len(cells)
                    raise DataError(
                        f"{found} cells where the header has {width}; complete the line (decimals"
                        " take a point)"
                    )
                rows.append([_number(cells[place], name) for name, place in places.items()])
                lines.append(line)
            except DataError as error:
                self.bad(line, str(error))
        return np.array(rows, np.float64).reshape(len(rows), len(places)), np.array(lines, np.int64)

    def positive(self, values: Mapping[str, np.ndarray], lines: np.ndarray) -> np.ndarray:
        """Return which rows have dimensional quantities above zero (a rib may have no height),
        bool [N].
        """
        keep = np.ones(len(lines), bool)
        for name, column in values.items():
            if QUANTITIES[name].unit not in ("", "deg"):
                low = column < 0 if name == "rib_height" else column <= 0
                for row in np.flatnonzero(low & keep):
                    keep[row] = False
                    unit = QUANTITIES[name].unit
                    self.bad(
                        int(lines[row]),
                        f"{name} is {column[row]:g} {unit}; it must be above 0, correct it",
                    )
        return keep

    def plausible(
        self,
        points: Mapping[str, np.ndarray],
        nu: np.ndarray | None,
        fanning: np.ndarray,
        sd: np.ndarray,
        lines: np.ndarray,
    ) -> np.ndarray:
        """Return which rows are physically possible, bool [N]."""
        keep = np.ones(len(lines), bool)
        for row in range(len(lines)):
            what = _implausible({name: float(column[row]) for name, column in points.items()})
            if nu is not None and not what and not 0 < nu[row] < math.inf:
                what = (
                    "Nu is missing"
                    if np.isnan(nu[row])
                    else f"Nu is {nu[row]:g}; it must be above 0"
                )
            if not what and fanning[row] <= 0:
                what = f"the friction factor is {fanning[row]:g}; it must be above 0"
            if not what and sd[row] <= 0:
                what = f"uncertainty is {sd[row]:g}; it must be above 0"
            if not what and sd[row] > LARGEST_UNCERTAINTY:
                what = (
                    f"uncertainty is {sd[row]:g}, not a fraction of Nu; if it is in percent, head"
                    " the column 'uncertainty [%]'"
                )
            if what:
                keep[row] = False
                self.bad(int(lines[row]), what if ";" in what else f"{what}; correct it")
        return keep


def _number(text: str, name: str) -> float:
    """Return a cell as a number, NaN for an empty one; raises DataError for anything else.

    >>> _number("1e4", "Re"), _number("", "fanning")
    (10000.0, nan)
    """
    if not text:
        return float("nan")
    try:
        value = float(text) if "_" not in text else None
    except ValueError:
        value = None
    if value is None:
        comma = (
            "; write decimals with a point and no thousands separator"
            if re.fullmatch(r"[-+\d.,]+", text)
            else "; correct it"
        )
        raise DataError(f"{name} is {text[:40]!r}, no number{comma}")
    if not math.isfinite(value):
        raise DataError(f"{name} is {text!r}, not finite; leave unknown cells empty")
    return value


def _implausible(point: Mapping[str, float]) -> str:
    """Return what is wrong with a point, or nothing.

    >>> _implausible({"Re": -1.0})
    'Re is -1; it must be above 0'
    """
    for name, value in point.items():
        group = GROUPS[name]
        if math.isnan(value):
            return f"{name} is missing"
        if value < group.low or (group.open_low and value == group.low):
            bound = f"above {group.low:g}" if group.open_low else f"at least {group.low:g}"
        elif value > group.high:
            bound = f"at most {group.high:g}"
        else:
            continue
        return f"{name} is {value:g}; it must be {bound}" + (
            f": {HINTS[name]}" if name in HINTS else ""
        )
    return ""
