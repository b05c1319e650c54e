"""Quality against sparsity, of one or several checkpoints: means over the seeds of a recipe, intervals, area, table, plot."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sciforge.core.files.atomic import replace_json, results_folder, sha256
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import Table
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.run import to_json
from sciforge.errors import ConfigError
from sciforge.experiments.compression.pruning import Judging, Prune, cut_weights, tuned_run
from sciforge.experiments.held_out import interval
from sciforge.experiments.label_efficiency.result import Interval, RunMetrics
from sciforge.experiments.label_efficiency.run import ResultsLog

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")


def measure(spec: Prune) -> "PruneResult":
    """Judge every checkpoint at every sparsity, as far as that is not done, and return it all; prune.json and prune.png are
    written at the end.

    Raises:
        ConfigError: checkpoints of other objectives, groups of unequal size, or `spec.out` holds another curve.
    """
    parents = [Checkpoint.open(path) for path in spec.checkpoint]
    for parent, path in zip(parents, spec.checkpoint, strict=True):
        if parent.objectives[0] != parents[0].objectives[0]:
            raise ConfigError(f"{path} learnt another objective than {spec.checkpoint[0]}; prune them apart")
    names = spec.groups or group_names(parents)
    seeds = [names[:place].count(name) for place, name in enumerate(names)]
    if len({names.count(name) for name in names}) > 1:
        counts = ", ".join(f"{names.count(name)} of {name!r}" for name in dict.fromkeys(names))
        raise ConfigError(f"groups have different numbers of seeds: {counts}; give as many of each, or --groups")
    judging, levels = Judging.of(spec, parents[0]), sorted(set(spec.sparsities))
    with results_folder(spec.out):
        diary = ResultsLog.open(spec.out, _fingerprint(spec, judging, parents))
        members = list(zip(parents, names, seeds, strict=True))
        jobs = [(*member, share) for share in levels for member in members]
        waiting = [state for state in jobs if (state[1], state[3], state[2]) not in diary.found]
        for parent, name, seed, share in tqdm(waiting, "prune", unit="model", disable=None, leave=False):
            diary.add(_judged(spec, judging, parent, name, seed, share))
        runs = tuple(diary.found[name, share, seed] for _, name, seed, share in jobs)
        result = PruneResult(
            runs, judging.metric, judging.higher_is_better, judging.split, len(judging.records), bool(spec.tune)
        )
        places = {str(path): name for path, name in zip(spec.checkpoint, names, strict=True)}
        body = {"spec": to_json(spec), "checkpoints": places, **result.to_json()}
        replace_json(spec.out / "prune.json", body)
        result.plot(spec.out / "prune.png")
    return result


def _fingerprint(spec: Prune, judging: Judging, parents: Sequence[Checkpoint]) -> dict[str, Any]:
    """Return what must not change between two runs of one curve; sparsities may grow."""
    kept = {name: getattr(spec, name) for name in ("scope", "pattern", "ramp", "cuts", "seed")}
    about = {"metric": judging.metric, "split": judging.split, "data": dict(judging.digests)}
    about["checkpoints"] = [sha256(parent.path / "checkpoint.json") for parent in parents]
    return json.loads(json.dumps({**about, **kept, "tune": to_json(spec.tune), "groups": list(spec.groups)}))


def _judged(spec: Prune, judging: Judging, parent: Checkpoint, name: str, seed: int, share: float) -> RunMetrics:
    """Prune one checkpoint to one sparsity, fine-tune it where asked for (the dense one too), and judge it."""
    if spec.tune is None:
        found = judging(parent, cut_weights(parent, spec.pruning(share)))
    else:
        folder = Path(tempfile.mkdtemp(prefix=".run-", dir=spec.out))
        try:
            run = tuned_run(spec, parent, share, folder / "run", spec.seed + seed)
            found = judging(train(run if share else replace(run, pruning=None)))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return RunMetrics(name, share, seed, dict(found.metrics), found.without)


def group_names(parents: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Return a name for each checkpoint: the settings of its run that others have otherwise, seeds and places aside.

    Where runs differ in nothing else, all are seeds of one group.
    """
    flat = []
    for parent in parents:
        run = {k: v for k, v in to_json(parent.run).items() if k not in ("out", "seed", "hardware", "type", "data")}
        flat.append(dict(_leaves({**run, "model": parent.body["model"]})))
    keys = dict.fromkeys(key for found in flat for key in found)
    apart = [key for key in keys if len({json.dumps(found.get(key)) for found in flat}) > 1]
    words = [", ".join(f"{key.rpartition('.')[2]} {found.get(key)}" for key in apart) for found in flat]
    return tuple(word or Path(parent.run.out).name for word, parent in zip(words, parents, strict=True)) if apart else (
        "checkpoint",) * len(parents)  # fmt: skip


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the plain values of nested mappings under dotted names.

    >>> _leaves({"a": {"b": 1}, "c": 2})
    [('a.b', 1), ('c', 2)]
    """
    found = []
    for key, inner in value.items():
        found += _leaves(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else [(f"{prefix}{key}", inner)]
    return found


def mean_height(levels: Sequence[float], values: Sequence[float]) -> float:
    """Return the area under a curve over its width: the mean of the figure over sparsities, by trapezoids.

    >>> mean_height([0.0, 0.5, 1.0], [1.0, 1.0, 0.0])
    0.75
    """
    x, y = np.asarray(levels, float), np.asarray(values, float)
    return float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)) / (x[-1] - x[0]))


@dataclass(frozen=True)
class PruneResult(Settings):
    """All metrics of a curve and what follows from them.

    Args:
        runs: of every (group, sparsity, seed); the sparsity stands in `labels`.
        metric, higher_is_better: the figure compared and its sense.
        split, records: which records it was judged on.
        tuned: whether each was fine-tuned after the cut.
    """

    runs: tuple[RunMetrics, ...]
    metric: str
    higher_is_better: bool | None
    split: str
    records: int
    tuned: bool = False

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups in the order given."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    @property
    def levels(self) -> tuple[float, ...]:
        """Sparsities, ascending."""
        return tuple(sorted({run.labels for run in self.runs}))

    def cell(self, group: str, level: float) -> list[RunMetrics]:
        """Return the seeds of a group at a sparsity."""
        return sorted((r for r in self.runs if (r.method, r.labels) == (group, level)), key=lambda r: r.seed)

    def interval(self, group: str, level: float) -> Interval:
        """Return the mean over seeds at a sparsity with its 95 % interval."""
        cell = self.cell(group, level)
        return interval([r.metrics[self.metric] for r in cell], [r.without for r in cell])

    def area(self, group: str, less: str | None = None) -> Interval:
        """Return the mean over sparsities with its interval, or its paired difference from another group's."""
        values, without = self._areas(group)
        if less is not None:
            other, others = self._areas(less)
            values, without = values - other, without - others
        return interval(values, without)

    def _areas(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the area of each seed [S], and without each group of records [S, G]."""
        seeds = list(zip(*(self.cell(group, level) for level in self.levels), strict=True))
        values = [mean_height(self.levels, [run.metrics[self.metric] for run in seed]) for seed in seeds]
        parts = range(len(seeds[0][0].without))
        without = [[mean_height(self.levels, [run.without[g] for run in seed]) for g in parts] for seed in seeds]
        return np.array(values), np.array(without)

    def table(self) -> Table:
        """Return one row a group: the figure at each sparsity and the area, and differences from the first group."""
        rows = []
        for group in self.groups:
            found = [self.interval(group, level) for level in self.levels]
            rows.append((group, *(shown(x) for x in found), shown(self.area(group))))
        for group in self.groups[1:]:
            blank = ("",) * len(self.levels)
            rows.append((f"{group} - {self.groups[0]}", *blank, shown(self.area(group, self.groups[0]), sign=True)))
        head = (f"{self.split} {self.metric}", *(f"{level:g}" for level in self.levels), "area")
        return Table(head, tuple(rows), self.note())

    def note(self) -> str:
        """Return what a reader of the table must know."""
        seeds = len(self.cell(self.groups[0], self.levels[0]))
        lines = [
            f"Columns: share of the matrices' weights set to zero; {direction_of(self.higher_is_better)}area: mean over sparsities."
        ]
        over = (
            f"{seeds} seeds and {self.records} records"
            if seeds > 1
            else f"{self.records} records; one seed tells nothing of others"
        )
        lines.append(
            f"Means [95 % interval over {over}]; {'fine-tuned after the cut' if self.tuned else 'cut once, not retrained'}."
        )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return every figure of the table, and the runs."""
        cells = {g: {f"{level:g}": self.interval(g, level).to_json() for level in self.levels} for g in self.groups}
        areas = {g: self.area(g).to_json() for g in self.groups}
        less = {g: self.area(g, self.groups[0]).to_json() for g in self.groups[1:]}
        head = {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "split": self.split,
            "records": self.records,
        }
        return {**head, "tuned": self.tuned, "summary": self.table().text(), "quality": cells, "area": areas,
                "area_less_first": less, "runs": [run.to_json() for run in self.runs]}  # fmt: skip

    def plot(self, path: Path) -> Path:
        """Draw the figure over the sparsity with 95 % bands, to a PNG or what the suffix says, and return its path."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4.0), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for number, group in enumerate(self.groups):
            found = [self.interval(group, level) for level in self.levels]
            colour = COLOURS[number % len(COLOURS)]
            axes.fill_between(
                self.levels, [x.low for x in found], [x.high for x in found], color=colour, alpha=0.15, linewidth=0
            )
            axes.plot(self.levels, [x.value for x in found], color=colour, marker="o", markersize=4, label=group)
        axes.set_xlabel("share of the matrices' weights that are zero")
        axes.set_ylabel(f"{self.split} {self.metric}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.5, alpha=0.35)
        if len(self.groups) > 1:
            axes.legend(frameon=False, fontsize=9)
        figure.savefig(path)
        return path


def direction_of(higher_is_better: bool | None) -> str:
    """Return which way is better, for a note; nothing where nobody has told.

    >>> direction_of(True), direction_of(None)
    ('higher is better; ', '')
    """
    return "" if higher_is_better is None else f"{'higher' if higher_is_better else 'lower'} is better; "


def shown(found: Interval, sign: bool = False) -> str:
    """Return an interval with three significant digits or more; of a figure that some model does not have, words.

    >>> shown(Interval(0.5, 0.25, 0.75)), shown(Interval(12.5, 12.0, 13.0), sign=True)
    ('0.500 [0.250, 0.750]', '+12.5 [+12.0, +13.0]')
    """
    if not np.isfinite(found.value):
        return "not finite"
    digits = max(0, 2 - int(np.floor(np.log10(max(abs(found.value), 1e-3)))))
    digits, plus = min(digits, 3), "+" if sign else ""
    value, low, high = (f"{x:{plus}.{digits}f}" for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"
