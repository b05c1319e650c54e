"""A privacy audit: can one tell from a model's losses which records it learnt?

Shadow models repeat the checkpoint's own run (start, schedule, objective, fine-tuning, DP-SGD)
through the shared loop, each on one half of the records. Their losses show what a record's loss is
like when it was learnt and when it was not (LiRA, Carlini et al. 2022).
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciforge.core.data import sampling
from sciforge.core.data.store import Rows, Store
from sciforge.core.domain import Categorical, Objective, Record
from sciforge.core.files.atomic import sha256
from sciforge.core.methods.dp_sgd import Mechanism
from sciforge.core.objective import LabelledRecords, Records
from sciforge.core.training.checkpoint import WEIGHTS, Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.evaluation import evaluation
from sciforge.core.training.loop import train
from sciforge.core.training.run import Run, to_json
from sciforge.errors import ConfigError
from sciforge.experiments.grid import Grid, Row, open_folder, scratch
from sciforge.experiments.methods import training_records
from sciforge.experiments.privacy.attack import (
    OWN_VARIANCE,
    Attack,
    Exposure,
    halves,
    leave_one_out,
    lira,
    statistic,
)
from sciforge.experiments.privacy.pool import (
    Pool,
    names_of,
    random_subset,
    records_of,
    refuse_shared,
)
from sciforge.experiments.privacy.result import CANARIES, PrivacyResult
from sciforge.experiments.privacy.spec import MIN_SHADOWS, Privacy

MAX_EXPOSED = 10  # records that are named
LIRA = ("lira online", "lira offline")


def measure(spec: Privacy) -> PrivacyResult:
    """Train the shadows that are not yet done and return what the attacks find.

    Raises:
        ConfigError: settings that contradict each other, too few records, or `spec.out` holds
            another audit.
        CheckpointError, DataError: a checkpoint or store is missing or damaged.
    """
    with open_folder(spec.out) as folder, scratch(folder) as work:
        audit = PrivacyRun.open(spec, work)
        grid = Grid.open(folder, ("shadow",), audit.settings(), "an audit")
        in_KN = halves(len(audit.pool), spec.shadows, spec.seed)

        def shadow(k: int) -> Row:
            return {
                "learnt": np.flatnonzero(in_KN[k]).tolist(),
                "losses": audit.shadow(k, in_KN[k]).tolist(),
            }

        rows = grid.run([(k,) for k in range(spec.shadows)], shadow, "shadows")
        result = audit.result(np.array([row["losses"] for row in rows]), in_KN)
        about = {"spec": to_json(spec), "weights_sha256": audit.target.body["files"][WEIGHTS]}
        return result.keep(folder, spec.out is None, about)


@dataclass(frozen=True)
class PrivacyRun:
    """An audit's checkpoint, records and recipe, opened once.

    Args:
        spec: what was asked for.
        target: the checkpoint.
        recipe: its run, for the shadows; data, out and seed are each shadow's own.
        pool: the records.
        seen: the same, as the objective sees them.
        digests: of the store that holds them.
        work: a scratch folder.
        classes: whether the likelihood is one of classes.
        warnings: what makes the shadows unlike the target.
        budget: the largest privacy budget that a shadow spends, where the recipe is private; on
            fewer records it is another one than the checkpoint's.
    """

    spec: Privacy
    target: Checkpoint
    recipe: Run
    pool: Pool
    seen: LabelledRecords
    digests: Mapping[str, str]
    work: Path
    classes: bool
    warnings: tuple[str, ...]
    budget: Mapping[str, Any] | None = None

    @classmethod
    def open(cls, spec: Privacy, work: Path) -> "PrivacyRun":
        """Open what an audit names, and check it before any work is done."""
        target = Checkpoint.open(spec.checkpoint)
        objective, run = target.objectives[0], target.run
        members, others = _sides(spec, target, objective)
        pairs = (members,) if others is None else (members, others)
        member_N = np.zeros(sum(map(len, pairs)), bool)
        member_N[: len(members) if others is not None else 0] = True
        early = bool(run.schedule.evaluate_every)
        validation = (
            members.store.split("validation") if early else Rows(members.store, np.arange(0))
        )
        pool = Pool(pairs, member_N, validation).with_canaries(spec.canaries, spec.seed)
        if len(pool) < 2 * MIN_SHADOWS:
            raise ConfigError(
                f"only {len(pool)} records to audit with; give at least {2 * MIN_SHADOWS}"
            )
        store = pool.write(work / "pool", np.ones(len(pool), bool))
        seen = training_records(objective, store)
        schedule, warnings, half = replace(run.schedule, save_every=0), [], len(pool) // 2
        if early and not len(validation):
            schedule = replace(schedule, evaluate_every=0, patience=0)
            warnings.append(
                "the records have no validation split, so the shadows train without the"
                " checkpoint's early stopping"
            )
        learnt = _learnt(target) or len(members)
        if abs(half - learnt) > 0.1 * learnt:
            warnings.append(
                f"the shadows learn {half} records each, the checkpoint learnt {learnt}"
            )
        if spec.shadows < OWN_VARIANCE:
            warnings.append(
                f"one variance serves all records; from {OWN_VARIANCE} shadows on each has its own"
            )
        recipe = replace(
            run, init=_parent(spec, target), subset=None, retention=None, schedule=schedule
        )
        recipe = replace(recipe, objective=objective, hardware=spec.hardware)
        budget = None
        if recipe.dp_sgd:
            mechanism = Mechanism.of(recipe.dp_sgd, recipe, half)
            budget = replace(mechanism, steps=schedule.steps).summary()["privacy"]
        classes = _of_classes(target, seen[0])
        return cls(
            spec,
            target,
            recipe,
            pool,
            seen,
            store.digests(),
            work,
            classes,
            tuple(warnings),
            budget,
        )

    def settings(self) -> dict[str, Any]:
        """Return what must not change between two calls for one audit; shadows may grow."""
        recipe = {
            name: value
            for name, value in to_json(self.recipe).items()
            if name not in ("data", "out", "hardware")
        }
        if self.recipe.init:
            recipe["init"] = self.target.provenance.get("parent")
        about = {"recipe": recipe, "records": self.digests, "seed": self.spec.seed}
        return {**about, "canaries": self.spec.canaries}

    def shadow(self, k: int, learnt_N: np.ndarray) -> np.ndarray:
        """Train one shadow on its records and return its loss of every record [N]."""
        folder = self.work / f"shadow-{k}"
        data = self.pool.write(folder / "data", learnt_N)
        seed = int(sampling.generator(self.spec.seed, sampling.SAMPLE, 1, k).integers(2**62))
        checkpoint = train(replace(self.recipe, data=data.path, out=folder / "run", seed=seed))
        loss_N = losses(checkpoint, self.seen, self.spec.hardware.device)
        shutil.rmtree(folder)
        return loss_N

    def result(self, loss_KN: np.ndarray, in_KN: np.ndarray) -> PrivacyResult:
        """Return what attacks find in the losses."""
        canary_N = np.isin(np.arange(len(self.pool)), list(self.pool.labels))
        usable_N = np.isfinite(loss_KN).all(0)
        stat_KN = statistic(loss_KN, self.classes)
        seed, attacks = self.spec.seed, []
        exposed: tuple[tuple[str, float], ...] = ()
        plain_N = usable_N & ~canary_N
        stat, inside = stat_KN[:, plain_N], in_KN[:, plain_N]
        if self.pool.member_N.any():
            own_N = statistic(
                losses(self.target, self.seen, self.spec.hardware.device), self.classes
            )[plain_N]
            member_N = self.pool.member_N[plain_N]
            scores = {
                "loss": own_N,
                **{n: lira(own_N, stat, inside, n == "lira online") for n in LIRA},
            }
            attacks = [Attack.of(name, score_N, member_N, seed) for name, score_N in scores.items()]
            exposed = self._exposed(scores["lira online"], member_N, np.flatnonzero(plain_N))
        else:
            scores = {
                "loss": stat,
                **{n: leave_one_out(stat, inside, n == "lira online") for n in LIRA},
            }
            attacks = [Attack.of(name, score_KN, inside, seed) for name, score_KN in scores.items()]
        exposure = None
        chosen_N = usable_N & canary_N
        if chosen_N.any():
            stat, inside = stat_KN[:, chosen_N], in_KN[:, chosen_N]
            scores_KC = leave_one_out(stat, inside, online=True)
            attacks.append(Attack.of(CANARIES, scores_KC, inside, seed))
            exposure = Exposure.of(loss_KN[:, chosen_N], inside, seed)
        counts = {
            "shadows": len(loss_KN),
            "records": int(plain_N.sum()),
            "canaries": int(chosen_N.sum()),
        }
        counts |= {
            "members": int((self.pool.member_N & plain_N).sum()),
            "unlabelled": int((~usable_N).sum()),
        }
        target = "checkpoint" if self.pool.member_N.any() else "recipe"
        privacy = self.target.metrics.get("privacy")
        return PrivacyResult(
            target, tuple(attacks), exposure, counts, privacy, self.warnings, exposed, self.budget
        )

    def _exposed(
        self, score_N: np.ndarray, member_N: np.ndarray, place_N: np.ndarray
    ) -> tuple[tuple[str, float], ...]:
        """Return the names and scores of the members that are recognised most surely."""
        best = [i for i in np.argsort(-score_N) if member_N[i]][:MAX_EXPOSED]
        names = names_of(self.pool, [int(place_N[i]) for i in best])
        return tuple((name, float(score_N[i])) for name, i in zip(names, best, strict=True))


def _sides(spec: Privacy, target: Checkpoint, objective: Objective) -> tuple[Rows, Rows | None]:
    """Return the members and the others; or all records and None where the recipe is audited."""
    subset, domain = target.run.subset, target.body["domain"]
    stores = [
        Store.open(path)
        for path in (spec.data or spec.members, spec.nonmembers)
        if path is not None
    ]
    for store in stores:
        if store.domain != domain:
            raise ConfigError(
                f"{store.path} is of the domain {store.domain}, the checkpoint of {domain}"
            )
    if spec.data is not None:
        rows = records_of(stores[0], "train", objective)
        count = spec.max_records or (2 * subset.count if subset else 0)
        return random_subset(rows, count, spec.seed), None
    if stores[0].kind != stores[1].kind:
        raise ConfigError(
            f"{spec.members} is a store of {stores[0].kind}, {spec.nonmembers} of {stores[1].kind}"
        )
    members = records_of(stores[0], spec.members_split, objective)
    same = stores[0].digests() == target.provenance.get("data")
    if subset and same and spec.members_split == "train":  # the run learnt only these of its data
        seen = training_records(objective, stores[0])
        members = members.take(sampling.balanced_subset(seen.labels(), subset.count, subset.seed))
    others = records_of(stores[1], spec.nonmembers_split, objective)
    refuse_shared(members, others)
    members = random_subset(members, spec.max_records, spec.seed)
    count = min(len(members), spec.max_records or len(others))
    return members, random_subset(others, count, spec.seed)


def _learnt(target: Checkpoint) -> int | None:
    """Return how many records the checkpoint learnt, as far as it is recorded."""
    if target.run.subset:
        return target.run.subset.count
    return (target.provenance.get("store") or {}).get("records", {}).get("train")


def _parent(spec: Privacy, target: Checkpoint) -> Path | None:
    """Return the checkpoint that the run started from, which must be the very same."""
    if target.run.init is None:
        return None
    parent = Checkpoint.open(spec.init or target.run.init)
    if sha256(parent.path / "checkpoint.json") != target.provenance.get("parent"):
        raise ConfigError(f"{parent.path} is not what {target.path} started from; give --init")
    return parent.path


def _of_classes(target: Checkpoint, record: Record) -> bool:
    """Return whether the objective's likelihood is one of classes; an objective may have none."""
    network, objective, codec = target.build().eval(), target.objectives[0], target.codec
    example = objective.prepare(
        record, codec, sampling.generator(0, sampling.EVALUATE), training=False
    )
    try:
        return isinstance(objective.likelihood(network, codec.collate([example])), Categorical)
    except ConfigError:
        return False


def losses(checkpoint: Checkpoint, records: Records, device: str = "auto") -> np.ndarray:
    """Return a checkpoint's loss of each record alone, in evaluation and float64 [N]; NaN where
    nothing is counted.
    """
    engine = Engine(choose_device(device), "float64")
    network, objective = checkpoint.build().double().to(engine.device), checkpoint.objectives[0]
    loss_N = np.full(len(records), np.nan)
    with evaluation(network, objective):
        for i in range(len(records)):
            rng = sampling.generator(0, sampling.EVALUATE, 0, i)
            example = objective.prepare(records[i], checkpoint.codec, rng, training=False)
            loss = objective.loss(network, engine.move(checkpoint.codec.collate([example])))
            if float(loss.count) > 0:
                loss_N[i] = float(loss.total.detach()) / float(loss.count)
    return loss_N
