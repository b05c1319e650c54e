"""A privacy audit: can one tell from a model's losses which records it learnt?

Shadow models repeat the checkpoint's own run (start, schedule, objective, adapt, private) through the shared loop, each on
one half of the records. Their losses show what a record's loss is like when it was learnt and when it was not (LiRA,
Carlini et al. 2022). Each shadow's losses are written down as they come, so an audit that was stopped goes on.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sciforge.core.data import sampling
from sciforge.core.data.store import Rows, Store
from sciforge.core.domain import Categorical, Objective, Record
from sciforge.core.files.atomic import read_json, replace_json, results_folder, sha256
from sciforge.core.files.output_files import write_whole
from sciforge.core.files.settings import Settings
from sciforge.core.methods.dp_sgd import Mechanism
from sciforge.core.training.checkpoint import WEIGHTS, Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.evaluation import evaluation
from sciforge.core.training.loop import train
from sciforge.core.training.run import Hardware, Run, to_json
from sciforge.errors import ConfigError
from sciforge.experiments.privacy.attack import OWN_SPREAD, Attack, Exposure, halves, left_out, lira, statistic
from sciforge.experiments.privacy.plot import draw
from sciforge.experiments.privacy.pool import Pool, names_of, records_of, refuse_shared, some
from sciforge.experiments.privacy.result import CANARIES, PrivacyResult

FEWEST = 8  # shadows: below, Gaussians are fitted to two or three points
MOST_EXPOSED = 10


@dataclass(frozen=True, kw_only=True)
class Privacy(Settings):
    """Whose membership to guess, of which model: the checkpoint itself, or its recipe on other data.

    Args:
        checkpoint: path or name of a fine-tuned checkpoint; its run is the shadows' recipe.
        out: folder of the results; an audit started again there goes on.
        members: store of what the checkpoint learnt.
        nonmembers: store of records like them that it has not learnt.
        data: instead of both, a store whose training split the shadows share: each is in turn the target of the others.
        members_split: which split of `members`; `all` for every record.
        nonmembers_split: which split of `nonmembers`.
        shadows: how many models to train, an even number; 64 and more are better, 16 a first look.
        examples: the most records of each side, drawn at random; 0 for all.
        canaries: how many records not learnt by the checkpoint get a wrong label for the shadows, to see what is learnt by
            heart at worst.
        init: where the checkpoint that the run started from is now, if it was moved.
        hardware: of the shadows.
        seed: of the draws.
    """

    checkpoint: Path
    out: Path
    members: Path | None = None
    nonmembers: Path | None = None
    data: Path | None = None
    members_split: str = "train"
    nonmembers_split: str = "test"
    shadows: int = 16
    examples: int = 0
    canaries: int = 0
    init: Path | None = None
    hardware: Hardware = Hardware()
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        self.require(0, 2**62, "seed", "examples", "canaries")
        if self.shadows < FEWEST or self.shadows % 2:
            raise ConfigError(f"shadows is {self.shadows}; give an even number, at least {FEWEST}")
        if (self.data is None) == (self.members is None) or (self.members is None) != (self.nonmembers is None):
            raise ConfigError("an audit needs --members and --nonmembers, or --data alone to audit the recipe")


def measure(spec: Privacy) -> PrivacyResult:
    """Train the shadows that are not yet done and return what the attacks find.

    Raises:
        ConfigError: settings that contradict each other, too few records, or `spec.out` holds another audit.
        CheckpointError, DataError: a checkpoint or store is missing or damaged.
    """
    with results_folder(spec.out):
        for stale in spec.out.glob(".run-*"):
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=".run-", dir=spec.out))
        try:
            return _measure(PrivacyRun.open(spec, work))
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _measure(place: "PrivacyRun") -> PrivacyResult:
    spec = place.spec
    diary = ResultsLog.open(spec.out, place.fingerprint())
    in_KN = halves(len(place.pool), spec.shadows, spec.seed)
    waiting = [k for k in range(spec.shadows) if k not in diary.found]
    for k in tqdm(waiting, "shadows", unit="model", disable=None, leave=False):
        diary.add(k, place.shadow(k, in_KN[k]), in_KN[k])
    result = place.judge(np.stack([diary.found[k] for k in range(spec.shadows)]), in_KN)
    about = {"spec": to_json(spec), "weights_sha256": place.target.body["files"][WEIGHTS]}
    replace_json(spec.out / "privacy.json", {**about, **result.to_json()})
    write_whole(spec.out / "roc.png", lambda path: draw(result, path))
    return result


@dataclass(frozen=True)
class PrivacyRun:
    """An audit's checkpoint, records and recipe, opened once.

    Args:
        spec: what was asked for.
        target: the checkpoint.
        recipe: its run, for the shadows; data, out and seed are each shadow's own.
        pool: the records.
        seen: the same, as the objective sees them.
        work: folder for what lasts no longer than the audit.
        classes: whether the likelihood is one of classes.
        warnings: what makes the shadows unlike the target.
        budget: the most privacy that a shadow spends, where the recipe is private; on fewer records it is another one than the
            checkpoint's.
    """

    spec: Privacy
    target: Checkpoint
    recipe: Run
    pool: Pool
    seen: Sequence[Record]
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
        validation = members.store.split("validation") if early else Rows(members.store, np.arange(0))
        pool = Pool(pairs, member_N, validation).with_canaries(spec.canaries, spec.seed)
        if len(pool) < 2 * FEWEST:
            raise ConfigError(f"only {len(pool)} records to audit with; give at least {2 * FEWEST}")
        seen = objective.examples(pool.write(work / "pool", np.ones(len(pool), bool)), "train")
        schedule, warnings, half = replace(run.schedule, save_every=0), [], len(pool) // 2
        if early and not len(validation):
            schedule = replace(schedule, evaluate_every=0, patience=0)
            warnings.append(
                "the records have no validation split, so the shadows train without the checkpoint's early stopping"
            )
        learnt = _learnt(target) or len(members)
        if abs(half - learnt) > 0.1 * learnt:
            warnings.append(f"the shadows learn {half} records each, the checkpoint learnt {learnt}")
        if spec.shadows < OWN_SPREAD:
            warnings.append(f"one variance serves all records; from {OWN_SPREAD} shadows on each has its own")
        recipe = replace(run, init=_parent(spec, target), subset=None, retention=None, schedule=schedule)
        recipe = replace(recipe, objective=objective, hardware=spec.hardware)
        budget = None
        if recipe.dp_sgd:
            mechanism = Mechanism.of(recipe.dp_sgd, recipe, half)
            budget = replace(mechanism, steps=schedule.steps).summary()["privacy"]
        classes = _of_classes(target, seen[0])
        return cls(spec, target, recipe, pool, seen, work, classes, tuple(warnings), budget)

    def fingerprint(self) -> dict[str, Any]:
        """Return what must not change between two runs of one audit; shadows may grow."""
        recipe = {
            name: value for name, value in to_json(self.recipe).items() if name not in ("data", "out", "hardware")
        }
        if self.recipe.init:
            recipe["init"] = self.target.provenance.get("parent")
        about = {"recipe": recipe, "records": self.seen.store.digests(), "seed": self.spec.seed}
        return json.loads(json.dumps({**about, "canaries": self.spec.canaries}))

    def shadow(self, k: int, learnt_N: np.ndarray) -> np.ndarray:
        """Train one shadow on its records and return its loss of every record [N]."""
        folder = self.work / f"shadow-{k}"
        data = self.pool.write(folder / "data", learnt_N)
        seed = int(sampling.generator(self.spec.seed, sampling.SAMPLE, 1, k).integers(2**62))
        made = train(replace(self.recipe, data=data.path, out=folder / "run", seed=seed))
        found = losses(made, self.seen, self.spec.hardware.device)
        shutil.rmtree(folder)
        return found

    def judge(self, loss_KN: np.ndarray, in_KN: np.ndarray) -> PrivacyResult:
        """Return what attacks make of the losses."""
        canary_N = np.isin(np.arange(len(self.pool)), list(self.pool.labels))
        usable_N = np.isfinite(loss_KN).all(0)
        stat_KN = statistic(loss_KN, self.classes)
        seed, attacks, exposed = self.spec.seed, [], ()
        plain_N = usable_N & ~canary_N
        stat, inside = stat_KN[:, plain_N], in_KN[:, plain_N]
        if self.pool.member_N.any():
            own_N = statistic(losses(self.target, self.seen, self.spec.hardware.device), self.classes)[plain_N]
            member_N = self.pool.member_N[plain_N]
            scores = {"loss": own_N, **{n: lira(own_N, stat, inside, n == "lira online") for n in NAMES}}
            attacks = [Attack.judge(name, score_N, member_N, seed) for name, score_N in scores.items()]
            exposed = self._exposed(scores["lira online"], member_N, np.flatnonzero(plain_N))
        else:
            scores = {"loss": stat, **{n: left_out(stat, inside, n == "lira online") for n in NAMES}}
            attacks = [Attack.judge(name, score_KN, inside, seed) for name, score_KN in scores.items()]
        exposure = None
        chosen_N = usable_N & canary_N
        if chosen_N.any():
            stat, inside = stat_KN[:, chosen_N], in_KN[:, chosen_N]
            found = left_out(stat, inside, online=True)
            attacks.append(Attack.judge(CANARIES, found, inside, seed))
            exposure = Exposure.of(loss_KN[:, chosen_N], inside, seed)
        counts = {"shadows": len(loss_KN), "records": int(plain_N.sum()), "canaries": int(chosen_N.sum())}
        counts |= {"members": int((self.pool.member_N & plain_N).sum()), "unlabelled": int((~usable_N).sum())}
        target = "checkpoint" if self.pool.member_N.any() else "recipe"
        privacy = self.target.metrics.get("privacy")
        return PrivacyResult(target, tuple(attacks), exposure, counts, privacy, self.warnings, exposed, self.budget)

    def _exposed(self, score_N: np.ndarray, member_N: np.ndarray, place_N: np.ndarray) -> tuple[tuple[str, float], ...]:
        """Return the names and scores of the members that are told most surely."""
        best = [i for i in np.argsort(-score_N) if member_N[i]][:MOST_EXPOSED]
        names = names_of(self.pool, [int(place_N[i]) for i in best])
        return tuple((name, float(score_N[i])) for name, i in zip(names, best, strict=True))


NAMES = ("lira online", "lira offline")


def _sides(spec: Privacy, target: Checkpoint, objective: Objective) -> tuple[Rows, Rows | None]:
    """Return the members and the others; or all records and None where the recipe is audited."""
    subset, domain = target.run.subset, target.body["domain"]
    stores = [Store.open(path) for path in (spec.data or spec.members, spec.nonmembers) if path is not None]
    for store in stores:
        if store.domain != domain:
            raise ConfigError(f"{store.path} is of the domain {store.domain}, the checkpoint of {domain}")
    if spec.data is not None:
        rows = records_of(stores[0], "train", objective)
        most = spec.examples or (2 * subset.count if subset else 0)
        return some(rows, most, spec.seed), None
    if stores[0].kind != stores[1].kind:
        raise ConfigError(f"{spec.members} is a store of {stores[0].kind}, {spec.nonmembers} of {stores[1].kind}")
    members = records_of(stores[0], spec.members_split, objective)
    same = stores[0].digests() == target.provenance.get("data")
    if subset and same and spec.members_split == "train":  # the run learnt only these of its data
        seen = objective.examples(stores[0], "train")
        members = members.take(sampling.balanced_subset(seen.labels(), subset.count, subset.seed))
    others = records_of(stores[1], spec.nonmembers_split, objective)
    refuse_shared(members, others)
    members = some(members, spec.examples, spec.seed)
    return members, some(others, min(len(members), spec.examples or len(others)), spec.seed)


def _learnt(target: Checkpoint) -> int | None:
    """Return how many records the checkpoint learnt, as far as it tells."""
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
    model, objective, codec = target.build().eval(), target.objectives[0], target.codec
    example = objective.prepare(record, codec, sampling.generator(0, sampling.EVALUATE), training=False)
    try:
        return isinstance(objective.likelihood(model, codec.collate([example])), Categorical)
    except ConfigError:
        return False


def losses(checkpoint: Checkpoint, records: Sequence[Record], device: str = "auto") -> np.ndarray:
    """Return a checkpoint's loss of each record alone, in evaluation and float64 [N]; NaN where nothing is counted."""
    engine = Engine(choose_device(device), "float64")
    model, objective = checkpoint.build().double().to(engine.device), checkpoint.objectives[0]
    found = np.full(len(records), np.nan)
    with evaluation(model, objective):
        for i in range(len(records)):
            rng = sampling.generator(0, sampling.EVALUATE, 0, i)
            example = objective.prepare(records[i], checkpoint.codec, rng, training=False)
            loss = objective.loss(model, engine.move(checkpoint.codec.collate([example])))
            if float(loss.count) > 0:
                found[i] = float(loss.total.detach()) / float(loss.count)
    return found


@dataclass
class ResultsLog:
    """The losses of the shadows on disk, one file a shadow."""

    out: Path
    found: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def open(cls, out: Path, fingerprint: Mapping[str, Any]) -> "ResultsLog":
        """Read what is done; raises ConfigError where it was done under other settings."""
        (out / "shadows").mkdir(exist_ok=True)
        if not (out / "spec.json").exists():
            if any((out / "shadows").iterdir()):
                raise ConfigError(f"{out}: shadows without spec.json; choose another --out")
            replace_json(out / "spec.json", fingerprint)
        before = read_json(out / "spec.json", ConfigError)
        for key, value in fingerprint.items():
            if before.get(key) != value:
                raise ConfigError(f"{out} holds an audit with another {key}; use the same or choose another --out")
        diary = cls(out)
        for file in sorted((out / "shadows").glob("[0-9]*.npz")):
            try:
                with np.load(file) as arrays:
                    diary.found[int(file.stem)] = arrays["loss"]
            except OSError:
                raise
            except Exception:  # archive, header and array raise types of their own
                raise ConfigError(f"{file}: damaged; delete it, and this shadow is trained again") from None
        return diary

    def add(self, k: int, loss_N: np.ndarray, learnt_N: np.ndarray) -> None:
        """Write down one shadow: its loss of every record, and which it learnt."""

        def write(path: Path) -> None:
            with open(path, "wb") as handle:
                np.savez_compressed(handle, loss=loss_N, learnt=learnt_N)

        write_whole(self.out / "shadows" / f"{k:04d}.npz", write)
        self.found[k] = loss_N
