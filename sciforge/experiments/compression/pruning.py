"""Pruning a checkpoint: the smallest weights become zero, at once or along a ramp, with fine-tuning between and after.

The result is an ordinary checkpoint, its zeros stored as zeros: whatever opens a checkpoint opens it. Fewer
multiplications come of it only on kernels for sparse matrices, which torch has for few shapes; here nothing is faster.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sciforge.core.data.store import Store
from sciforge.core.files.atomic import one_line, replace_json
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import Table
from sciforge.core.methods.pruning import matrices, smallest, zero_share
from sciforge.core.training import checkpoint
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.loop import train
from sciforge.core.training.run import Hardware, Pruning, Run, Schedule, to_json
from sciforge.errors import ConfigError
from sciforge.experiments.held_out import Judged, direction_of, interval, judge
from sciforge.experiments.label_efficiency.run import Held
from sciforge.provenance import model_card

SPLITS = ("test", "validation")


@dataclass(frozen=True, kw_only=True)
class Prune(Settings):
    """What to prune, how far, and how to judge it.

    Args:
        checkpoint: path or name; several of them for a curve.
        out: a new folder for the pruned checkpoint, or of the curve, which goes on there when started again.
        sparsity: share of the weights in the matrices to cut.
        scope: rank the weights of all matrices together (`global`), or cut each `matrix` by the same share.
        pattern: regular expression over names of weight matrices; the default leaves heads out. Embeddings never count.
        data: a prepared store to judge and to fine-tune by; one of the checkpoint's own objective.
        tune: fine-tune with the zeros held, by this schedule.
        ramp: share of the fine-tuning over which the cut share rises; 0 cuts all before the first step.
        cuts: how many cuts the ramp has.
        split: to judge by; None takes the test split, else the validation split.
        metric: the figure to compare; None for the objective's own.
        curve: measure quality against sparsity instead, of one or several checkpoints.
        sparsities: of the curve.
        groups: of the curve, a name for each checkpoint: those of one name are seeds of one recipe. By default checkpoints
            whose runs differ in nothing but the seed are of one group, named by what sets it apart.
        seed: of the fine-tuning.
        hardware: of the fine-tuning.
    """

    checkpoint: tuple[Path, ...]
    out: Path
    sparsity: float = 0.5
    scope: Literal["global", "matrix"] = "global"
    pattern: str = Pruning.pattern
    data: Path | None = None
    tune: Schedule | None = None
    ramp: float = 0.0
    cuts: int = 10
    split: Literal["test", "validation", "train"] | None = None
    metric: str | None = None
    curve: bool = False
    sparsities: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)
    groups: tuple[str, ...] = ()
    seed: int = 0
    hardware: Hardware = Hardware()

    def __post_init__(self):
        super().__post_init__()
        for share in (self.sparsity, *self.sparsities):
            if not 0 <= share < 1:
                raise ConfigError(f"a sparsity is {share}; it must be at least 0 and below 1")
        if len(self.checkpoint) != 1 and not self.curve:
            raise ConfigError(f"{len(self.checkpoint)} checkpoints to prune; give one, or --curve to compare them")
        if len(set(self.checkpoint)) < len(self.checkpoint):
            raise ConfigError("a checkpoint is given twice; give each once")
        if len(set(self.sparsities)) < 2 and self.curve:
            raise ConfigError("a curve needs at least two different --sparsities")
        if self.groups and len(self.groups) != len(self.checkpoint):
            raise ConfigError(
                f"{len(self.groups)} groups for {len(self.checkpoint)} checkpoints; give one name for each"
            )
        if self.data is None and (self.tune or self.curve):
            raise ConfigError("a curve and fine-tuning need --data, a store of the checkpoint's own objective")
        if self.ramp and not self.tune:
            raise ConfigError("a ramp is a part of fine-tuning; give --tune.steps, or leave the ramp out")

    def pruning(self, share: float) -> Pruning:
        """Return the settings of a run that cuts so much."""
        return Pruning(share, self.scope, self.pattern, self.ramp, self.cuts)


@dataclass(frozen=True)
class Pruned:
    """A pruned checkpoint, and what prune.json says of it."""

    checkpoint: Checkpoint
    report: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report and where the checkpoint is."""
        return {"checkpoint": str(self.checkpoint.path), **self.report}

    def table(self) -> Table:
        """Return the report as a table."""
        return comparison_table(self.report)


def prune(spec: Prune) -> Pruned:
    """Prune a checkpoint as `spec` says, write prune.json beside it, and return both.

    Raises:
        ConfigError: nothing to prune, another domain's data, or `spec.out` is taken.
        CheckpointError, DataError: the checkpoint or the store is missing or damaged.
    """
    parent = Checkpoint.open(spec.checkpoint[0])
    judging = None if spec.data is None else Judging.of(spec, parent)
    dense = judging and judging(parent)  # first, so that a metric that is none leaves no folder behind
    if spec.tune is not None:
        made = train(tuned_run(spec, parent, spec.sparsity, spec.out, spec.seed), resume=True)
    else:
        made = cut(spec, parent)
    report: dict[str, Any] = {"spec": to_json(spec), "weights_sha256": made.body["files"][checkpoint.WEIGHTS]}
    report |= shares_of(made, spec.pattern)
    if judging is not None:
        report |= comparison(judging, dense, judging(made))
    with one_line(spec.out):
        replace_json(spec.out / "prune.json", report)
    model_card.write(made)
    return Pruned(made, report)


def tuned_run(spec: Prune, parent: Checkpoint, share: float, out: Path, seed: int) -> Run:
    """Return the run that fine-tunes a checkpoint for its own objective with so many weights cut."""
    fixed = {"data": spec.data, "init": parent.path, "hardware": spec.hardware, "seed": seed}
    return Run(out=out, objective=parent.objectives[0], schedule=spec.tune, pruning=spec.pruning(share), **fixed)


def cut(spec: Prune, parent: Checkpoint) -> Checkpoint:
    """Write a checkpoint with the smallest weights cut, at once; a run of one step at rate 0 would make the same."""
    out = spec.out / "final"
    if spec.out.exists() and any(spec.out.iterdir()):
        raise ConfigError(f"{spec.out}: not empty; choose another --out")
    weights = cut_weights(parent, spec.pruning(spec.sparsity))
    schedule = Schedule(steps=1, batch=1, lr=0.0, warmup=0.0, kind="constant")
    fixed = {"objective": parent.objectives[0], "hardware": parent.run.hardware, "seed": parent.run.seed}
    run = Run(
        data=spec.data or parent.run.data,
        out=spec.out,
        init=parent.path,
        schedule=schedule,
        pruning=replace(spec.pruning(spec.sparsity), ramp=0.0),
        **fixed,
    )
    metrics = {"sparsity": zero_share(weights[n] for n in matrices(parent.build(), spec.pattern))}
    digests = parent.provenance.get("data") or {}
    about = checkpoint.provenance(run, "cpu", 1, digests, parent.path)
    about |= {"store": parent.provenance["store"]} if "store" in parent.provenance else {}
    checkpoint.save(
        out,
        domain=parent.domain.name,
        run=run,
        codec=parent.codec,
        model_config=parent.model_config,
        objectives=parent.objectives,
        weights=weights,
        step=1,
        metrics=metrics,
        provenance=about,
    )
    return Checkpoint.open(out)


def cut_weights(parent: Checkpoint, pruning: Pruning) -> dict[str, Any]:
    """Return a checkpoint's weights with the smallest of its matrices cut; the others are as they were."""
    weights = parent.weights()
    chosen = {name: weights[name] for name in matrices(parent.build(), pruning.pattern)}
    for name, zero in smallest(chosen, pruning.share, pruning.scope).items() if pruning.share else ():
        weights[name] = weights[name].masked_fill(zero, 0.0)
    return weights


def shares_of(made: Checkpoint, pattern: str) -> dict[str, Any]:
    """Return what share of a checkpoint's matrices and of all its parameters is zero, and how many weights they have."""
    model = made.build()
    parameters = dict(model.named_parameters())
    chosen = [parameters[name] for name in matrices(model, pattern)]
    return {
        "sparsity": zero_share(chosen),
        "sparsity_all": zero_share(parameters.values()),
        "weights": sum(p.numel() for p in chosen),
        "weights_all": sum(p.numel() for p in parameters.values()),
    }


@dataclass(frozen=True)
class Judging:
    """How checkpoints of one objective are judged: on which records, by which figure."""

    records: Held
    split: str
    metric: str
    higher_is_better: bool | None
    engine: Engine
    digests: Mapping[str, str]

    @classmethod
    def of(cls, spec: Any, parent: Checkpoint) -> "Judging":
        """Open the store of a spec (`data`, `split`, `metric`, `hardware`) for a checkpoint's objective; raises ConfigError."""
        store, objective = Store.open(spec.data), parent.objectives[0]
        if store.domain != parent.body["domain"]:
            raise ConfigError(f"{spec.data} is of the domain {store.domain}, the checkpoint of {parent.body['domain']}")
        wanted = (spec.split,) if spec.split else SPLITS
        found = {name: records for name in wanted if len(records := objective.examples(store, name))}
        if not found:
            raise ConfigError(f"{spec.data} has no {' or '.join(wanted)} records; choose another --split")
        split = next(iter(found))
        engine = Engine(choose_device(spec.hardware.device), "float32")
        metric = spec.metric or objective.metric
        return cls(Held(found[split]), split, metric, direction_of(objective, metric), engine, store.digests())

    def __call__(self, made: Checkpoint, weights: Mapping[str, Any] | None = None) -> Judged:
        """Return the metrics of a checkpoint, or of its model with other weights."""
        model = made.build()
        if weights is not None:
            checkpoint.load_weights(model, weights, made.path)
        place = self.engine.device
        return judge(model.to(place), made.objectives[0], made.codec, self.records, self.engine, self.metric)


def comparison(judging: Judging, dense: Judged, sparse: Judged) -> dict[str, Any]:
    """Return the compared figure before and after and its change, each with its interval, and all metrics."""
    change = interval(
        [sparse.value - dense.value], [[b - a for a, b in zip(dense.without, sparse.without, strict=True)]]
    )
    found = {"dense": interval([dense.value], [dense.without]), "pruned": interval([sparse.value], [sparse.without])}
    rows = {name: x.to_json() for name, x in {**found, "change": change}.items()}
    metrics = {"dense": dict(dense.metrics), "pruned": dict(sparse.metrics)}
    about = {"metric": judging.metric, "split": judging.split, "records": len(judging.records)}
    return {**about, "compared": rows, "metrics": metrics}


def comparison_table(report: Mapping[str, Any]) -> Table:
    """Return what prune.json says as a table."""
    shown = {"of the matrices": "", "of all parameters": "_all"}
    rows = [
        (f"zeros {what}", f"{report[f'sparsity{key}']:.4f} of {report[f'weights{key}']:,}")
        for what, key in shown.items()
    ]
    for name, found in report.get("compared", {}).items():
        bounds = [found["value"], *found["interval"]]
        value, low, high = ("not finite" if x is None else f"{x:.4g}" for x in bounds)
        rows.append((f"{report['metric']}, {name}", f"{value} [{low}, {high}]"))
    note = "Not judged: give --data."
    if "compared" in report:
        note = f"{report['split'].capitalize()} split, {report['records']} records, 95 % intervals over them; one checkpoint."
    return Table(("what", "value"), tuple(rows), note)
