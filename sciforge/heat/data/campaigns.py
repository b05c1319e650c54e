"""Measurement campaigns of rigs that never were, drawn from published laws: what a prior is
pretrained on.

A campaign is what a laboratory would measure: a few plates, several Reynolds numbers on each. The
store holds what the law says; how far the rig is off and how its readings scatter is drawn anew
each time it is learnt from (objectives.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from sciforge.core.data import sampling
from sciforge.core.data.store import SPLITS, Reject, ShardWriter, Store
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError
from sciforge.heat.correlations.groups import GEOMETRY, GROUPS
from sciforge.heat.correlations.library import get_correlation
from sciforge.heat.data.codec import CHANNEL

# Where ribbed channels are measured; a law's own range, where it is narrower, goes before.
USUAL = {
    "Re": (8e3, 1e5),
    "Pr": (0.7, 0.7),
    "e_D": (0.02, 0.1),
    "P_e": (10.0, 20.0),
    "alpha_deg": (30.0, 90.0),
    "W_H": (1.0, 4.0),
}
# of a law's own range that campaigns reach into
LARGEST = {"Re": 1e6, "P_e": 40.0, "e_D": 0.2, "W_H": 4.0, "Pr": 40.0}
TRIES = 200
OTHER_FLUIDS = 0.25  # share of the campaigns with another fluid than air, where a law covers it
AIR = 0.703


@dataclass(frozen=True, kw_only=True)
class Campaigns(Settings):
    """Campaigns of virtual rigs that obey published laws, to pretrain on.

    Args:
        systems: names of laws; laws joined by `+` are plates of one rig (V ribs of several angles,
            say).
        campaigns: of each system.
        plates: most plates of a campaign.
        readings: most Reynolds numbers of a plate.
        validation_share: of the campaigns that are held out.
        seed: of the draws.
    """

    systems: tuple[str, ...]
    campaigns: int = 400
    plates: int = 4
    readings: int = 6
    validation_share: float = 0.1
    seed: int = 0

    domain: ClassVar[str] = "heat"
    kind: ClassVar[str] = "campaigns"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "campaigns", "plates", "readings")
        self.require(0, 0.9, "validation_share")
        if not self.systems or len(set(self.systems)) < len(self.systems):
            raise ConfigError(
                f"systems are {self.systems}; give different names of laws, at least one"
            )
        for system in self.systems:
            for law in system.split("+"):
                get_correlation(law)

    def sources(self) -> Sequence[str]:
        """Return one source a system."""
        return self.systems

    def write(
        self, source: str, shard: ShardWriter, on_reject: Callable[[Reject], None] | None
    ) -> None:
        """Append the campaigns of one system."""
        place = self.systems.index(source)
        for number in range(self.campaigns):
            rng = sampling.generator(self.seed, sampling.CORRUPT, place, number)
            x_NG, log_N = _campaign(source.split("+"), self.plates, self.readings, rng)
            split = SPLITS.index("validation" if rng.random() < self.validation_share else "train")
            shard.add({"x": x_NG, "log_nu": log_N}, system=source, split=np.int8(split))

    def finish(self, store: Store) -> Mapping[str, Any]:
        """Return the systems and the ranges drawn from."""
        ranges = {
            system: {k: list(v) for k, v in _span(system.split("+")[0]).items()}
            for system in self.systems
        }
        return {"systems": list(self.systems), "columns": list(CHANNEL), "ranges": ranges}


def _span(law: str) -> dict[str, tuple[float, float]]:
    """Return from where to where a law's campaigns go in each group."""
    correlation = get_correlation(law)
    # a smooth wall has no ribs, a tube no W/H: drawing them would teach that they do not matter
    missing = {"plate": GEOMETRY, "duct": GEOMETRY, "ribbed tube": ("W_H",)}.get(
        correlation.kind, ()
    )
    found = {}
    for name, usual in USUAL.items():
        absent = GROUPS[name].absent
        low, high = (absent, absent) if name in missing else correlation.box.get(name, usual)
        found[name] = (low, max(low, min(high, LARGEST.get(name, high))))
    return found


def _campaign(
    laws: list[str], plates: int, readings: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one campaign: rows of groups [N, 6] and log Nu [N]; plates that a law does not allow
    are drawn again.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    wanted, water = int(rng.integers(1, plates + 1)), rng.random() < OTHER_FLUIDS
    level = rng.random()
    for _ in range(TRIES):
        law = laws[int(rng.integers(len(laws)))]
        span = _span(law)
        draw = {
            name: math.exp(rng.uniform(math.log(low), math.log(high))) if low else 0.0
            for name, (low, high) in span.items()
        }
        low, high = span["Pr"]  # the fluid is one for the whole rig
        draw["Pr"] = (
            math.exp(math.log(low) + level * math.log(high / low))
            if water
            else min(max(AIR, low), high)
        )
        draw["alpha_deg"] = rng.uniform(*span["alpha_deg"])
        low, high = (math.log(value) for value in span["Re"])
        span_re = np.sort(rng.uniform(low, high, int(rng.integers(1, readings + 1))))
        x_NG = np.tile([draw[name] for name in CHANNEL], (len(span_re), 1))
        x_NG[:, 0] = np.exp(span_re)
        points = dict(zip(CHANNEL, torch.from_numpy(x_NG).unbind(1), strict=True))
        correlation = get_correlation(law)
        nusselt_N = correlation.unchecked(points).numpy()
        if (
            bool(correlation.inside(points).all())
            and np.isfinite(nusselt_N).all()
            and (nusselt_N > 0).all()
        ):
            found.append((x_NG, np.log(nusselt_N)))
            if len(found) == wanted:
                break
    if not found:
        raise ConfigError(
            f"no plate of the usual sizes lies inside the range of {'+'.join(laws)}; leave it out"
        )
    return np.concatenate([x for x, _ in found]), np.concatenate([log for _, log in found])
