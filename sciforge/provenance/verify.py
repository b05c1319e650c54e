"""Is a run what it says it is? Its digests, its data and parent, the environment then and now, and its steps taken again."""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sciforge.core.data.store import Store
from sciforge.core.files.atomic import check_files, read_json, sha256
from sciforge.core.files.tables import Table
from sciforge.core.training import checkpoint
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.run import EWC, Run
from sciforge.errors import CheckpointError, ConfigError, DataError, DivergedError, SciforgeError
from sciforge.provenance import model_card
from sciforge.provenance.replay import Rerun, read_lines, recorded_hardware, rerun

State = Literal["ok", "differs", "wrong", "not checked"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: a file, the data, the environment, the steps taken again.
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
        findings: in the order they were made.
        environment: name -> [then, now] where the two differ.
        rerun: the steps taken again, None where none were.
    """

    path: Path
    findings: tuple[Finding, ...]
    environment: Mapping[str, tuple[Any, Any]]
    rerun: Rerun | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.state != "wrong" for finding in self.findings)

    def table(self) -> Table:
        """Return the findings as a table."""
        count = sum(finding.state == "wrong" for finding in self.findings)
        note = f"{self.path}: {'nothing is wrong' if self.sound else f'{count} of {len(self.findings)} are wrong'}"
        rows = tuple((finding.what, finding.state, finding.detail) for finding in self.findings)
        return Table(("what", "state", "found"), rows, note)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        taken = None if self.rerun is None else {**asdict(self.rerun), "verdict": self.rerun.verdict}
        if taken and taken["worst"] == float("inf"):
            taken["worst"] = None  # JSON has no infinity
        return {
            "checkpoint": str(self.path),
            "sound": self.sound,
            "findings": [asdict(finding) for finding in self.findings],
            "environment": {name: {"then": then, "now": now} for name, (then, now) in self.environment.items()},
            "replay": taken,
        }


def verify(
    path: Path, *, data: Path | None = None, init: Path | None = None, replay: int = 5, device: str = "auto"
) -> Verification:
    """Look a run over: digests, configuration, data, parent, environment, and a replay of some of its steps.

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
    place = checkpoint.resolve(path)
    findings = list(_files(place))
    if any(finding.state == "wrong" for finding in findings):
        skipped = [Finding("replay", "not checked", "the checkpoint is damaged")] if replay else []
        return Verification(place, (*findings, *skipped), {})
    made = Checkpoint(place, checkpoint.upgrade(read_json(place / "checkpoint.json", CheckpointError), place))
    findings.append(_configuration(made))
    if findings[-1].state == "wrong":
        return Verification(place, tuple(findings), {})
    run = _moved(made, data, init)
    findings += [_data(made, run), *_parent(made, run), _journal(made)]
    changed = environment(made)
    findings.append(_environment(changed))
    taken = None
    if replay:
        if any(finding.state == "wrong" for finding in findings):
            findings.append(Finding("replay", "not checked", "mend the above first"))
        else:
            finding, taken = _replay(made, run, replay, device, changed)
            findings.append(finding)
    return Verification(place, tuple(findings), changed, taken)


def _files(place: Path) -> Iterator[Finding]:
    """Check checkpoint.json, every file it lists, and the model card, each by its own digest."""
    try:
        body = checkpoint.upgrade(read_json(place / "checkpoint.json", CheckpointError), place)
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
        said = "as it was written" if whole else "changed since it was written; `sciforge card` writes it again"
        yield Finding(model_card.NAME, "ok" if whole else "differs", said)


def _configuration(made: Checkpoint) -> Finding:
    """Decode run, codec, model and objectives, and see that the weights fit."""
    try:
        run, model = made.run, made.build()
        objective = type(made.objectives[0]).__name__
    except (SciforgeError, IndexError) as error:
        return Finding("configuration", "wrong", str(error))
    count = sum(tensor.numel() for tensor in model.parameters())
    kinds = f"{made.body['domain']}, {objective}, {type(made.model_config).__name__} of {count:,} parameters"
    return Finding("configuration", "ok", f"{kinds}, seed {run.seed}, step {made.step}; the weights fit")


def _moved(made: Checkpoint, data: Path | None, init: Path | None) -> Run:
    """Return the run with the places where its data lie now, as far as they can be found."""
    run = made.run

    def here(recorded: Path | None, given: Path | None = None) -> Path | None:
        if given is not None or recorded is None or recorded.exists() or recorded.is_absolute():
            return given or recorded
        # relative to the folder in which the command was given: that in which `out` is the run's own folder
        folder, out = made.path.parent.resolve(), run.out.parts
        if folder.parts[-len(out) :] == out and (moved := Path(*folder.parts[: -len(out)]) / recorded).exists():
            return moved
        return recorded

    changes: dict[str, Any] = {"data": here(run.data, data), "init": here(run.init, init)}
    if run.replay:
        changes["replay"] = replace(run.replay, data=here(run.replay.data))
    if isinstance(run.regularization, EWC):
        changes["regularization"] = replace(run.regularization, data=here(run.regularization.data))
    if run.teacher:
        changes["teacher"] = replace(run.teacher, checkpoint=here(run.teacher.checkpoint))
    if run.dp_sgd:
        changes["dp_sgd"] = replace(run.dp_sgd, key=here(run.dp_sgd.key))
    return replace(run, **changes)


def _data(made: Checkpoint, run: Run) -> Finding:
    recorded = made.provenance.get("data") or {}
    if not (run.data / "index.json").exists():
        return Finding("data", "not checked", f"no store at {run.data}; say where it is with --data")
    try:
        found = Store.open(run.data).digests()
    except DataError as error:
        return Finding("data", "wrong", str(error))
    if found == recorded:
        return Finding("data", "ok", f"{run.data}: {len(found)} files with the recorded digests")
    other = sorted(name for name in {**found, **recorded} if found.get(name) != recorded.get(name))
    return Finding("data", "wrong", f"{run.data}: {other[0]} is not the recorded one; the store was made anew")


def _parent(made: Checkpoint, run: Run) -> Iterator[Finding]:
    if run.init is None:
        return
    try:
        parent = checkpoint.resolve(run.init)
    except CheckpointError:
        yield Finding("parent", "not checked", f"no checkpoint at {run.init}; say where it is with --init")
        return
    if sha256(parent / "checkpoint.json") == made.provenance.get("parent"):
        yield Finding("parent", "ok", f"{parent}: the recorded digest")
        return
    # what is added later (a Fisher) changes checkpoint.json too, and the steps taken again tell whether it matters
    yield Finding("parent", "differs", f"{parent}: its checkpoint.json is another, or was added to since")


def _journal(made: Checkpoint) -> Finding:
    path = made.path.parent / "metrics.jsonl"
    lines = read_lines(path)
    if not lines:
        return Finding("metrics.jsonl", "not checked", f"none beside {made.path}; the steps cannot be compared")
    if missing := sorted(set(range(max(lines) + 1)) - set(lines)):
        return Finding("metrics.jsonl", "wrong", f"step {missing[0]} is missing of {max(lines) + 1}")
    if max(lines) + 1 < made.step:
        return Finding("metrics.jsonl", "wrong", f"ends at step {max(lines) + 1}, the checkpoint is of {made.step}")
    then = {k.removeprefix("validation_"): v for k, v in lines.get(made.step - 1, {}).items() if k.startswith("validation_")}
    for name, value in then.items():
        if name in made.metrics and made.metrics[name] != value and value == value:
            said = f"{name} after step {made.step} is {value}, in the checkpoint {made.metrics[name]}"
            return Finding("metrics.jsonl", "wrong", said)
    agree = f", {len(then)} development metrics as in the checkpoint" if then else ""
    return Finding("metrics.jsonl", "ok", f"{len(lines)} steps without a gap{agree}")


def environment(made: Checkpoint) -> dict[str, tuple[Any, Any]]:
    """Return name -> (then, now) of what is another here: versions, commit, platform, device, processes, threads."""
    then = made.provenance
    run = replace(made.run, init=None, model=made.model_config, regularization=None, replay=None, retention=None)
    hardware = recorded_hardware(made.run, then, "auto")
    now = checkpoint.provenance(run, hardware.device, 1, {}, None)
    now["threads"] = hardware.threads or now["threads"]
    known = then.get("versions", {})  # of a package that an older record does not name nothing can be said
    pairs = {name: (known[name], found) for name, found in now["versions"].items() if name in known}
    names = ("platform", "device", "world_size", "threads", "git_commit", "git_dirty")
    pairs |= {name: (then.get(name), now[name]) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _environment(changed: Mapping[str, tuple[Any, Any]]) -> Finding:
    if not changed:
        return Finding("environment", "ok", f"as recorded (Python {platform.python_version()})")
    return Finding("environment", "differs", _pairs(changed))


def _pairs(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{name} {_short(then)} then, {_short(now)} now" for name, (then, now) in changed.items())


def _short(value: Any) -> str:
    return "unknown" if value is None else str(value)[:12] if len(str(value)) == 40 else str(value)


def _saved(made: Checkpoint) -> dict[int, Checkpoint]:
    """Return step -> checkpoint of those of the same run that lie beside this one, and itself."""
    others = (Checkpoint.open(file.parent) for file in sorted(made.path.parent.glob("*/checkpoint.json")))
    return {other.step: other for other in others if other.body["run"] == made.body["run"]} | {made.step: made}


def _replay(
    made: Checkpoint, run: Run, steps: int, device: str, changed: Mapping[str, tuple[Any, Any]]
) -> tuple[Finding, Rerun | None]:
    """Take steps again; whatever keeps them from being taken is said, and is not wrong by itself."""
    lines = read_lines(made.path.parent / "metrics.jsonl")
    if not lines:
        return Finding("replay", "not checked", "no metrics.jsonl to compare with"), None
    try:
        run = replace(run, hardware=recorded_hardware(run, made.provenance, device))
        found = rerun(made, run, steps, lines, _saved(made))
    except DivergedError as error:
        return Finding("replay", "wrong", f"the record goes on where the steps taken again do not: {error}"), None
    except SciforgeError as error:
        return Finding("replay", "not checked", str(error)), None
    if not found.steps:
        return Finding("replay", "not checked", "the record ends where the checkpoint lies"), found
    if found.verdict == "bit-equal":
        return Finding("replay", "ok", found.text()), found
    why = "recorded elsewhere: " + ", ".join(changed) if changed else "versions, device and threads are as recorded"
    if found.verdict == "different":
        hint = f"{why}; rounding does not explain it: the record, the weights or the code is another"
        return Finding("replay", "wrong", f"{found.text()} ({hint})"), found
    hint = f"{why}; another processor, or arithmetic whose order is not fixed, may differ so much"
    return Finding("replay", "differs", f"{found.text()} ({hint})"), found
