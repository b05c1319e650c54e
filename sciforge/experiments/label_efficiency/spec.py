"""What a label-efficiency curve compares, on which data, at which numbers of labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciforge.core.files.settings import Settings
from sciforge.core.training.run import Hardware
from sciforge.errors import ConfigError
from sciforge.experiments.label_efficiency.adaptation import Adaptation
from sciforge.experiments.methods import PROBE, Recipe


@dataclass(frozen=True, kw_only=True)
class LabelEfficiency(Settings):
    """Compare pretrained and untrained networks and classical baselines at several numbers of
    labels.

    Args:
        data: a prepared store with labels and a test split.
        out: folder of the results, where a curve that was stopped continues; None for a temporary
            one, which lives as long as the result.
        init: the pretrained checkpoint, a path or a name.
        objective: what to learn, a name or an objective; None for that of the domain's first
            recipe.
        sizes: numbers of labels; 0 means all.
        seeds: how many subsets of each size.
        methods: of pretrained, untrained, frozen, untrained:PRESET and the domain's baselines;
            empty for all of them. With `adaptation` also adapted and adapted-control.
        recipe: of pretrained and untrained alike, so that both have the same steps and the same
            search.
        frozen: recipe of the frozen probe; by default the solved head as it is.
        metric: the metric to compare; None for the objective's own.
        higher_is_better: the direction of `metric`; None for what the objective or the metric's
            name says.
        hardware: of the networks.
        adaptation: pretrain `init` further on data of the task's domain first, and compare that
            too.
        keep: keep the checkpoint of every run under `out`/checkpoints.
    """

    data: Path
    out: Path | None = None
    init: Path
    objective: Any = None
    sizes: tuple[int, ...] = (32, 128, 512)
    seeds: int = 5
    methods: tuple[str, ...] = ()
    recipe: Recipe = Recipe()
    frozen: Recipe = PROBE
    metric: str | None = None
    higher_is_better: bool | None = None
    hardware: Hardware = Hardware()
    adaptation: Adaptation | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sizes or min(self.sizes) < 0 or len(set(self.sizes)) < len(self.sizes):
            raise ConfigError(
                f"sizes are {self.sizes}; give different numbers of labels, 0 for all"
            )
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; it must be at least 1")
