"""Distillation: a smaller student learns from a teacher, and is judged beside it and beside itself taught by labels alone.

Students are paired: with one seed both start from the same weights and see the same examples in the same order.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from sciforge.core.domain import Batch, Objective
from sciforge.core.files.atomic import one_line, replace_json
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import Table
from sciforge.core.training.checkpoint import WEIGHTS, Checkpoint
from sciforge.core.training.evaluation import batches, evaluation
from sciforge.core.training.loop import train
from sciforge.core.training.run import Hardware, Run, Schedule, Subset, Teacher, to_json
from sciforge.errors import ConfigError
from sciforge.experiments.compression.pruning import Judging
from sciforge.experiments.compression.pruning_curve import direction_of, shown
from sciforge.experiments.held_out import Judged, interval
from sciforge.experiments.label_efficiency.result import Interval
from sciforge.provenance import model_card

SECONDS = 1.0  # of each measurement of speed, a model
TEACHER, TAUGHT, ALONE = "teacher", "distilled", "student alone"


@dataclass(frozen=True, kw_only=True)
class Distill(Settings):
    """Which student learns from which teacher, on which data, how long; `sciforge distill TEACHER --help` lists the students.

    Args:
        checkpoint: the teacher, a path or a name.
        model: the student, a preset of the teacher's domain or sizes of its own.
        data: a prepared store of the teacher's own objective.
        out: folder of the students; started again there, it goes on.
        schedule: of every student.
        weight: share of the teacher's term in the loss; at 1 the labels count for nothing.
        temperature: classes are compared by softmax(logits / temperature).
        codec: the student's; None for the teacher's, or the model's own where it has one.
        subset: learn from few labels.
        seeds: students taught and students alone, each so many.
        split: to judge by; None takes the test split, else the validation split.
        metric: the figure to compare; None for the objective's own.
        hardware: of training and judging.
    """

    checkpoint: Path
    data: Path
    out: Path
    model: Any = None
    schedule: Schedule = Schedule(steps=300, batch=32, lr=1e-3, kind="exponential")
    weight: float = 0.5
    temperature: float = 2.0
    codec: Any = None
    subset: Subset | None = None
    seeds: int = 3
    split: Literal["test", "validation", "train"] | None = None
    metric: str | None = None
    hardware: Hardware = Hardware()

    def __post_init__(self):
        super().__post_init__()
        self.require(1, 1000, "seeds")
        if self.model is None:
            raise ConfigError("distillation needs a student; give --model, a preset of the teacher's domain")


def distill(spec: Distill) -> "DistillResult":
    """Train the students that are not yet there, judge them beside the teacher, write distill.json and return it all.

    Raises:
        ConfigError: a model that cannot learn from this teacher, or `spec.out` holds students of other settings.
        CheckpointError, DataError: the teacher or the store is missing or damaged.
    """
    teacher = Checkpoint.open(spec.checkpoint)
    judging = Judging.of(spec, teacher)
    runs = {
        (kind, seed): student_run(spec, teacher, kind, seed) for seed in range(spec.seeds) for kind in (TAUGHT, ALONE)
    }
    made: dict[tuple[str, int], Checkpoint] = {}
    bar = tqdm(runs.items(), "distill", unit="student", disable=None, leave=False)
    for (kind, seed), run in bar:
        bar.set_postfix_str(f"{kind}, seed {seed}")
        made[kind, seed] = train(run, resume=True)
    judged = {key: judging(checkpoint) for key, checkpoint in made.items()}
    seen = {(TEACHER, 0): judging(teacher), **judged}
    first = {TEACHER: teacher, TAUGHT: made[TAUGHT, 0], ALONE: made[ALONE, 0]}
    sizes = sizes_and_speeds(first, judging)
    about = {"records": len(judging.records), "split": judging.split, "seeds": spec.seeds}
    result = DistillResult(seen, sizes, judging.metric, judging.higher_is_better, **about)
    with one_line(spec.out):
        replace_json(spec.out / "distill.json", {"spec": to_json(spec), **result.to_json()})
    for checkpoint in made.values():
        model_card.write(checkpoint, reports=spec.out)
    return result


def student_run(spec: Distill, teacher: Checkpoint, kind: str, seed: int) -> Run:
    """Return the run of a student, taught or alone; they differ in nothing but the teacher."""
    config = teacher.domain.model(spec.model) if isinstance(spec.model, str) else spec.model
    codec = spec.codec or getattr(config, "codec", None) or teacher.codec
    told = Teacher(teacher.path, spec.weight, spec.temperature) if kind == TAUGHT else None
    fixed = {"data": spec.data, "schedule": spec.schedule, "hardware": spec.hardware, "subset": spec.subset}
    out = spec.out / f"{kind.replace(' ', '-')}-{seed}"
    return Run(out=out, model=config, codec=codec, objective=teacher.objectives[0], teacher=told, seed=seed, **fixed)


def sizes_and_speeds(made: Mapping[str, Checkpoint], judging: Judging) -> dict[str, dict[str, float]]:
    """Return for each kind its parameters, bytes of weights on disk, and records a second at batch sizes 1 and 64.

    Records are encoded before. Kinds take turns batch by batch, so that whatever else the machine does strikes all alike.
    """
    models = {kind: checkpoint.build().to(judging.engine.device) for kind, checkpoint in made.items()}
    found: dict[str, dict[str, float]] = {}
    for kind, checkpoint in made.items():
        size = sum(p.numel() for p in models[kind].parameters())
        found[kind] = {"parameters": size, "bytes": (checkpoint.path / WEIGHTS).stat().st_size}
    for size in (1, 64):
        ready = {kind: _ready(checkpoint, judging, size) for kind, checkpoint in made.items()}
        seconds: dict[str, list[float]] = {kind: [] for kind in made}
        begun = time.perf_counter()
        while len(seconds[TEACHER]) < 4 or time.perf_counter() - begun < SECONDS * len(made):
            for kind, checkpoint in made.items():
                batch = ready[kind][len(seconds[kind]) % len(ready[kind])]
                seconds[kind].append(_seconds(models[kind], checkpoint.objectives[0], batch))
        for kind, times in seconds.items():
            found[kind][f"records_s_{size}"] = size / float(np.median(times[1:]))  # the first warms caches
    return found


def _ready(made: Checkpoint, judging: Judging, size: int) -> list[Batch]:
    """Return batches of so many records, of few records again and again where there are no more."""
    places = [i % len(judging.records) for i in range(max(size, 8))]
    made_of = batches(made.objectives[0], made.codec, judging.records, places, 0, size)
    return [judging.engine.move(batch) for batch in made_of]


def _seconds(model: torch.nn.Module, objective: Objective, batch: Batch) -> float:
    """Return how long a model takes for a batch: its predictions, or its loss where it predicts nothing."""
    with evaluation(model, objective):
        start = time.perf_counter()
        if not objective.predict(model, batch):
            objective.loss(model, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start


@dataclass(frozen=True)
class DistillResult:
    """Teacher, students taught and students alone, side by side.

    Args:
        judged: (kind, seed) -> metrics.
        sizes: kind -> parameters, bytes, records_s_1, records_s_64.
        metric, higher_is_better: the figure compared and its sense.
        records, split: which records it was judged on.
        seeds: students of each kind.
    """

    judged: Mapping[tuple[str, int], Judged]
    sizes: Mapping[str, Mapping[str, float]]
    metric: str
    higher_is_better: bool | None
    records: int
    split: str
    seeds: int

    def interval(self, kind: str, less: str | None = None) -> Interval:
        """Return the mean over seeds with its 95 % interval, or its paired difference from another kind's."""
        seeds = range(1 if kind == TEACHER else self.seeds)
        mine = [self.judged[kind, seed] for seed in seeds]
        if less is None:
            return interval([j.value for j in mine], [j.without for j in mine])
        rivals = [self.judged[less, 0 if less == TEACHER else seed] for seed in seeds]
        pairs = list(zip(mine, rivals, strict=True))
        away = [[a - b for a, b in zip(one.without, other.without, strict=True)] for one, other in pairs]
        return interval([one.value - other.value for one, other in pairs], away)

    def table(self) -> Table:
        """Return quality, size and speed, one column a kind of model."""
        kinds = (TEACHER, TAUGHT, ALONE)
        rows = [(f"{self.split} {self.metric}", *(shown(self.interval(kind)) for kind in kinds))]
        rows.append(("less alone", "", shown(self.interval(TAUGHT, ALONE), sign=True), ""))
        rows.append(("less teacher", "", *(shown(self.interval(kind, TEACHER), sign=True) for kind in (TAUGHT, ALONE))))
        rows.append(("parameters", *(f"{self.sizes[kind]['parameters']:,}" for kind in kinds)))
        rows.append(("MB of weights", *(f"{self.sizes[kind]['bytes'] / 1e6:.2f}" for kind in kinds)))
        for size in (1, 64):
            rows.append(
                (f"records/s, batch {size}", *(f"{self.sizes[kind][f'records_s_{size}']:.4g}" for kind in kinds))
            )
        over = (
            f"{self.seeds} paired seeds and {self.records} records"
            if self.seeds > 1
            else f"{self.records} records, one seed"
        )
        note = f"Means [95 % interval over {over}]; {direction_of(self.higher_is_better)}weights include solved heads; speed is "
        note += "without encoding, the median of about a second."
        return Table(("", *kinds), tuple(rows), note)

    def to_json(self) -> dict[str, Any]:
        """Return every figure of the table, and each model's."""
        quality = {kind.replace(" ", "_"): self.interval(kind).to_json() for kind in (TEACHER, TAUGHT, ALONE)}
        quality["distilled_less_alone"] = self.interval(TAUGHT, ALONE).to_json()
        models = [
            {"kind": k, "seed": s, "metrics": dict(j.metrics), "without": list(j.without)}
            for (k, s), j in self.judged.items()
        ]
        about = {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "split": self.split,
            "records": self.records,
        }
        sizes = {kind.replace(" ", "_"): dict(found) for kind, found in self.sizes.items()}
        return {**about, "seeds": self.seeds, "quality": quality, "sizes": sizes, "models": models}
