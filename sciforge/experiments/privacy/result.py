"""What a privacy audit says: areas, true positives at few false ones, canaries, and whether the
promised bound holds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciforge.core.files.tables import Table
from sciforge.experiments.privacy.attack import RATES, Attack, Exposure, Point
from sciforge.experiments.results import ExperimentResult

if TYPE_CHECKING:
    import pandas as pd

CANARIES = "canaries, lira online"  # an attack on shadows, also where the target is the checkpoint


@dataclass(frozen=True, repr=False)
class PrivacyResult(ExperimentResult):
    """What the attacks found.

    Args:
        target: `checkpoint`, or `recipe` where each shadow was the target of the others.
        attacks: each with its ROC curve.
        exposure: of the canaries, if there are any.
        counts: shadows, records, members, canaries, records without a label.
        privacy: the budget that the checkpoint says it spent; None where it was not trained
            privately.
        warnings: why the numbers may be too low.
        exposed: names and scores of the members that are recognised most surely.
        shadow_privacy: the budget that a shadow spends; it learns other records than the
            checkpoint, and another number.
    """

    name = "privacy"

    target: str
    attacks: tuple[Attack, ...]
    exposure: Exposure | None
    counts: Mapping[str, int]
    privacy: Mapping[str, Any] | None
    warnings: tuple[str, ...] = ()
    exposed: tuple[tuple[str, float], ...] = ()
    shadow_privacy: Mapping[str, Any] | None = None

    def promise(self, attack: Attack) -> Mapping[str, Any] | None:
        """Return the budget of the models that an attack is on: the checkpoint, or the shadows."""
        on_shadows = self.target == "recipe" or attack.name == CANARIES
        return (self.shadow_privacy or self.privacy) if on_shadows else self.privacy

    def bound(self, attack: Attack, point: Point, swapped: bool = False) -> float:
        """Return the most true positives that (epsilon, delta) allows at a point's false positives,
        their interval's end.

        Kairouz et al. 2015: TPR <= exp(epsilon) FPR + delta for every attack, where one record is
        added or left out. Training sets of one size swap a record for another, which is two such
        changes (`swapped`).
        """
        promise = self.promise(attack)
        assert promise is not None
        epsilon, delta = (promise[name] for name in ("epsilon", "delta"))
        if swapped:
            epsilon, delta = 2 * epsilon, (1 + math.exp(min(epsilon, 700))) * delta
        return min(1.0, math.exp(min(epsilon, 700)) * point.fpr.high + delta)

    @property
    def pairs(self) -> list[tuple[Attack, Point]]:
        """Every point of every attack."""
        return [(attack, point) for attack in self.attacks for point in attack.points]

    @property
    def bound_holds(self) -> bool | None:
        """Whether no attack proves more true positives than promised; None where nothing was
        promised.
        """
        if not self.privacy:
            return None
        return all(p.tpr.low <= self.bound(a, p) for a, p in self.pairs)

    @property
    def proven_epsilon(self) -> float:
        """The largest epsilon that a point of an attack proves, at the ends of its intervals; 0
        proves nothing.

        The point is chosen among several, so this is not itself a 95 % bound.
        """
        delta = self.privacy["delta"] if self.privacy else 0.0
        return max((p.epsilon(delta) for _, p in self.pairs), default=0.0)

    def table(self) -> Table:
        """Return the metrics as a table with 95 % intervals."""
        rows = []
        for attack in self.attacks:
            known = {point.rate: point.tpr.text(3) for point in attack.points}
            refused = f"needs {1 / attack.smallest:.0f} < {{:.0f}} non-members"
            cells = [known.get(rate, refused.format(1 / rate)) for rate in RATES]
            rows.append((attack.name, attack.auc.text(3), *cells))
        heads = ("attack", "AUC (chance .5)", *(f"TPR at {rate:.1%} FPR" for rate in RATES))
        return Table(heads, tuple(rows), "\n".join(self.notes()))

    def notes(self) -> list[str]:
        """Return what must be said beside the metrics."""
        about = (
            "the checkpoint"
            if self.target == "checkpoint"
            else "the recipe, each shadow in turn the target"
        )
        smallest = max((a.smallest for a in self.attacks[:1]), default=1.0)
        lines = [
            f"Of {about}: {self.counts['shadows']} shadows, {self.counts['records']} records; the"
            f" smallest FPR that they resolve is {smallest:.2g}. Intervals are 95 %."
        ]
        if self.exposure:
            e = self.exposure
            lines.append(
                f"Exposure of {e.canaries} mislabelled canaries: {e.mean.text(2)} bits; chance"
                f" {e.chance:.2f}, at most {e.maximum:.2f}."
            )
        if self.privacy:
            spent = f"epsilon {self.privacy['epsilon']:.3g} at delta {self.privacy['delta']:.2g}"
            if self.shadow_privacy:
                spent += f" (shadows: {self.shadow_privacy['epsilon']:.3g})"
            lines.append(
                f"Promised: {spent}. TPR <= e^epsilon FPR + delta {self._verdict()}; the attacks"
                f" prove epsilon >= {self.proven_epsilon:.2f}."
            )
            if all(self.bound(a, p) >= 1 for a, p in self.pairs):
                lines.append(
                    "That bound is 1 in all of them, so it is not put to the test: it takes more"
                    " non-members."
                )
            lines.append(str(self.privacy["not_covered"]))
        else:
            lines.append(
                f"No budget is promised; the attacks prove epsilon >= {self.proven_epsilon:.2f}."
            )
        if missing := self.counts["unlabelled"]:
            lines.append(f"{missing} records have no loss (no label) and are left out.")
        lines += [f"warning: {line}" for line in self.warnings]
        return [*lines, "An audit finds leaks; it never proves that there is none."]

    def _verdict(self) -> str:
        if self.bound_holds:
            return "holds in all points"
        if all(p.tpr.low <= self.bound(a, p, swapped=True) for a, p in self.pairs):
            return (
                "is passed, but by no more than swapping one record for another may (twice epsilon)"
            )
        return "IS BROKEN"

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row an attack and false-positive rate, with the true-positive rate, and the
        area, with intervals.
        """
        import pandas as pd

        rows = []
        for attack in self.attacks:
            area = {"attack": attack.name, **attack.auc.columns("auc")}
            for point in attack.points:
                rates = {
                    "allowed_fpr": point.rate,
                    **point.tpr.columns("tpr"),
                    **point.fpr.columns("fpr"),
                }
                rows.append({**area, **rates})
            rows += [] if attack.points else [area]
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None) -> Any:
        """Draw the ROC curves on logarithmic axes, and return the axes."""
        from sciforge.experiments.privacy.plot import draw

        return draw(self, ax)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the curves."""
        exposure = None
        if self.exposure:
            exposure = {**vars(self.exposure), "mean": vars(self.exposure.mean)}
        return {
            "target": self.target,
            "attacks": [attack.to_json() for attack in self.attacks],
            "exposure": exposure,
            "counts": dict(self.counts),
            "privacy": self.privacy,
            "shadow_privacy": self.shadow_privacy,
            "bound_holds": self.bound_holds,
            "proven_epsilon": self.proven_epsilon,
            "warnings": list(self.warnings),
            "most_exposed": [list(pair) for pair in self.exposed],
        }
