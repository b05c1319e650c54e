"""Distillation: a smaller student learns from a teacher, and is compared with it and with itself
taught by labels alone.

Students are paired: with one seed both start from the same weights and see the same examples in the
same order.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sciforge.core.domain import Batch, Objective
from sciforge.core.files.atomic import sha256
from sciforge.core.files.tables import Table
from sciforge.core.training.checkpoint import WEIGHTS, Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import batches, evaluation
from sciforge.core.training.loop import train
from sciforge.core.training.run import Run, Teacher, to_json
from sciforge.experiments.compression.spec import Distill, open_held_out
from sciforge.experiments.grid import Grid, Row, open_folder
from sciforge.experiments.held_out import HeldOut, Scores
from sciforge.experiments.plots import BLUE, GREY, ORANGE, frame, new_axes
from sciforge.experiments.results import ExperimentResult
from sciforge.experiments.statistics import (
    Interval,
    direction_text,
    mean_interval,
    paired_difference,
)
from sciforge.provenance import model_card

if TYPE_CHECKING:
    import pandas as pd

SECONDS = 1.0  # of each measurement of speed, a model
TEACHER, DISTILLED, ALONE = "teacher", "distilled", "student alone"
KINDS = (TEACHER, DISTILLED, ALONE)


def distill(spec: Distill) -> "DistillationResult":
    """Train the students that are not yet there, evaluate them beside the teacher, and return it
    all.

    Raises:
        ConfigError: a model that cannot learn from this teacher, or `spec.out` holds students of
            other settings.
        CheckpointError, DataError: the teacher or the store is missing or damaged.
    """
    teacher = Checkpoint.open(spec.checkpoint)
    store, held_out, engine = open_held_out(spec, teacher)
    cells = [
        (TEACHER, 0),
        *((kind, seed) for seed in range(spec.seeds) for kind in (DISTILLED, ALONE)),
    ]
    with open_folder(spec.out) as folder:
        settings = _settings(spec, teacher, held_out, store.digests())
        grid = Grid.open(folder, ("kind", "seed"), settings, "students")

        def student(kind: str, seed: int) -> Checkpoint:
            return Checkpoint.open(folder / student_name(kind, seed))

        def evaluate(kind: str, seed: int) -> Row:
            checkpoint = teacher
            if kind != TEACHER:
                checkpoint = train(student_run(spec, teacher, kind, seed, folder), resume=True)
            return vars(held_out.evaluate_checkpoint(checkpoint, engine))

        rows = grid.run(cells, evaluate, "distill")
        scores = {cell: Scores.from_json(row) for cell, row in zip(cells, rows, strict=True)}
        first = {TEACHER: teacher, DISTILLED: student(DISTILLED, 0), ALONE: student(ALONE, 0)}
        sizes = sizes_and_speeds(first, held_out, engine)
        about = held_out.metric, held_out.higher_is_better, len(held_out.records), held_out.split
        result = DistillationResult(scores, sizes, *about, spec.seeds)
        result.keep(folder, spec.out is None, {"spec": to_json(spec)})
        for kind, seed in cells[1:]:
            model_card.write(student(kind, seed), reports=folder)
    return result


def _settings(
    spec: Distill, teacher: Checkpoint, held_out: HeldOut, digests: Mapping[str, str]
) -> dict[str, Any]:
    """Return what must not change between two calls for one comparison; seeds may grow."""
    body = to_json(spec)
    about = {name: body[name] for name in ("model", "codec", "schedule", "subset")}
    about["teacher"] = [sha256(teacher.path / "checkpoint.json"), spec.weight, spec.temperature]
    return {**about, "metric": held_out.metric, "split": held_out.split, "data": dict(digests)}


def student_name(kind: str, seed: int) -> str:
    """Return the name of a student's folder."""
    return f"{kind.replace(' ', '-')}-{seed}"


def student_run(spec: Distill, teacher: Checkpoint, kind: str, seed: int, folder: Path) -> Run:
    """Return the run of a student, with or without the teacher; they differ in nothing but the
    teacher.
    """
    config = teacher.domain.model(spec.model) if isinstance(spec.model, str) else spec.model
    return Run(
        data=spec.data,
        out=folder / student_name(kind, seed),
        model=config,
        codec=spec.codec or getattr(config, "codec", None) or teacher.codec,
        objective=teacher.objectives[0],
        teacher=Teacher(teacher.path, spec.weight, spec.temperature) if kind == DISTILLED else None,
        schedule=spec.schedule,
        subset=spec.subset,
        hardware=spec.hardware,
        seed=seed,
    )


def sizes_and_speeds(
    checkpoints: Mapping[str, Checkpoint], held_out: HeldOut, engine: Engine
) -> dict[str, dict[str, float]]:
    """Return for each kind its parameters, bytes of weights on disk, and records a second at batch
    sizes 1 and 64.

    Records are encoded before. Kinds alternate batch by batch, so that other load of the machine
    affects all alike.
    """
    networks = {
        kind: checkpoint.build().to(engine.device) for kind, checkpoint in checkpoints.items()
    }
    sizes: dict[str, dict[str, float]] = {}
    for kind, checkpoint in checkpoints.items():
        parameters = sum(p.numel() for p in networks[kind].parameters())
        sizes[kind] = {
            "parameters": parameters,
            "bytes": (checkpoint.path / WEIGHTS).stat().st_size,
        }
    for size in (1, 64):
        # few records come again and again
        places = [i % len(held_out.records) for i in range(max(size, 8))]
        collated = {
            kind: [
                engine.move(batch)
                for batch in batches(held_out.objective, c.codec, held_out.records, places, 0, size)
            ]
            for kind, c in checkpoints.items()
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in checkpoints}
        start = time.perf_counter()
        while len(seconds[TEACHER]) < 4 or time.perf_counter() - start < SECONDS * len(checkpoints):
            for kind, checkpoint in checkpoints.items():
                batch = collated[kind][len(seconds[kind]) % len(collated[kind])]
                seconds[kind].append(_seconds(networks[kind], checkpoint.objectives[0], batch))
        for kind, times in seconds.items():
            # the first warms caches
            sizes[kind][f"records_s_{size}"] = size / float(np.median(times[1:]))
    return sizes


def _seconds(network: torch.nn.Module, objective: Objective, batch: Batch) -> float:
    """Return how long a model takes for a batch: its predictions, or its loss where it predicts
    nothing.
    """
    with evaluation(network, objective):
        start = time.perf_counter()
        if not objective.predict(network, batch):
            objective.loss(network, batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start


@dataclass(frozen=True, repr=False)
class DistillationResult(ExperimentResult):
    """Teacher, students with it and students alone, side by side.

    Args:
        scores: (kind, seed) -> metrics.
        sizes: kind -> parameters, bytes, records_s_1, records_s_64.
        metric, higher_is_better: the metric compared and its direction.
        records, split: which records it was evaluated on.
        seeds: students of each kind.
    """

    name = "distill"

    scores: Mapping[tuple[str, int], Scores]
    sizes: Mapping[str, Mapping[str, float]]
    metric: str
    higher_is_better: bool | None
    records: int
    split: str
    seeds: int

    def interval(self, kind: str, less: str | None = None) -> Interval:
        """Return the mean over seeds with its 95 % interval, or its paired difference from
        another kind's.
        """
        seeds = range(1 if kind == TEACHER else self.seeds)
        own = [self.scores[kind, seed] for seed in seeds]
        values, without = [s.value for s in own], [s.without for s in own]
        if less is None:
            return mean_interval(values, without)
        others = [self.scores[less, 0 if less == TEACHER else seed] for seed in seeds]
        return paired_difference(
            values, [s.value for s in others], without, [s.without for s in others]
        )

    def table(self) -> Table:
        """Return quality, size and speed, one column a kind of model."""
        less_alone = self.interval(DISTILLED, ALONE).significant(sign=True)
        less_teacher = [
            self.interval(kind, TEACHER).significant(sign=True) for kind in (DISTILLED, ALONE)
        ]
        rows = [
            (f"{self.split} {self.metric}", *(self.interval(kind).significant() for kind in KINDS))
        ]
        rows += [("less alone", "", less_alone, ""), ("less teacher", "", *less_teacher)]
        rows.append(("parameters", *(f"{self.sizes[kind]['parameters']:,}" for kind in KINDS)))
        rows.append(
            ("MB of weights", *(f"{self.sizes[kind]['bytes'] / 1e6:.2f}" for kind in KINDS))
        )
        for size in (1, 64):
            speeds = (f"{self.sizes[kind][f'records_s_{size}']:.4g}" for kind in KINDS)
            rows.append((f"records/s, batch {size}", *speeds))
        over = f"{self.records} records, one seed"
        if self.seeds > 1:
            over = f"{self.seeds} paired seeds and {self.records} records"
        better = direction_text(self.higher_is_better)
        note = f"Means [95 % interval over {over}]; {better}weights include solved heads; speed is "
        return Table(
            ("", *KINDS), tuple(rows), note + "without encoding, the median of about a second."
        )

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a model: kind, seed, every metric, and the size and speed of its kind."""
        import pandas as pd

        rows = [
            {"kind": k, "seed": s, **scores.metrics, **self.sizes[k]}
            for (k, s), scores in self.scores.items()
        ]
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None) -> Any:
        """Draw the metric of each kind against its number of parameters, with 95 % intervals,
        and return the axes.
        """
        axes = new_axes(ax, (5.2, 3.8))
        for kind, color in zip(KINDS, (GREY, ORANGE, BLUE), strict=True):
            interval, size = self.interval(kind), self.sizes[kind]["parameters"]
            axes.plot([size, size], [interval.low, interval.high], color=color, linewidth=1.5)
            axes.plot(size, interval.value, "o", color=color, label=kind)
        axes.set(xscale="log", xlabel="parameters", ylabel=f"{self.split} {self.metric}")
        axes.legend(frameon=False, fontsize=9)
        frame(axes)
        return axes

    def to_json(self) -> dict[str, Any]:
        """Return every number of the table, and each model's."""
        quality = {kind.replace(" ", "_"): self.interval(kind).to_json() for kind in KINDS}
        quality["distilled_less_alone"] = self.interval(DISTILLED, ALONE).to_json()
        models = [
            {"kind": kind, "seed": seed, **vars(s)} for (kind, seed), s in self.scores.items()
        ]
        about: dict[str, Any] = {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "split": self.split,
        }
        sizes = {kind.replace(" ", "_"): dict(size) for kind, size in self.sizes.items()}
        about |= {"records": self.records, "seeds": self.seeds}
        return {**about, "quality": quality, "sizes": sizes, "models": models}
