"""Label-efficiency curves: pretrained, untrained and frozen networks and classical baselines on the
same few labels.

Seeds are paired: for one (number of labels, seed) every method sees the same subset in the same
order, and every network starts with the same head.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sciforge.core.data.store import Store
from sciforge.core.domain import get_domain
from sciforge.core.files.atomic import sha256
from sciforge.core.objective import LabelledRecords
from sciforge.core.training.run import to_json
from sciforge.errors import ConfigError
from sciforge.experiments.grid import Grid, Row, cell_name, open_folder, scratch
from sciforge.experiments.held_out import HeldOut
from sciforge.experiments.label_efficiency.adaptation import ADAPTED
from sciforge.experiments.label_efficiency.result import LabelEfficiencyResult, RunMetrics
from sciforge.experiments.label_efficiency.spec import LabelEfficiency
from sciforge.experiments.methods import (
    Methods,
    TrainingSet,
    open_parent,
    resolve_objective,
    training_records,
)
from sciforge.experiments.statistics import require_direction


def measure(spec: LabelEfficiency) -> LabelEfficiencyResult:
    """Run what is not yet done of a curve and return all of it.

    Raises:
        ConfigError: unknown method or metric, too few labels, or `spec.out` holds a curve of other
            settings.
        CheckpointError, DataError: the checkpoint or the store is missing or damaged.
    """
    curve = LabelEfficiencyRun.open(spec)  # checks everything before a folder is made
    with open_folder(spec.out) as folder:
        curve = curve.within(folder)
        grid = Grid.open(
            folder, ("method", "labels", "seed"), curve.settings(), "a curve", may_grow=True
        )
        cells = [
            (method, n, seed)
            for n in curve.sizes
            for seed in range(spec.seeds)
            for method in curve.names
        ]
        curve.adapt(grid.missing(cells))
        rows = grid.run(cells, curve.run, "label efficiency")
        runs = tuple(RunMetrics.from_json(row) for row in rows)
        direction = require_direction(curve.test.higher_is_better, curve.test.metric)
        result = LabelEfficiencyResult(runs, curve.test.metric, direction, curve.kinds)
        result.keep(folder, spec.out is None, {"spec": to_json(spec)})
    return result


@dataclass(frozen=True)
class LabelEfficiencyRun:
    """A curve's data and methods, opened once.

    Args:
        spec: what was asked for.
        folder: of the results.
        store: the data.
        methods: what is compared.
        train: all training records.
        test: the test records.
    """

    spec: LabelEfficiency
    folder: Path
    store: Store
    methods: Methods
    train: LabelledRecords
    test: HeldOut

    @classmethod
    def open(cls, spec: LabelEfficiency) -> "LabelEfficiencyRun":
        """Open what a curve names, and check it before any work is done."""
        store = Store.open(spec.data)
        domain, parent = get_domain(store.domain), open_parent(spec.init, store.domain, spec.data)
        objective = resolve_objective(spec.objective, store, parent)
        test = HeldOut.of(store, objective, ("test",), spec.metric, spec.higher_is_better)
        if spec.adaptation:
            spec.adaptation.check(parent)
        methods = Methods(domain, parent, objective, spec.recipe, spec.frozen, spec.hardware)
        curve = cls(spec, Path(), store, methods, training_records(objective, store), test).within(
            Path()
        )
        if max(curve.sizes) > len(curve.train):
            raise ConfigError(
                f"{spec.data} has {len(curve.train)} training labels; sizes ask for"
                f" {max(curve.sizes)}"
            )
        for name in curve.names:
            if name in ADAPTED and name not in curve.methods.adapted:
                raise ConfigError(f"{name} needs data to adapt to; give {ADAPTED[name]}")
            curve.methods.kind(name)
        return curve

    def within(self, folder: Path) -> "LabelEfficiencyRun":
        """Return the curve with its results in a folder."""
        names = self.spec.adaptation.methods if self.spec.adaptation else ()
        adapted = {name: partial(_adapted, self.spec, name, folder) for name in names}
        return replace(self, folder=folder, methods=replace(self.methods, adapted=adapted))

    @property
    def sizes(self) -> list[int]:
        """Numbers of labels, ascending; 0 stands for all."""
        return sorted({n or len(self.train) for n in self.spec.sizes})

    @property
    def names(self) -> tuple[str, ...]:
        """The methods asked for; by default every one."""
        return self.spec.methods or self.methods.defaults

    @property
    def kinds(self) -> dict[str, str]:
        """Method -> network, control or baseline."""
        return {name: self.methods.kind(name) for name in self.names}

    def settings(self) -> dict[str, Any]:
        """Return what must not change between two calls for one curve; sizes, seeds and methods
        may grow.
        """
        spec = to_json(self.spec)
        about = {
            "objective": to_json(self.methods.objective),
            "metric": self.test.metric,
            "data": self.store.digests(),
        }
        about |= {key: spec[key] for key in ("recipe", "frozen")}
        about |= {"init": sha256(self.methods.parent.path / "checkpoint.json")}
        return about | (self.spec.adaptation.settings() if self.spec.adaptation else {})

    def adapt(self, cells: list[tuple[str, int, int]]) -> None:
        """Make the adapted checkpoints that these runs start from."""
        if adaptation := self.spec.adaptation:
            wanted = {
                (method, seed % adaptation.seeds) for method, _, seed in cells if method in ADAPTED
            }
            for method, seed in sorted(wanted):
                adaptation.make(method, self.methods.parent, self.folder, self.spec.hardware, seed)

    def run(self, method: str, labels: int, seed: int) -> Row:
        """Train or fit one method on one subset and evaluate it on the test split."""
        start = time.monotonic()
        training = TrainingSet(self.spec.data, self.train, labels, seed)
        name = cell_name((method, labels, seed))
        keep = self.folder / "checkpoints" / name if self.spec.keep else None
        with scratch(self.folder) as work:
            predict, about = self.methods.fit(method, training, work, keep)
            outputs = predict(self.test.records)
        scores = self.test.evaluate_outputs(outputs)
        # now, not when all is trained
        require_direction(self.test.higher_is_better, self.test.metric)
        seconds = time.monotonic() - start
        row = {
            "metrics": scores.metrics,
            "without": scores.without,
            "seconds": seconds,
            "about": about,
        }
        return {**row, "arrays": outputs}


def _adapted(spec: LabelEfficiency, method: str, folder: Path, seed: int) -> Path:
    """Return the adapted checkpoint that a seed starts from."""
    assert spec.adaptation is not None
    return spec.adaptation.folder(method, folder, seed) / "final"
