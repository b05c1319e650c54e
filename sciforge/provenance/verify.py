"""Is a run what it says it is? Its digests, its data and parent, the environment then and now,
and its steps taken again.
"""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sciforge.core.data.store import Store
from sciforge.core.files.atomic import check_files, read_json, sha256
from sciforge.core.files.tables import Table
from sciforge.core.training import checkpoint as checkpoints
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import EWC, Run
from sciforge.core.training.tasks import planned
from sciforge.errors import CheckpointError, ConfigError, DataError, DivergedError, SciforgeError
from sciforge.provenance import model_card
from sciforge.provenance.replay import StepReplay, read_lines, recorded_hardware, replay_steps

State = Literal["ok", "differs", "wrong", "not checked"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: a file, the data, the environment, the replay.
        state: `differs` is what may differ between two machines; `wrong` is what may not.
        detail: one line.
    """

    what: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """All that was found about a run.

    Args:
        path: the checkpoint that was looked at.
        findings: in the order they were checkpoint.
        environment: name -> [then, now] where the two differ.
        replay: the steps taken again, None where none were.
    """

    path: Path
    findings: tuple[Finding, ...]
    environment: Mapping[str, tuple[Any, Any]]
    replay: StepReplay | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.state != "wrong" for finding in self.findings)

    def table(self) -> Table:
        """Return the findings as a table."""
        count = sum(finding.state == "wrong" for finding in self.findings)
        note = (
            f"{self.path}:"
            f" {'nothing is wrong' if self.sound else f'{count} of {len(self.findings)} are wrong'}"
        )
        rows = tuple((finding.what, finding.state, finding.detail) for finding in self.findings)
        return Table(("what", "state", "found"), rows, note)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        taken = (
            None if self.replay is None else {**asdict(self.replay), "verdict": self.replay.verdict}
        )
        if taken and taken["worst"] == float("inf"):
            taken["worst"] = None  # JSON has no infinity
        return {
            "checkpoint": str(self.path),
            "sound": self.sound,
            "findings": [asdict(finding) for finding in self.findings],
            "environment": {
                name: {"then": then, "now": now} for name, (then, now) in self.environment.items()
            },
            "replay": taken,
        }


def verify(
    path: Path,
    *,
    data: Path | None = None,
    init: Path | None = None,
    replay: int = 5,
    device: str = "auto",
) -> Verification:
    """Look a run over: digests, configuration, data, parent, environment, and a replay of some of
    its steps.

    Args:
        path: a run's folder or a checkpoint.
        data: where the run's store is now, if not where it was.
        init: where the run's parent is now, if not where it was.
        replay: steps to take again, 0 for none.
        device: of the replay; `auto` takes the recorded one where it is there.

    Raises:
        CheckpointError: there is no checkpoint at `path`.
        ConfigError: a negative `replay`.
    """
    if replay < 0:
        raise ConfigError(f"replay is {replay}; give a number of steps, 0 for none")
    place = checkpoints.resolve(path)
    findings = list(_files(place))
    if any(finding.state == "wrong" for finding in findings):
        skipped = [Finding("replay", "not checked", "the checkpoint is damaged")] if replay else []
        return Verification(place, (*findings, *skipped), {})
    checkpoint = Checkpoint(
        place, checkpoints.upgrade(read_json(place / "checkpoint.json", CheckpointError), place)
    )
    findings.append(_configuration(checkpoint))
    if findings[-1].state == "wrong":
        return Verification(place, tuple(findings), {})
    run = _moved(checkpoint, data, init)
    findings += [*_data(checkpoint, run), *_parent(checkpoint, run), _metrics_log(checkpoint)]
    changed = environment(checkpoint)
    findings.append(_environment(changed))
    taken = None
    if replay:
        if any(finding.state == "wrong" for finding in findings):
            findings.append(Finding("replay", "not checked", "mend the above first"))
        else:
            finding, taken = _replay(checkpoint, run, replay, device, changed)
            findings.append(finding)
    return Verification(place, tuple(findings), changed, taken)


def _files(place: Path) -> Iterator[Finding]:
    """Check checkpoint.json, every file it lists, and the model card, each by its own digest."""
    try:
        body = checkpoints.upgrade(read_json(place / "checkpoint.json", CheckpointError), place)
    except SciforgeError as error:
        yield Finding("checkpoint.json", "wrong", str(error))
        return
    yield Finding("checkpoint.json", "ok", f"sha256 {sha256(place / 'checkpoint.json')}")
    for name, digest in body["files"].items():
        if name.startswith("resume/") and not (place / "resume").exists():
            yield Finding(name, "ok", "removed; it is needed for resuming only")
            continue
        try:
            check_files(place, {name: digest}, CheckpointError)
            yield Finding(name, "ok", f"sha256 {digest}")
        except (SciforgeError, OSError) as error:
            yield Finding(name, "wrong", str(error))
    if (place / model_card.NAME).exists():
        whole = model_card.is_whole(place / model_card.NAME)
        detail = (
            "as it was written"
            if whole
            else "changed since it was written; `sciforge card` writes it again"
        )
        yield Finding(model_card.NAME, "ok" if whole else "differs", detail)


def _configuration(checkpoint: Checkpoint) -> Finding:
    """Decode run, codec, model and objectives, and see that the weights fit."""
    try:
        run, model = checkpoint.run, checkpoint.build(whole=True)
        learnt = checkpoint.all_objectives if checkpoint.tasks else checkpoint.objectives[:1]
        objective = " and ".join(type(o).__name__ for o in learnt)
        if not learnt:
            raise IndexError("no objective")
    except (SciforgeError, IndexError) as error:
        return Finding("configuration", "wrong", str(error))
    count = sum(tensor.numel() for tensor in model.parameters())
    kinds = (
        f"{checkpoint.body['domain']}, {objective}, {type(checkpoint.model_config).__name__} of"
        f" {count:,} parameters"
    )
    return Finding(
        "configuration", "ok", f"{kinds}, seed {run.seed}, step {checkpoint.step}; the weights fit"
    )


def _moved(checkpoint: Checkpoint, data: Path | None, init: Path | None) -> Run:
    """Return the run with the places where its data lie now, as far as they can be found."""
    run = checkpoint.run

    def here(recorded: Path | None, given: Path | None = None) -> Path | None:
        if given is not None or recorded is None or recorded.exists() or recorded.is_absolute():
            return given or recorded
        # relative to the folder in which the command was given: that in which `out` is the run's
        # own folder
        folder, out = checkpoint.path.parent.resolve(), run.out.parts
        if (
            folder.parts[-len(out) :] == out
            and (moved := Path(*folder.parts[: -len(out)]) / recorded).exists()
        ):
            return moved
        return recorded

    changes: dict[str, Any] = {"data": here(run.data, data), "init": here(run.init, init)}
    if run.replay:
        changes["replay"] = replace(run.replay, data=here(run.replay.data) or run.replay.data)
    if isinstance(run.regularization, EWC):
        changes["regularization"] = replace(run.regularization, data=here(run.regularization.data))
    if run.teacher:
        changes["teacher"] = replace(
            run.teacher, checkpoint=here(run.teacher.checkpoint) or run.teacher.checkpoint
        )
    if run.dp_sgd:
        changes["dp_sgd"] = replace(run.dp_sgd, key=here(run.dp_sgd.key))
    if run.tasks:
        changes["tasks"] = tuple(
            replace(task, data=here(task.data, None if number else data) or task.data)
            for number, task in enumerate(run.tasks)
        )
        changes["data"] = changes["tasks"][0].data
    return replace(run, **changes)


def _data(checkpoint: Checkpoint, run: Run) -> Iterator[Finding]:
    """Look at the data of every task."""
    yield _store("data", run.data, checkpoint.provenance.get("data") or {}, "--data")
    others = checkpoint.provenance.get("tasks") or {}
    for task, (name, about) in zip(planned(run)[1:], others.items(), strict=False):
        yield _store(f"data of {name}", task.data, about["data"], "a checkpoint's run.tasks")


def _store(what: str, path: Path, recorded: Mapping[str, str], hint: str) -> Finding:
    if not (path / "index.json").exists():
        return Finding(what, "not checked", f"no store at {path}; say where it is with {hint}")
    try:
        digests = Store.open(path, verify=True).digests()
    except DataError as error:
        return Finding(what, "wrong", str(error))
    if digests == recorded:
        return Finding(what, "ok", f"{path}: {len(digests)} files with the recorded digests")
    other = sorted(
        name for name in {**digests, **recorded} if digests.get(name) != recorded.get(name)
    )
    return Finding(
        what, "wrong", f"{path}: {other[0]} is not the recorded one; the store was made anew"
    )


def _parent(checkpoint: Checkpoint, run: Run) -> Iterator[Finding]:
    if run.init is None:
        return
    try:
        parent = checkpoints.resolve(run.init)
    except CheckpointError:
        yield Finding(
            "parent", "not checked", f"no checkpoint at {run.init}; say where it is with --init"
        )
        return
    if sha256(parent / "checkpoint.json") == checkpoint.provenance.get("parent"):
        yield Finding("parent", "ok", f"{parent}: the recorded digest")
        return
    # what is added later (a Fisher) changes checkpoint.json too, and the steps taken again tell
    # whether it matters
    yield Finding(
        "parent", "differs", f"{parent}: its checkpoint.json is another, or was added to since"
    )


def _metrics_log(checkpoint: Checkpoint) -> Finding:
    path = checkpoint.path.parent / "metrics.jsonl"
    lines = read_lines(path)
    if not lines:
        return Finding(
            "metrics.jsonl",
            "not checked",
            f"none beside {checkpoint.path}; the steps cannot be compared",
        )
    if missing := sorted(set(range(max(lines) + 1)) - set(lines)):
        return Finding(
            "metrics.jsonl", "wrong", f"step {missing[0]} is missing of {max(lines) + 1}"
        )
    if max(lines) + 1 < checkpoint.step:
        return Finding(
            "metrics.jsonl",
            "wrong",
            f"ends at step {max(lines) + 1}, the checkpoint is of {checkpoint.step}",
        )
    then = {
        k.removeprefix("validation_"): v
        for k, v in lines.get(checkpoint.step - 1, {}).items()
        if k.startswith("validation_")
    }
    for name, value in then.items():
        if name in checkpoint.metrics and checkpoint.metrics[name] != value and value == value:
            detail = (
                f"{name} after step {checkpoint.step} is {value}, in the checkpoint"
                f" {checkpoint.metrics[name]}"
            )
            return Finding("metrics.jsonl", "wrong", detail)
    agree = f", {len(then)} validation metrics as in the checkpoint" if then else ""
    return Finding("metrics.jsonl", "ok", f"{len(lines)} steps without a gap{agree}")


def environment(checkpoint: Checkpoint) -> dict[str, tuple[Any, Any]]:
    """Return name -> (then, now) of what is another here: versions, commit, platform, device,
    processes, threads.
    """
    then = checkpoint.provenance
    run = replace(
        checkpoint.run,
        tasks=(),
        objective=checkpoint.objectives[0],
        init=None,
        model=checkpoint.model_config,
        regularization=None,
        replay=None,
        retention=None,
    )
    hardware = recorded_hardware(checkpoint.run, then, "auto")
    now = checkpoints.provenance(run, hardware.device, 1, {}, None)
    now["threads"] = hardware.threads or now["threads"]
    known = then.get("versions", {})  # older records do not name every package
    pairs = {
        name: (known[name], version) for name, version in now["versions"].items() if name in known
    }
    names = ("platform", "device", "world_size", "threads", "git_commit", "git_dirty")
    pairs |= {name: (then.get(name), now[name]) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _environment(changed: Mapping[str, tuple[Any, Any]]) -> Finding:
    if not changed:
        return Finding("environment", "ok", f"as recorded (Python {platform.python_version()})")
    return Finding("environment", "differs", _pairs(changed))


def _pairs(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(
        f"{name} {_short(then)} then, {_short(now)} now" for name, (then, now) in changed.items()
    )


def _short(value: Any) -> str:
    return "unknown" if value is None else str(value)[:12] if len(str(value)) == 40 else str(value)


def _saved(checkpoint: Checkpoint) -> dict[int, Checkpoint]:
    """Return step -> checkpoint of those of the same run that lie beside this one, and itself."""
    others = (
        Checkpoint.open(file.parent)
        for file in sorted(checkpoint.path.parent.glob("*/checkpoint.json"))
    )
    return {
        other.step: other for other in others if other.body["run"] == checkpoint.body["run"]
    } | {checkpoint.step: checkpoint}


def _replay(
    checkpoint: Checkpoint,
    run: Run,
    steps: int,
    device: str,
    changed: Mapping[str, tuple[Any, Any]],
) -> tuple[Finding, StepReplay | None]:
    """Take steps again; what keeps them from being taken is reported, and is not wrong by
    itself.
    """
    lines = read_lines(checkpoint.path.parent / "metrics.jsonl")
    if not lines:
        return Finding("replay", "not checked", "no metrics.jsonl to compare with"), None
    try:
        run = replace(run, hardware=recorded_hardware(run, checkpoint.provenance, device))
        outcome = replay_steps(checkpoint, run, steps, lines, _saved(checkpoint))
    except DivergedError as error:
        return (
            Finding(
                "replay", "wrong", f"the record goes on where the steps taken again do not: {error}"
            ),
            None,
        )
    except SciforgeError as error:
        return Finding("replay", "not checked", str(error)), None
    if not outcome.steps:
        return (
            Finding("replay", "not checked", "the record ends where the checkpoint lies"),
            outcome,
        )
    if outcome.verdict == "bit-equal":
        return Finding("replay", "ok", outcome.text()), outcome
    why = (
        "recorded elsewhere: " + ", ".join(changed)
        if changed
        else "versions, device and threads are as recorded"
    )
    if outcome.verdict == "different":
        hint = (
            f"{why}; rounding does not explain it: the record, the weights or the code is another"
        )
        return Finding("replay", "wrong", f"{outcome.text()} ({hint})"), outcome
    hint = f"{why}; another processor, or arithmetic whose order is not fixed, may differ so much"
    return Finding("replay", "differs", f"{outcome.text()} ({hint})"), outcome
