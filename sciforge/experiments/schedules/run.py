"""Learning-rate schedules against each other, fairly: equal steps, equal final rate, and equal peak or equal area.

The area is the sum of the rates over the steps. A schedule with a larger area has simply moved further, so shapes that share only
their peak are not compared but confounded; both comparisons are offered and each says which it is. No single published figure
ranks exponential against step decay (Ge et al. 2019 and Li & Arora 2020 analyse special cases), so what is found is printed.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from sciforge.core.data.store import Store
from sciforge.core.domain import get_domain
from sciforge.core.files.atomic import read_json, replace_json, results_folder, sha256
from sciforge.core.files.output_files import write_whole
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import Table
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.loop import train
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule, ScheduleKind, to_json
from sciforge.errors import ConfigError
from sciforge.experiments.held_out import direction_of, known_direction, known_metric
from sciforge.experiments.label_efficiency.result import figure as figure_text

SHAPES = ("exponential", "step", "cosine", "trapezoid", "constant")
COLOURS = ("#D55E00", "#0072B2", "#E69F00", "#009E73", "#7F7F7F")


@dataclass(frozen=True, kw_only=True)
class Schedules(Settings):
    """What to train under several schedules.

    Args:
        data: a prepared store with a test or validation split.
        out: folder of the results; a comparison started again there goes on.
        objective: what to learn, a name or an objective.
        model: a preset's name or a configuration, for pretraining from a fresh model; excludes `init`.
        init: a checkpoint to fine-tune.
        kinds: of the schedules; the first is what the others are compared with.
        equal: `area` scales each shape's peak so that all sum to the same rate over the run, `peak` leaves peaks equal.
        schedule: steps, batch, peak rate and final share of the first shape; drops of the step decay.
        split: the split to judge on; empty takes test where there is one, else validation.
        metric: the figure to compare; None for the objective's own.
        higher_is_better: the sense of `metric`; None for what the objective or the figure's name says.
        seeds: paired over kinds.
        hardware: of the runs.
    """

    data: Path
    out: Path
    objective: Any
    model: Any = None
    init: Path | None = None
    kinds: tuple[ScheduleKind, ...] = ("exponential", "step", "cosine", "constant")
    equal: Literal["area", "peak"] = "area"
    schedule: Schedule = Schedule(steps=200, kind="exponential")
    split: str = ""
    metric: str | None = None
    higher_is_better: bool | None = None
    seeds: int = 3
    hardware: Hardware = Hardware()

    def __post_init__(self):
        super().__post_init__()
        self.require(1, math.inf, "seeds")
        if len(set(self.kinds)) < max(len(self.kinds), 2) or None in self.kinds:
            raise ConfigError(f"shapes are {self.kinds}; give at least two different ones of {', '.join(SHAPES)}")
        if (self.model is None) == (self.init is None):
            raise ConfigError(
                "a comparison starts from a fresh model or from a checkpoint; give either --model or --init"
            )
        if self.schedule.patience:
            raise ConfigError("all shapes take the same steps, without early stopping; set schedule.patience 0")
        if self.kinds[0] == "constant" and self.equal == "area":
            raise ConfigError("no other shape has a constant one's final rate and area; name a falling shape first")

    def schedule_of(self, kind: ScheduleKind) -> Schedule:
        """Return the schedule of a shape: the same final rate where the shape has one, and the area or peak of the first."""
        first = replace(self.schedule, kind=self.kinds[0], save_every=0)
        if kind == self.kinds[0]:
            return self._ended(first)
        made = self._ended(replace(first, kind=kind))
        if self.equal == "peak":
            return made
        # the final rate is that of the first shape: share and peak are found together
        peak = area(self._ended(first)) / area(replace(made, lr=1.0))
        for _ in range(50):
            ended = self._ended(replace(made, lr=peak), final_lr=final_lr(self._ended(first)))
            found = area(ended)
            if abs(found / area(self._ended(first)) - 1) < 1e-9:
                break
            peak *= area(self._ended(first)) / found
        return ended

    def _ended(self, schedule: Schedule, final_lr: float | None = None) -> Schedule:
        """Return the schedule with its final share; of a step decay the factor of each drop that leads there."""
        share = self.schedule.min_lr_ratio if final_lr is None else min(final_lr / schedule.lr, 1.0)
        if schedule.kind == "step":
            return replace(schedule, min_lr_ratio=share, factor=share ** (1 / max(schedule.drops, 1)))
        return replace(schedule, min_lr_ratio=share)


def area(schedule: Schedule) -> float:
    """Return the sum of the rates over a run.

    >>> round(area(Schedule(steps=10, lr=0.5, warmup=0.0, kind="constant")), 6)
    5.0
    """
    return sum(schedule.lr_at(step) for step in range(schedule.steps))


def final_lr(schedule: Schedule) -> float:
    """Return the rate after the last step, as the shape's closed form has it.

    >>> final_lr(Schedule(steps=10, lr=2.0, kind="exponential", min_lr_ratio=0.1))
    0.2
    """
    return schedule.lr * (1.0 if schedule.kind == "constant" else schedule.min_lr_ratio)


@dataclass(frozen=True)
class ScheduleResult:
    """What was found.

    Args:
        values: shape -> the figure of each seed.
        schedules: shape -> its schedule.
        metric, higher_is_better: the figure.
        equal: area or peak.
    """

    values: Mapping[str, Sequence[float]]
    schedules: Mapping[str, Schedule]
    metric: str
    higher_is_better: bool
    equal: str

    def difference(self, shape: str) -> tuple[float, float, float]:
        """Return the mean paired difference to the first shape and its 95 % interval by Student's t over seeds."""
        from scipy.stats import t

        first = next(iter(self.values))
        apart = np.array(self.values[shape]) - np.array(self.values[first])
        reach = t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / math.sqrt(len(apart)) if len(apart) > 1 else math.inf
        return float(apart.mean()), float(apart.mean() - reach), float(apart.mean() + reach)

    def table(self) -> Table:
        """Return means over seeds and paired differences, with what each schedule was."""
        first, rows = next(iter(self.values)), []
        for shape, found in self.values.items():
            s = self.schedules[shape]
            mean, low, high = self.difference(shape)
            apart = "" if shape == first else f"{figure_text(mean, 3, True)} [{low:+.3f}, {high:+.3f}]"
            said = "" if shape == first else self.verdict(shape)
            spread = np.std(found, ddof=1) if len(found) > 1 else math.nan
            shown = f"{np.mean(found):.4g} ± {spread:.2g}"
            rows.append((shape, f"{s.lr:.3g}", f"{final_lr(s):.3g}", f"{area(s):.4g}", shown, apart, said))
        head = ("shape", "peak rate", "final rate", "area", self.metric, f"against {first}", "verdict")
        sense = "higher" if self.higher_is_better else "lower"
        note = f"equal {self.equal}, equal final rate where the shape falls; {sense} is better; 95 % intervals over paired seeds"
        return Table(head, tuple(rows), note)

    def verdict(self, shape: str) -> str:
        """Return better, worse, or no difference told."""
        _, low, high = self.difference(shape)
        if low <= 0 <= high or not math.isfinite(high - low):
            return "no difference told"
        return "better" if (low > 0) == self.higher_is_better else "worse"

    def plot(self, path: Path) -> Path:
        """Draw the rates over the steps and the figure of each seed."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 3.4), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        for place, (shape, found) in enumerate(self.values.items()):
            s, colour = self.schedules[shape], COLOURS[place % len(COLOURS)]
            left.plot([s.lr_at(step) for step in range(s.steps)], color=colour, label=shape)
            aside = place + np.linspace(-0.12, 0.12, len(found)) if len(found) > 1 else np.array([place])
            right.plot(aside, found, "o", color=colour, markersize=4)
            right.plot([place - 0.25, place + 0.25], [np.mean(found)] * 2, color=colour, linewidth=2)
        left.set(xlabel="step", ylabel="rate", yscale="log")
        left.legend(frameon=False, fontsize=8)
        right.set_xticks(range(len(self.values)), list(self.values))
        right.set_ylabel(self.metric)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        return write_whole(Path(path), lambda work: figure.savefig(work, format=Path(path).suffix[1:] or "png"))

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        about = {"metric": self.metric, "higher_is_better": self.higher_is_better, "equal": self.equal}
        return {**about, "values": dict(self.values), "schedules": {k: to_json(s) for k, s in self.schedules.items()}}


def compare_schedules(spec: Schedules) -> ScheduleResult:
    """Train under every schedule and seed that is not yet done, and write schedules.json and schedules.png.

    Raises:
        ConfigError: nothing to judge on, an unknown metric, or another comparison in `spec.out`.
    """
    store = Store.open(spec.data)
    objective = get_domain(store.domain).objective(spec.objective).resolve(store)
    split = spec.split or ("test" if len(objective.examples(store, "test")) else "validation")
    records = objective.examples(store, split)
    if not len(records):
        raise ConfigError(f"{spec.data} has no {split} records to judge on; choose another --split")
    metric = spec.metric or objective.metric
    sense = direction_of(objective, metric, spec.higher_is_better)
    schedules = {shape: spec.schedule_of(shape) for shape in spec.kinds}
    with results_folder(spec.out):
        kept = _kept(spec, store, split)
        done = _done(spec, kept)
        waiting = [(shape, seed) for seed in range(spec.seeds) for shape in spec.kinds if f"{shape} {seed}" not in done]
        for shape, seed in tqdm(waiting, "schedules", unit="run", disable=None, leave=False):
            folder = spec.out / ".run"
            shutil.rmtree(folder, ignore_errors=True)
            run = Run(
                data=spec.data, out=folder, objective=objective, model=spec.model, init=spec.init, schedule=schedules[shape],
                hardware=spec.hardware, seed=seed,
            )  # fmt: skip
            found = Model.load(train(run).path, spec.hardware.device, 64)
            metrics = evaluate(found.network, objective, found.codec, records, found.engine, seed, 64)
            known_metric(metrics, metric)
            known_direction(sense, metric)
            done[f"{shape} {seed}"] = metrics
            replace_json(spec.out / "runs.json", {"spec": kept, "runs": done})
            shutil.rmtree(folder, ignore_errors=True)
        values = {
            shape: [known_metric(done[f"{shape} {seed}"], metric) for seed in range(spec.seeds)] for shape in spec.kinds
        }
        result = ScheduleResult(values, schedules, metric, known_direction(sense, metric), spec.equal)
        replace_json(spec.out / "schedules.json", result.to_json())
        result.plot(spec.out / "schedules.png")
    return result


def _kept(spec: Schedules, store: Store, split: str) -> dict[str, Any]:
    """Return what must not change when a comparison goes on; seeds and shapes may grow."""
    said = to_json(spec)
    kept = {name: said[name] for name in ("objective", "model", "equal", "schedule")}
    init = None if spec.init is None else sha256(Checkpoint.open(spec.init).path / "checkpoint.json")
    about = {"first": spec.kinds[0], "data": store.digests(), "init": init, "split": split}
    return json.loads(json.dumps({**kept, **about}))


def _done(spec: Schedules, kept: dict[str, Any]) -> dict[str, dict[str, float]]:
    file = spec.out / "runs.json"
    if not file.exists():
        return {}
    body = read_json(file, ConfigError)
    if body.get("spec") != kept:
        raise ConfigError(f"{spec.out} holds another comparison; choose another --out")
    return body["runs"]
