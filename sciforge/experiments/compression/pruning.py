"""Pruning a checkpoint: the smallest weights become zero, at once or along a ramp, with fine-tuning
between and after.

The result is an ordinary checkpoint, its zeros stored as zeros: whatever opens a checkpoint opens
it. Inference is not faster: that needs kernels for sparse matrices, which torch has for few shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciforge.core.files.atomic import one_line, replace_json
from sciforge.core.files.tables import Table
from sciforge.core.methods.pruning import matrices, smallest, zero_share
from sciforge.core.training import checkpoint as checkpoints
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.loop import train
from sciforge.core.training.run import Pruning, Run, Schedule, to_json
from sciforge.errors import ConfigError
from sciforge.experiments.compression.spec import Prune, open_held_out
from sciforge.experiments.grid import temporary_folder
from sciforge.experiments.held_out import HeldOut, Scores
from sciforge.experiments.plots import COLORS, frame, new_axes
from sciforge.experiments.results import ExperimentResult
from sciforge.experiments.statistics import mean_interval, paired_difference
from sciforge.provenance import model_card

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class PrunedCheckpoint(ExperimentResult):
    """A pruned checkpoint and what prune.json says of it.

    Args:
        checkpoint: the pruned one.
        report: its sparsity, and where data were given the metric before and after.
    """

    name = "prune"

    checkpoint: Checkpoint
    report: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report and where the checkpoint is."""
        return {"checkpoint": str(self.checkpoint.path), **self.report}

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a quantity with its value and interval, where it has one."""
        import pandas as pd

        shares = ("sparsity", "sparsity_all", "weights", "weights_all")
        rows: list[dict[str, Any]] = [
            {"quantity": name, "value": self.report[name]} for name in shares
        ]
        for name, compared in self.report.get("compared", {}).items():
            low, high = compared["interval"]
            rows.append({"quantity": name, "value": compared["value"], "low": low, "high": high})
        return pd.DataFrame(rows, columns=["quantity", "value", "low", "high"])

    def table(self) -> Table:
        """Return the report as a table."""
        report = self.report
        keys = {"of the matrices": "", "of all parameters": "_all"}
        rows = [
            (f"zeros {what}", f"{report[f'sparsity{key}']:.4f} of {report[f'weights{key}']:,}")
            for what, key in keys.items()
        ]
        for name, compared in report.get("compared", {}).items():
            ends = [compared["value"], *compared["interval"]]
            value, low, high = ("not finite" if x is None else f"{x:.4g}" for x in ends)
            rows.append((f"{report['metric']}, {name}", f"{value} [{low}, {high}]"))
        note = "Not evaluated: give --data."
        if "compared" in report:
            records = f"{report['split'].capitalize()} split, {report['records']} records"
            note = f"{records}, 95 % intervals over them; one checkpoint."
        return Table(("what", "value"), tuple(rows), note)

    def plot(self, ax: Any = None) -> Any:
        """Draw the metric before and after pruning, or the sparsity where no data were given,
        and return the axes.
        """
        axes, compared = new_axes(ax, (4.0, 3.6)), self.report.get("compared")
        if compared is None:
            axes.bar(
                ["matrices", "all"],
                [self.report["sparsity"], self.report["sparsity_all"]],
                color=COLORS[1],
            )
            axes.set_ylabel("share of weights that are zero")
        else:
            for place, name in enumerate(("dense", "pruned")):
                low, high = compared[name]["interval"]
                axes.plot([place, place], [low, high], color=COLORS[place], linewidth=1.5)
                axes.plot(place, compared[name]["value"], "o", color=COLORS[place])
            axes.set_xticks([0, 1], ["dense", f"{self.report['sparsity']:.0%} zeros"])
            axes.set_ylabel(f"{self.report['split']} {self.report['metric']}")
        frame(axes)
        return axes

    def _write_report(self, folder: Path) -> None:
        """Write prune.json into a folder."""
        with one_line(folder):
            replace_json(folder / "prune.json", {**self.about, **self.to_json()})


def prune(spec: Prune) -> PrunedCheckpoint:
    """Prune a checkpoint as `spec` says, write prune.json beside it, and return both.

    Raises:
        ConfigError: nothing to prune, another domain's data, or `spec.out` is taken.
        CheckpointError, DataError: the checkpoint or the store is missing or damaged.
    """
    parent = Checkpoint.open(spec.init[0])
    if spec.out is not None and spec.tune is None and spec.out.exists() and any(spec.out.iterdir()):
        raise ConfigError(f"{spec.out}: not empty; choose another --out")
    held_out = dense = None
    if spec.data is not None:  # first, so that an unknown metric leaves no folder behind
        _, held_out, engine = open_held_out(spec, parent)
        dense = held_out.evaluate_checkpoint(parent, engine)
    folder = spec.out or temporary_folder()
    if spec.tune is not None:
        pruned = train(tuned_run(spec, parent, spec.sparsity, folder, spec.seed), resume=True)
    else:
        pruned = cut(spec, parent, folder)
    report = shares_of(pruned, spec.pattern)
    if held_out is not None and dense is not None:
        report |= comparison(held_out, dense, held_out.evaluate_checkpoint(pruned, engine))
    about = {"spec": to_json(spec), "weights_sha256": pruned.body["files"][checkpoints.WEIGHTS]}
    result = PrunedCheckpoint(pruned, report).keep(folder, spec.out is None, about)
    model_card.write(pruned)
    return result


def tuned_run(spec: Prune, parent: Checkpoint, share: float, out: Path, seed: int) -> Run:
    """Return the run that fine-tunes a checkpoint for its own objective with this share of its
    weights pruned.
    """
    assert spec.data is not None and spec.tune is not None
    return Run(
        data=spec.data,
        out=out,
        init=parent.path,
        objective=parent.objectives[0],
        schedule=spec.tune,
        pruning=spec.pruning(share),
        hardware=spec.hardware,
        seed=seed,
    )


def cut(spec: Prune, parent: Checkpoint, folder: Path) -> Checkpoint:
    """Write a checkpoint with the smallest weights set to zero, as a run of one step at learning
    rate 0 would.
    """
    weights = cut_weights(parent, spec.pruning(spec.sparsity))
    run = Run(
        data=spec.data or parent.run.data,
        out=folder,
        init=parent.path,
        objective=parent.objectives[0],
        schedule=Schedule(steps=1, batch=1, lr=0.0, warmup=0.0, kind="constant"),
        pruning=replace(spec.pruning(spec.sparsity), ramp=0.0),
        hardware=parent.run.hardware,
        seed=parent.run.seed,
    )
    about = checkpoints.provenance(run, "cpu", 1, parent.provenance.get("data") or {}, parent.path)
    about |= {"store": parent.provenance["store"]} if "store" in parent.provenance else {}
    checkpoints.save(
        folder / "final",
        domain=parent.domain.name,
        run=run,
        codec=parent.codec,
        model_config=parent.model_config,
        objectives=parent.objectives,
        weights=weights,
        step=1,
        metrics={
            "sparsity": zero_share(weights[n] for n in matrices(parent.build(), spec.pattern))
        },
        provenance=about,
    )
    return Checkpoint.open(folder / "final")


def cut_weights(parent: Checkpoint, pruning: Pruning) -> dict[str, Any]:
    """Return a checkpoint's weights with the smallest of its matrices set to zero."""
    weights = parent.weights()
    chosen = {name: weights[name] for name in matrices(parent.build(), pruning.pattern)}
    for name, zero in (
        smallest(chosen, pruning.share, pruning.scope).items() if pruning.share else ()
    ):
        weights[name] = weights[name].masked_fill(zero, 0.0)
    return weights


def shares_of(checkpoint: Checkpoint, pattern: str) -> dict[str, Any]:
    """Return what share of a checkpoint's matrices and of all its parameters is zero, and how
    many weights they have.
    """
    network = checkpoint.build()
    parameters = dict(network.named_parameters())
    chosen = [parameters[name] for name in matrices(network, pattern)]
    return {
        "sparsity": zero_share(chosen),
        "sparsity_all": zero_share(parameters.values()),
        "weights": sum(p.numel() for p in chosen),
        "weights_all": sum(p.numel() for p in parameters.values()),
    }


def comparison(held_out: HeldOut, dense: Scores, pruned: Scores) -> dict[str, Any]:
    """Return the compared metric before and after and its change, each with its interval, and
    all metrics.
    """
    values, without = ([dense.value], [pruned.value]), ([dense.without], [pruned.without])
    intervals = {
        "dense": mean_interval(values[0], without[0]),
        "pruned": mean_interval(values[1], without[1]),
    }
    intervals["change"] = paired_difference(values[1], values[0], without[1], without[0])
    return {
        "metric": held_out.metric,
        "split": held_out.split,
        "records": len(held_out.records),
        "compared": {name: interval.to_json() for name, interval in intervals.items()},
        "metrics": {"dense": dict(dense.metrics), "pruned": dict(pruned.metrics)},
    }
