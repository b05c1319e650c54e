"""Between which sources of data transfer is measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciforge.core.files.settings import Settings
from sciforge.core.training.run import Hardware
from sciforge.errors import ConfigError
from sciforge.experiments.methods import PROBE, Recipe


@dataclass(frozen=True, kw_only=True)
class Transfer(Settings):
    """Train on each source of data and test on every other: laboratories, species, molecules,
    scanners, authors.

    Also train on all sources but one and test on that one (leave one source out): what a new user's
    own data may expect.

    Args:
        data: several prepared stores with the same labels, one a source; or one store with
            `groups`.
        groups: a column of the one store that names the source of each record.
        out: folder of the results, where an experiment that was stopped continues; None for a
            temporary one, which lives as long as the result.
        init: the pretrained checkpoint, a path or a name.
        objective: what to learn, a name or an objective; None for that of the domain's first
            recipe.
        labels: how many training labels of a source are learnt, the same for all; 0 for all that
            each has.
        seeds: how many subsets and initialisations, paired over methods and sources.
        methods: of pretrained, untrained, frozen, untrained:PRESET and the domain's baselines;
            empty for all of them.
        recipe: of pretrained and untrained alike, so that both have the same steps and the same
            search.
        frozen: recipe of the frozen probe; by default the solved head as it is.
        metric: the metric to compare; None for the objective's own.
        higher_is_better: the direction of `metric`; None for what the objective or the metric's
            name says.
        hardware: of the networks.
    """

    data: tuple[Path, ...]
    groups: str = ""
    out: Path | None = None
    init: Path
    objective: Any = None
    labels: int = 0
    seeds: int = 3
    methods: tuple[str, ...] = ()
    recipe: Recipe = Recipe()
    frozen: Recipe = PROBE
    metric: str | None = None
    higher_is_better: bool | None = None
    hardware: Hardware = Hardware()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, 1000, "seeds")
        self.require(0, 2**62, "labels")
        if self.groups and len(self.data) != 1:
            raise ConfigError(
                f"{len(self.data)} stores with groups {self.groups!r}; give one store, or leave"
                " groups out"
            )
        if not self.groups and len(self.data) < 2:
            raise ConfigError("transfer needs at least two stores, or one with --groups COLUMN")
        if len(set(self.data)) < len(self.data):
            raise ConfigError("a store is given twice; give each once")
