"""Calibration after fine-tuning: from held-out folds of the training labels, or from the validation
split.

Where a head is solved on the network as it is, it is solved again without each fold and asked for
that fold: no label is lost to a held-out set. The head in use has seen more labels than those of
the folds and may have moved a little since; what it is unsure of is nearly the same. Heads that
descent alone made are calibrated on the validation split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import torch

from sciforge.core.data import sampling
from sciforge.core.data.groups import groups_of
from sciforge.core.data.store import Store
from sciforge.core.domain import Objective, seeded_model
from sciforge.core.learners import calibration
from sciforge.core.learners.calibration import Calibrate
from sciforge.core.learners.supervised import OneClass, OneNumber
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.evaluation import as_array, batches, evaluation
from sciforge.core.training.run import Run
from sciforge.core.training.set_up import load_parent
from sciforge.core.training.tasks import TrainingTask
from sciforge.errors import ConfigError, did_you_mean

MAX_CROSS_FITTED = 10_000  # training records above which a head is not solved again for each fold
# examples seen by descent up to which the solved head still stands for the trained one
GENTLE = 1024
BATCH = 64


def require_calibration(objective: Objective, store: Store, choice: Calibrate) -> None:
    """Raise ConfigError where a calibration is asked for by name that the objective cannot have."""
    if choice in ("auto", "none"):
        return
    if choice not in get_args(Calibrate):
        raise ConfigError(f"calibrate is {choice!r}; {did_you_mean(choice, get_args(Calibrate))}")
    kind = type(objective).__name__
    if not isinstance(objective, OneClass):
        raise ConfigError(
            f"calibrate is {choice}, which corrects probabilities of classes; {kind} predicts no"
            " class a record: use auto"
        )
    num = len(objective.classes or store.meta.get("classes", ()))
    if choice == "isotonic" and num > 2:
        raise ConfigError(
            f"calibrate is isotonic, which is for two classes; there are {num}: use temperature"
        )


@dataclass(frozen=True)
class HeldOut:
    """Predictions, without calibration, of labelled records that the head has not seen.

    Args:
        outputs: of the objective, first axis the record.
        records: with their labels.
        fold_N: in which fold each was held out.
        source: where they come from, for a line of the summary.
    """

    outputs: dict[str, np.ndarray]
    records: Any
    fold_N: np.ndarray
    source: str


def calibrate(
    checkpoint: Checkpoint, store: Store, choice: Calibrate, device: str = "cpu"
) -> tuple[Checkpoint, list[str]]:
    """Return a fine-tuned checkpoint calibrated, and what to tell of it, one line each.

    Args:
        checkpoint: as training left it; its checkpoint.json is replaced.
        store: what it was trained on.
        choice: see `Model.fit`.
        device: of the arithmetic.
    """
    objective: Any = checkpoint.objectives[0]
    if choice == "none" or not isinstance(objective, OneClass | OneNumber):
        return checkpoint, []
    objective = objective.without_calibration()
    engine = Engine(choose_device(device), "float32")
    held, why = _held_out(checkpoint, objective, store, engine)
    if held is None:
        what = (
            "probabilities are not calibrated"
            if isinstance(objective, OneClass)
            else "no intervals"
        )
        return checkpoint, [f"{what}: {why}"]
    used = held[-1]
    calibrated = objective.with_calibration(used.outputs, used.records, choice)
    line = _line(objective, calibrated, held, choice)
    return checkpoint.with_objective(calibrated), [line]


def _held_out(
    checkpoint: Checkpoint, objective: Any, store: Store, engine: Engine
) -> tuple[list[HeldOut] | None, str]:
    """Return held-out predictions, those by whole groups last; or None and why there are none."""
    run = checkpoint.run
    if run.dp_sgd:
        return None, "dp_sgd protects the labels that it would be learnt from"
    if run.tasks:
        return None, "the run learnt several tasks"
    records = objective.examples(store, "train")
    if run.subset:
        places = sampling.balanced_subset(records.labels(), run.subset.count, run.subset.seed)
        records = records.take(places)
    parent = None if run.init is None else Checkpoint.open(run.init)
    least, why = calibration.MIN_LABELS, _why_not_solved(objective, run, parent, len(records))
    if len(records) < least:
        return None, f"{len(records)} labels, it takes {least}"
    if not why:
        return _cross_fitted(checkpoint, parent, objective, records, engine), ""
    validation = objective.examples(store, "validation")
    if run.subset or len(validation) < least:
        return None, f"{why}; a validation split of {least} labels or more would do"
    model = checkpoint.build().to(engine.device)
    outputs = _outputs(objective, model, checkpoint.codec, validation, engine)
    fold_N = calibration.assign_folds(np.zeros(len(validation), int), None, run.seed)
    return [HeldOut(outputs, validation, fold_N, "of the validation split")], ""


def _why_not_solved(objective: Any, run: Run, parent: Checkpoint | None, num: int) -> str:
    """Return why the head cannot be solved again for each fold; empty where it can."""
    if parent is not None and objective in parent.objectives:
        return f"the head is that of {run.init}, which may have learnt the same labels"
    if not objective.solves_head:
        return "descent alone made the head"
    if run.schedule.lr and run.schedule.steps * run.schedule.batch > GENTLE:
        return "descent took the network far from where the head was solved"
    if num > MAX_CROSS_FITTED:
        return f"{num} records are too many to solve the head again for each fold"
    return ""


def _cross_fitted(
    checkpoint: Checkpoint, parent: Checkpoint | None, objective: Any, records: Any, engine: Engine
) -> list[HeldOut]:
    """Return predictions of each record by a head that has not seen its fold, and where there are
    groups by one that has not seen its group.
    """
    classes = isinstance(objective, OneClass)
    label_N = objective.class_numbers(records) if classes else np.zeros(len(records), int)
    folds: list[tuple[np.ndarray | None, str]] = [(None, "held out in {} folds")]
    if (group_N := group_numbers(records)) is not None:
        folds.append((group_N, "held out in {} folds of whole groups"))
        folds = folds[classes:]  # numbers show how much groups matter, their heads are cheap
    held = []
    for groups, text in folds:
        fold_N = calibration.assign_folds(label_N, groups, checkpoint.run.seed)
        parts: dict[str, list[np.ndarray]] = {}
        places = [np.flatnonzero(fold_N == fold) for fold in np.unique(fold_N)]
        for left_out in places:
            seen = records.take(np.setdiff1d(np.arange(len(records)), left_out))
            model = _solved(checkpoint, parent, objective, seen, engine)
            rows = records.take(left_out)
            for name, value in _outputs(objective, model, checkpoint.codec, rows, engine).items():
                parts.setdefault(name, []).append(value)
        back = np.argsort(np.concatenate(places))
        outputs = {name: np.concatenate(values)[back] for name, values in parts.items()}
        held.append(HeldOut(outputs, records, fold_N, text.format(len(places))))
    return held


def group_numbers(records: Any) -> np.ndarray | None:
    """Return the number of each record's group [N]; None where the store keeps no groups, or every
    group is a single record.
    """
    if (groups := groups_of(records.store)) is None:
        return None
    chosen = [groups[place] for place in records.indices]
    unit_G, unit_N = np.unique(chosen, return_inverse=True)
    return unit_N if 1 < len(unit_G) < len(unit_N) else None


def _solved(
    checkpoint: Checkpoint,
    parent: Checkpoint | None,
    objective: Objective,
    records: Any,
    engine: Engine,
) -> torch.nn.Module:
    """Return the parent's network with the head solved on these records, as a run starts."""
    run = checkpoint.run
    model = seeded_model(checkpoint.model_config, checkpoint.codec, (objective,), run.seed)
    task = TrainingTask(
        name="",
        objective=objective,
        store=records.store,
        records=records,
        validation=(),
        share=Fraction(1),
        weight=1.0,
        seed=run.seed,
        scope=None,
        parent=parent and parent.for_task("", objective),
        inherited=False,
    )
    load_parent(model, (task,), parent, run)
    model.to(engine.device)
    objective.start(model, checkpoint.codec, records, engine, run.seed, task.parent)
    return model


def _outputs(
    objective: Objective, model: torch.nn.Module, codec: Any, records: Any, engine: Engine
) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    with evaluation(model, objective):
        for batch in batches(objective, codec, records, range(len(records)), 0, BATCH):
            for name, value in objective.predict(model, engine.move(batch)).items():
                parts.setdefault(name, []).append(as_array(value))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _line(objective: Any, calibrated: Any, held: Sequence[HeldOut], choice: Calibrate) -> str:
    """Return the line of the summary: what was learnt and how it does on folds it has not seen."""
    used = held[-1]
    labels = f"{len(used.records)} labels {used.source}"
    if not isinstance(objective, OneClass):
        random, interval = held[0], calibrated.interval
        line = f"{interval.coverage:.0%} intervals of +-{interval.half_width:.3g} from {labels}"
        line += f"; cover {_coverage(objective, random, random):.0%} of held-out records"
        if used is not random:
            grouped = _coverage(objective, used, used), _coverage(objective, random, used)
            line += (
                f", {grouped[0]:.0%} of left-out groups ({grouped[1]:.0%} if learnt from a random"
                " split)"
            )
        return line
    label_N, p_NC = objective.class_numbers(used.records), used.outputs["probability"]
    corrected_NC = calibration.cross_fitted(
        used.fold_N, lambda fit, to: _corrected(p_NC, label_N, fit, to, choice)
    )
    before, after = (
        calibration.expected_calibration_error(*calibration.top_label(p, label_N))
        for p in (p_NC, corrected_NC)
    )
    chance = calibration.chance_error(corrected_NC.max(1))
    return (
        f"calibrated by {calibrated.calibration.text} from {labels}; expected calibration error"
        f" {before:.3f} -> {after:.3f} (perfect probabilities would show {chance:.3f})"
    )


def _corrected(
    p_NC: np.ndarray, label_N: np.ndarray, fit: np.ndarray, to: np.ndarray, choice: Calibrate
) -> np.ndarray:
    learnt = calibration.fit_classes(p_NC[fit], label_N[fit], choice)
    return learnt.apply(torch.from_numpy(np.asarray(p_NC[to], np.float64))).numpy()


def _coverage(objective: Any, learnt_from: HeldOut, judged_on: HeldOut) -> float:
    """Return the share of held-out errors inside intervals learnt from the errors of other folds of
    the same records.
    """

    def sizes(held: HeldOut) -> np.ndarray:
        value_N = np.asarray(held.records.column("value"), np.float64)
        return np.abs(held.outputs["value"] - value_N)

    size_N, from_N = sizes(judged_on), sizes(learnt_from)
    inside_N = calibration.cross_fitted(
        judged_on.fold_N,
        lambda fit, to: size_N[to] <= calibration.conformal_quantile(from_N[fit], 0.9),
    )
    return float(inside_N.mean())
