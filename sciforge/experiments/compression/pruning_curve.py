"""Quality against sparsity, of one or several checkpoints: means over the seeds of a recipe,
intervals, area, table, plot.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sciforge.core.files.atomic import sha256
from sciforge.core.files.tables import Table
from sciforge.core.training import checkpoint as checkpoints
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.loop import train
from sciforge.core.training.run import to_json
from sciforge.errors import ConfigError
from sciforge.experiments.compression.pruning import cut_weights, tuned_run
from sciforge.experiments.compression.spec import Prune, open_held_out
from sciforge.experiments.grid import Grid, Row, open_folder, scratch
from sciforge.experiments.held_out import HeldOut, Scores
from sciforge.experiments.plots import COLORS, frame, new_axes
from sciforge.experiments.results import ExperimentResult
from sciforge.experiments.statistics import Interval, direction_text, mean_interval

if TYPE_CHECKING:
    import pandas as pd


def measure(spec: Prune) -> "PruningCurveResult":
    """Evaluate every checkpoint at every sparsity, as far as that is not done, and return it all.

    Raises:
        ConfigError: checkpoints of other objectives, groups of unequal size, or `spec.out` holds
            another curve.
    """
    parents = [Checkpoint.open(path) for path in spec.init]
    for parent, path in zip(parents, spec.init, strict=True):
        if parent.objectives[0] != parents[0].objectives[0]:
            raise ConfigError(
                f"{path} learnt another objective than {spec.init[0]}; prune them apart"
            )
    names = spec.groups or group_names(parents)
    seeds = [names[:place].count(name) for place, name in enumerate(names)]
    if len({names.count(name) for name in names}) > 1:
        counts = ", ".join(f"{names.count(name)} of {name!r}" for name in dict.fromkeys(names))
        raise ConfigError(
            f"groups have different numbers of seeds: {counts}; give as many of each, or --groups"
        )
    store, held_out, engine = open_held_out(spec, parents[0])
    members = {
        (name, seed): parent for parent, name, seed in zip(parents, names, seeds, strict=True)
    }
    cells = [
        (name, share, seed) for share in sorted(set(spec.sparsities)) for name, seed in members
    ]
    with open_folder(spec.out) as folder:
        settings = _settings(spec, held_out, store.digests(), parents)
        grid = Grid.open(folder, ("group", "sparsity", "seed"), settings, "a curve")

        def evaluate(name: str, share: float, seed: int) -> Row:
            with scratch(folder) as work:
                run = replace(spec, out=work / "run")
                return vars(_evaluate(run, held_out, engine, members[name, seed], seed, share))

        rows = grid.run(cells, evaluate, "prune")
        scores = {cell: Scores.from_json(row) for cell, row in zip(cells, rows, strict=True)}
        about = held_out.split, len(held_out.records), bool(spec.tune)
        result = PruningCurveResult(scores, held_out.metric, held_out.higher_is_better, *about)
        places = {str(path): name for path, name in zip(spec.init, names, strict=True)}
        result.keep(folder, spec.out is None, {"spec": to_json(spec), "checkpoints": places})
    return result


def _settings(
    spec: Prune, held_out: HeldOut, digests: Mapping[str, str], parents: Sequence[Checkpoint]
) -> dict[str, Any]:
    """Return what must not change between two calls for one curve; sparsities may grow."""
    about = {name: getattr(spec, name) for name in ("scope", "pattern", "ramp", "cuts", "seed")}
    about |= {"metric": held_out.metric, "split": held_out.split, "data": dict(digests)}
    about["init"] = [sha256(parent.path / "checkpoint.json") for parent in parents]
    return {**about, "tune": to_json(spec.tune), "groups": list(spec.groups)}


def _evaluate(
    spec: Prune, held_out: HeldOut, engine: Engine, parent: Checkpoint, seed: int, share: float
) -> Scores:
    """Prune one checkpoint to one sparsity, fine-tune it where asked for (the dense one too),
    and evaluate it.
    """
    if spec.tune is None:
        network = parent.build()
        checkpoints.load_weights(network, cut_weights(parent, spec.pruning(share)), parent.path)
        return held_out.evaluate(network.to(engine.device), parent.codec, engine)
    assert spec.out is not None
    run = tuned_run(spec, parent, share, spec.out, spec.seed + seed)
    return held_out.evaluate_checkpoint(train(run if share else replace(run, pruning=None)), engine)


def group_names(parents: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Return a name for each checkpoint: the settings of its run that others have otherwise, seeds
    and places aside.

    Where runs differ in nothing else, all are seeds of one group.
    """
    ignored = ("out", "seed", "hardware", "type", "data")
    settings = []
    for parent in parents:
        run = {key: value for key, value in to_json(parent.run).items() if key not in ignored}
        settings.append(dict(_leaves({**run, "model": parent.body["model"]})))
    keys = dict.fromkeys(key for leaves in settings for key in leaves)
    apart = [key for key in keys if len({json.dumps(leaves.get(key)) for leaves in settings}) > 1]
    if not apart:
        return ("checkpoint",) * len(parents)
    return tuple(
        ", ".join(f"{key.rpartition('.')[2]} {leaves.get(key)}" for key in apart)
        for leaves in settings
    )


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the plain values of nested mappings under dotted names.

    >>> _leaves({"a": {"b": 1}, "c": 2})
    [('a.b', 1), ('c', 2)]
    """
    leaves: list[tuple[str, Any]] = []
    for key, inner in value.items():
        name = f"{prefix}{key}"
        leaves += _leaves(inner, f"{name}.") if isinstance(inner, Mapping) else [(name, inner)]
    return leaves


def mean_height(levels: Sequence[float], values: Sequence[float]) -> float:
    """Return the area under a curve over its width: the mean of the metric over sparsities, by
    trapezoids.

    >>> mean_height([0.0, 0.5, 1.0], [1.0, 1.0, 0.0])
    0.75
    """
    x, y = np.asarray(levels, float), np.asarray(values, float)
    return float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)) / (x[-1] - x[0]))


@dataclass(frozen=True, repr=False)
class PruningCurveResult(ExperimentResult):
    """All runs of a curve and what follows from them.

    Args:
        scores: of every (group, sparsity, seed).
        metric, higher_is_better: the metric compared and its direction.
        split, records: which records it was evaluated on.
        tuned: whether each was fine-tuned after pruning.
    """

    name = "prune"

    scores: Mapping[tuple[str, float, int], Scores]
    metric: str
    higher_is_better: bool | None
    split: str
    records: int
    tuned: bool = False

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups in the order given."""
        return tuple(dict.fromkeys(group for group, _, _ in self.scores))

    @property
    def levels(self) -> tuple[float, ...]:
        """Sparsities, ascending."""
        return tuple(sorted({level for _, level, _ in self.scores}))

    def cell(self, group: str, level: float) -> list[Scores]:
        """Return the seeds of a group at a sparsity."""
        return [self.scores[key] for key in sorted(self.scores) if key[:2] == (group, level)]

    def interval(self, group: str, level: float) -> Interval:
        """Return the mean over seeds at a sparsity with its 95 % interval."""
        cell = self.cell(group, level)
        return mean_interval([s.value for s in cell], [s.without for s in cell])

    def area(self, group: str, less: str | None = None) -> Interval:
        """Return the mean over sparsities with its interval, or its paired difference from
        another group's.
        """
        values, without = self._areas(group)
        if less is not None:
            other, others = self._areas(less)
            values, without = values - other, without - others
        return mean_interval(values, without)

    def _areas(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the area of each seed [S], and without each group of records [S, G]."""
        seeds = list(zip(*(self.cell(group, level) for level in self.levels), strict=True))
        values = [mean_height(self.levels, [run.value for run in seed]) for seed in seeds]
        parts = range(len(seeds[0][0].without))
        without = [
            [mean_height(self.levels, [run.without[g] for run in seed]) for g in parts]
            for seed in seeds
        ]
        return np.array(values), np.array(without)

    def table(self) -> Table:
        """Return one row a group: the metric at each sparsity and the area, and differences from
        the first group.
        """
        rows = []
        for group in self.groups:
            intervals = [self.interval(group, level) for level in self.levels]
            rows.append(
                (group, *(x.significant() for x in intervals), self.area(group).significant())
            )
        for group in self.groups[1:]:
            blank = ("",) * len(self.levels)
            rows.append(
                (
                    f"{group} - {self.groups[0]}",
                    *blank,
                    self.area(group, self.groups[0]).significant(sign=True),
                )
            )
        head = (f"{self.split} {self.metric}", *(f"{level:g}" for level in self.levels), "area")
        return Table(head, tuple(rows), self.note())

    def note(self) -> str:
        """Return what a reader of the table must know."""
        seeds = len(self.cell(self.groups[0], self.levels[0]))
        better = direction_text(self.higher_is_better)
        over = f"{self.records} records; one seed says nothing of others"
        if seeds > 1:
            over = f"{seeds} seeds and {self.records} records"
        how = "fine-tuned after pruning" if self.tuned else "pruned once, not retrained"
        lines = [
            f"Columns: share of the matrices' weights set to zero; {better}area: mean over"
            " sparsities."
        ]
        lines.append(f"Means [95 % interval over {over}]; {how}.")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return every number of the table, and the runs."""
        cells = {
            g: {f"{level:g}": self.interval(g, level).to_json() for level in self.levels}
            for g in self.groups
        }
        areas = {g: self.area(g).to_json() for g in self.groups}
        less = {g: self.area(g, self.groups[0]).to_json() for g in self.groups[1:]}
        head: dict[str, Any] = {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "split": self.split,
        }
        head |= {"records": self.records, "tuned": self.tuned, "summary": self.table().text()}
        runs = [
            {"group": g, "sparsity": level, "seed": n, **vars(s)}
            for (g, level, n), s in self.scores.items()
        ]
        return {**head, "quality": cells, "area": areas, "area_less_first": less, "runs": runs}

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a run: group, sparsity, seed, and every metric."""
        import pandas as pd

        rows = [
            {"group": g, "sparsity": level, "seed": n, **s.metrics}
            for (g, level, n), s in self.scores.items()
        ]
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None) -> Any:
        """Draw the metric over the sparsity with 95 % bands, and return the axes."""
        axes = new_axes(ax, (6.4, 4.0))
        for number, group in enumerate(self.groups):
            intervals = [self.interval(group, level) for level in self.levels]
            color, low, high = (
                COLORS[number % len(COLORS)],
                [x.low for x in intervals],
                [x.high for x in intervals],
            )
            axes.fill_between(self.levels, low, high, color=color, alpha=0.15, linewidth=0)
            values = [x.value for x in intervals]
            axes.plot(self.levels, values, color=color, marker="o", markersize=4, label=group)
        axes.set_xlabel("share of the matrices' weights that are zero")
        axes.set_ylabel(f"{self.split} {self.metric}")
        frame(axes)
        if len(self.groups) > 1:
            axes.legend(frameon=False, fontsize=9)
        return axes
