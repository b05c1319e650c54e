"""Domain-adaptive pretraining: further training without labels on data of the task's own domain
(Gururangan et al. 2020).

A gain may come from longer training alone. So the same number of steps on general data, of the kind
the checkpoint was pretrained on, is compared beside it; without that control a curve says so.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciforge.core.data.store import Store
from sciforge.core.files.settings import Settings
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError

ADAPTED = {
    "adapted": "--adaptation.data",
    "adapted-control": "--adaptation.control",
}  # method -> where its data are given


@dataclass(frozen=True, kw_only=True)
class Adaptation(Settings):
    """Further pretraining of a curve's `init` by its own objective, before the task.

    Args:
        data: a prepared store of the task's domain, of the kind that `init` was pretrained on (no
            labels). Keep the task's test records out of it: nothing here can tell that they are in.
        control: a store of general data of that kind, for the same steps: what longer pretraining
            alone gives.
        steps: optimiser steps of either.
        batch: examples a step.
        lr: peak learning rate.
        seed: of the order and the corruption, the same for both.
        seeds: how many adaptations of each kind, from `seed` on; the curve's seeds take them in
            turn, so that its interval includes the chance in adapting.
    """

    data: Path
    control: Path | None = None
    steps: int = 200
    batch: int = 32
    lr: float = 2e-4
    seed: int = 0
    seeds: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "steps", "batch", "seeds")
        self.require(0, math.inf, "lr")
        self.require(0, 2**63, "seed")

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that a curve gains."""
        return tuple(ADAPTED) if self.control else ("adapted",)

    def store_of(self, method: str) -> Path:
        """Return the data of a method."""
        return self.control if self.control and method == "adapted-control" else self.data

    def check(self, parent: Checkpoint) -> None:
        """Raise ConfigError where the parent's objective cannot learn from the data, or both are
        the same.
        """
        digests = []
        for method in self.methods:
            store, flag = Store.open(self.store_of(method)), ADAPTED[method]
            if store.domain != parent.body["domain"]:
                raise ConfigError(
                    f"{flag} {store.path} is of the domain {store.domain}, {parent.path} of another"
                )
            objective = parent.objectives[0]
            if not len(objective.examples(store, "train")):
                raise ConfigError(
                    f"{flag} {store.path}: no training records for {type(objective).__name__}"
                )
            digests.append(store.digests())
        if len(digests) > 1 and digests[0] == digests[1]:
            raise ConfigError(
                "--adaptation.data and --adaptation.control hold the same data; the control must be"
                " general data"
            )

    def settings(self) -> dict[str, Any]:
        """Return what must not change while a curve goes on, by method; a control may be added
        later.
        """
        about = {name: getattr(self, name) for name in ("steps", "batch", "lr", "seed", "seeds")}
        return {
            m: {**about, "data": Store.open(self.store_of(m), verify=False).digests()}
            for m in self.methods
        }

    def folder(self, method: str, out: Path, seed: int) -> Path:
        """Return where the adaptation stands that a curve's seed takes."""
        number = seed % self.seeds
        return out / (f"{method}-{number}" if number else method)

    def make(
        self, method: str, parent: Checkpoint, out: Path, hardware: Hardware, seed: int
    ) -> Checkpoint:
        """Return the adapted checkpoint that a curve's seed takes, made where it is not there yet
        or was cut short.

        Raises:
            ConfigError: it was made by other settings.
        """
        run = Run(
            data=self.store_of(method),
            out=self.folder(method, out, seed),
            init=parent.path,
            objective=parent.objectives[0],
            schedule=Schedule(
                steps=self.steps, batch=self.batch, lr=self.lr, warmup=0.1, kind="step"
            ),
            hardware=hardware,
            seed=self.seed + seed % self.seeds,
        )
        return train(run, resume=True)
