"""A checkpoint is a folder of JSON and safetensors that explains itself: no pickle, no class path.

checkpoint.json    format, domain, model and codec, the whole run, step, metrics, digests,
provenance; written last model.safetensors  the weights under the model's own names (LoRA merged in)
fisher-*.safetensors  optional: diagonal Fisher information, for EWC without the pretraining data
resume/            optional and deletable: the optimiser's state and the raw training weights
README.md          optional and deletable: the model card, with a digest of its own (see card.py)
"""

import logging
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from sciforge.core.domain import Domain, Objective, get_domain, seeded_model
from sciforge.core.files.atomic import (
    asked_for,
    atomic_folder,
    check_files,
    check_shape,
    one_line,
    read_json,
    replace_file,
    sha256,
    write_json,
)
from sciforge.core.files.links import following_links, links_followed
from sciforge.core.heads import weights_under
from sciforge.core.training.checkpoint_formats import FORMAT, renamed_tensors, upgraded
from sciforge.core.training.run import CORE_TYPES, Run, bad_task_name, from_json, to_json
from sciforge.errors import CheckpointError, ConfigError, did_you_mean

LOGGER = logging.getLogger("sciforge")
WEIGHTS = "model.safetensors"
RESUME = "resume/state.safetensors"
# the weights of the last step, where those evaluated and saved are others (their average)
RAW = "raw.safetensors"
SLACK = 2**20  # parameters that a model may register beyond four times its weights
SHAPE = {
    "format": int,
    "domain": str,
    "model": dict,
    "codec": dict,
    "objectives": list,
    "run": dict,
    "step": int,
}
SHAPE |= {"metrics": dict, "loop": dict, "provenance": dict, "files": dict}


def upgrade(body: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a checkpoint.json in the present format, its shape checked; raises CheckpointError."""
    body = upgraded(body)
    if body.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {body.get('format')!r} is unknown here; update sciforge"
        )
    check_shape(body, SHAPE, path / "checkpoint.json", CheckpointError)
    if WEIGHTS not in body["files"]:
        raise CheckpointError(
            f"{path / 'checkpoint.json'}: lists no {WEIGHTS}; write or fetch it again"
        )
    tasks = body.get("tasks", [])
    names = isinstance(tasks, list) and all(
        isinstance(name, str) and not bad_task_name(name) for name in tasks
    )
    if not names or len(set(tasks)) != (len(body["objectives"]) if tasks else 0):
        raise CheckpointError(
            f"{path / 'checkpoint.json'}: its tasks are not one name an objective; fetch it again"
        )
    return body


def resolve(path: Path) -> Path:
    """Return the checkpoint folder meant by a path: itself, the finished one of a run, or its
    newest step.
    """
    path = Path(path)
    if (path / "checkpoint.json").exists():
        return path
    if (path / "final" / "checkpoint.json").exists():
        return path / "final"
    steps = sorted(f for f in path.glob("step-*") if (f / "checkpoint.json").exists())
    if not steps:
        raise CheckpointError(
            f"{path}: no checkpoint here; give a run's folder or a name from `sciforge datasets"
            " list`"
        )
    return steps[-1]


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; opening checks every digest.

    Args:
        path: the folder.
        body: checkpoint.json.
        follow_links: whether it was opened so.
        task: whose objective and heads it shows, where it learnt several tasks; None for the first.
    """

    path: Path
    body: Mapping[str, Any]
    follow_links: bool = field(default=False, compare=False)
    task: str | None = None

    @classmethod
    def open(cls, path: Path, follow_links: bool = False, task: str | None = None) -> "Checkpoint":
        """Open a checkpoint or a run's folder.

        Args:
            path: the folder.
            follow_links: read files that are links into the user's caches (Hugging Face, DVC).
            task: whose objective and heads to show, where it learnt several tasks; None for the
                first.

        Raises:
            CheckpointError: it is missing or damaged.
            ConfigError: it learnt no such task.
        """
        path = resolve(path)
        with following_links(follow_links):
            body = upgrade(read_json(path / "checkpoint.json", CheckpointError), path)
            files = {
                f: d
                for f, d in body["files"].items()
                if not f.startswith("resume/") or (path / "resume").exists()
            }
            check_files(path, files, CheckpointError)
            LOGGER.debug("%s: checkpoint of %s after step %d", path, body["domain"], body["step"])
            checkpoint = cls(path, body, links_followed())
        return checkpoint if task is None else checkpoint.of_task(task)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have heads of their own; empty for a run of one objective."""
        return tuple(self.body.get("tasks", ()))

    @property
    def scope(self) -> str | None:
        """The task whose heads are shown; None where heads belong to no task."""
        return self.task or next(iter(self.tasks), None)

    def of_task(self, name: str) -> "Checkpoint":
        """Return the checkpoint as it is for another of its tasks; raises ConfigError where it has
        no such task.
        """
        if name not in self.tasks:
            hint = did_you_mean(name, self.tasks) if self.tasks else "it learnt one objective only"
            raise ConfigError(f"{self.path}: no task {name!r}; {hint}")
        return replace(self, task=name)

    def for_task(self, name: str, objective: Objective | None) -> "Checkpoint":
        """Return the checkpoint as a task starts from it: as its task of the same name, of the very
        same objective, of its kind, else as it is.
        """
        every = [self.of_task(task) for task in self.tasks]
        matches = [view for view in every if view.task == name]
        matches += [view for view in every if view.objectives[0] == objective]
        matches += [view for view in every if type(view.objectives[0]) is type(objective)]
        return (matches or [self])[0]

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return self.body["step"]

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the last evaluation."""
        return dict(self.body["metrics"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, commit, device, data digests, parent."""
        return dict(self.body["provenance"])

    @cached_property
    def domain(self) -> Domain:
        """The domain, by name."""
        return get_domain(self.body["domain"])

    def _decode(self, key: str, kind: type | tuple[type, ...]) -> Any:
        try:
            value = from_json(self.body[key], {**CORE_TYPES, **self.domain.types()}, key)
        except (ConfigError, RecursionError) as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        for part in value if isinstance(value, tuple) else (value,):
            if not isinstance(part, kind):
                raise CheckpointError(
                    f"{self.path}: {key} is of the wrong kind, {type(part).__name__}; fetch it"
                    " again"
                )
        return value

    @cached_property
    def run(self) -> Run:
        """The run that made it."""
        return self._decode("run", Run)

    @cached_property
    def codec(self) -> Any:
        """The fitted codec."""
        return self._decode("codec", type(self.domain.codec))

    @cached_property
    def model_config(self) -> Any:
        """The sizes of the model."""
        return self._decode("model", tuple(map(type, self.domain.models.values())))

    @cached_property
    def all_objectives(self) -> tuple[Objective, ...]:
        """The objectives of all tasks."""
        return self._decode("objectives", Objective)

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives whose heads are shown: that of the task, or, where heads belong to no
        task, all; the first is the one trained for.
        """
        every = self.all_objectives
        return every if self.scope is None else (every[self.tasks.index(self.scope)],)

    def weights(self, name: str = WEIGHTS) -> dict[str, Tensor]:
        """Return the tensors of one of the checkpoint's files, on the CPU; weights by the names
        that they have in `build()`.
        """
        tensors = self.tensors(name)
        return weights_under(tensors, self.scope) if name in (WEIGHTS, RAW) else tensors

    def tensors(self, name: str = WEIGHTS) -> dict[str, Tensor]:
        """Return the tensors of one of the checkpoint's files, on the CPU, the heads of all tasks
        by their full names.
        """
        if name not in self.body["files"]:
            raise CheckpointError(
                f"{self.path}: holds no {name}, only {', '.join(sorted(self.body['files']))}"
            )
        try:
            return renamed_tensors(load_file(self.path / name))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path / name}: {error}; write or fetch it again") from None

    def build(self, *, whole: bool = False) -> nn.Module:
        """Return the model with its weights and the heads of its task, in evaluation mode.

        Args:
            whole: leave the heads of all tasks in it, by their full names.
        """
        weights = self.tensors()
        try:
            with _no_larger_than(weights, self.path):
                model: Any = seeded_model(
                    self.model_config, self.codec, self.all_objectives, 0, self.tasks
                )
        except (
            ConfigError,
            RuntimeError,
            TypeError,
            ValueError,
            LookupError,
            ArithmeticError,
        ) as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(
                f"{self.path}: its model cannot be built ({why}); fetch it again"
            ) from None
        load_weights(model, weights, self.path)
        if self.scope is not None and not whole:
            model.heads = model.heads[self.scope]
        return model.eval()

    def with_objective(self, objective: Objective) -> "Checkpoint":
        """Replace the first objective by one that differs in what was learnt after training
        (a calibration), and return the checkpoint as it is now.
        """
        body = {**self.body, "objectives": to_json((objective, *self.objectives[1:]))}
        with one_line(self.path):
            replace_file(self.path / "checkpoint.json", lambda work: write_json(work, body))
        return Checkpoint(self.path, body, self.follow_links)

    def with_file(
        self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
    ) -> "Checkpoint":
        """Add a file of tensors (the Fisher) to the checkpoint and return it as it is now."""
        body = {
            **self.body,
            "files": dict(self.body["files"]),
            "about": {**self.body.get("about", {}), name: dict(about)},
        }
        describe = partial(
            replace_file, self.path / "checkpoint.json", lambda work: write_json(work, body)
        )
        with one_line(self.path):
            if body["files"].pop(name, None):
                # forget the old file first, so that a crash leaves no digest that does not match
                describe()
            replace_file(self.path / name, lambda work: write_tensors(work, tensors))
            body["files"][name] = sha256(self.path / name)
            describe()
        return replace(self, body=body)


@contextmanager
def _no_larger_than(weights: Mapping[str, Tensor], path: Path) -> Iterator[None]:
    """Stop building a model that outgrows the weights at hand: a forged depth or width must not
    fill the memory.
    """
    # heads may be registered more than once
    left = SLACK + 4 * sum(tensor.numel() for tensor in weights.values())

    def count(_: nn.Module, name: str, parameter: Any) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.numel()
        if left < 0:
            raise CheckpointError(
                f"{path}: its model is larger than its weights; the checkpoint is of another size"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Load weights strictly; raises CheckpointError naming the first tensor that does not fit."""
    own = model.state_dict()
    for name in own:
        if name not in weights:
            raise CheckpointError(
                f"{where}: no weight {name!r}; the checkpoint is of another model"
            )
        if own[name].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}, the model needs {tuple(own[name].shape)}"
            raise CheckpointError(
                f"{where}: weight {name!r} is {shapes}; the checkpoint is of another size"
            )
    if extra := sorted(set(weights) - set(own)):
        raise CheckpointError(
            f"{where}: weight {extra[0]!r} is not in the model; the checkpoint is of another model"
        )
    model.load_state_dict(weights)


def save(
    path: Path,
    *,
    domain: str,
    run: Run,
    codec: Any,
    model_config: Any,
    objectives: tuple[Objective, ...],
    weights: Mapping[str, Tensor],
    step: int,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]] | None = None,
    loop: Mapping[str, Any] | None = None,
    tasks: Sequence[str] = (),
) -> Checkpoint:
    """Write a checkpoint folder that appears whole or not at all, `tensors` beside the weights;
    checkpoint.json last. `tasks` names those that have heads of their own, one an objective.
    """
    with atomic_folder(path, replace=True) as work:
        write_tensors(work / WEIGHTS, weights)
        files = [WEIGHTS]
        for name, extra in (tensors or {}).items():
            (work / name).parent.mkdir(exist_ok=True)
            write_tensors(work / name, extra)
            files.append(name)
        body = {
            "format": FORMAT,
            "domain": domain,
            "model": to_json(model_config),
            "codec": to_json(codec),
        }
        body |= {
            "objectives": to_json(objectives),
            "run": to_json(run),
            "step": step,
            "metrics": dict(metrics),
        }
        body |= {"loop": dict(loop or {}), "provenance": dict(provenance)}
        body |= {"tasks": list(tasks)} if tasks else {}
        body["files"] = {name: sha256(work / name) for name in files}
        write_json(work / "checkpoint.json", body)
    LOGGER.debug("%s: saved after step %d", path, step)
    return Checkpoint(path, body)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; tensors that share memory (tied weights) are saved once under each
    name.

    Raises:
        CheckpointError: the disk is full or cannot be written.
    """
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            path,
        )
    except SafetensorError as error:
        free = shutil.disk_usage(path.parent).free
        raise CheckpointError(
            f"{asked_for(path)}: cannot write ({error}); {free >> 20} MiB are free on the disk"
        ) from None


def provenance(
    run: Run, device: str, world: int, data: Mapping[str, str], parent: Path | None
) -> dict[str, Any]:
    """Return where a model comes from: versions, commit, device, processes, data digests, parent
    checkpoint.
    """
    commit, dirty = git_state()
    return {
        "versions": {"python": platform.python_version(), **_packages()},
        "git_commit": commit,
        "git_dirty": dirty,
        "platform": f"{sys.platform} {platform.machine()}",
        "device": device,
        "threads": torch.get_num_threads(),
        "world_size": world,
        "seed": run.seed,
        "data": dict(data),
        "parent": None if parent is None else sha256(resolve(parent) / "checkpoint.json"),
    }


@cache
def _packages() -> dict[str, str]:
    """Return the versions of sciforge and of all that it requires, each domain's packages among
    them.
    """
    try:
        required = [line for line in requires("sciforge") or () if "extra ==" not in line]
    except PackageNotFoundError:
        required = ["torch", "numpy"]
    versions = {}
    for name in ("sciforge", *(re.split(r"[^\w.-]", line)[0] for line in required)):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Return the commit of sciforge's own checkout and whether it has uncommitted changes; None
    where there is none.
    """
    here = Path(__file__).resolve().parents[3]
    if not (here / ".git").exists():
        return None, None
    try:
        ask: dict[str, Any] = {
            "cwd": here,
            "capture_output": True,
            "text": True,
            "timeout": 10,
            "check": True,
        }
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **ask).stdout.strip()
        return commit, bool(
            subprocess.run(["git", "status", "--porcelain", "-uno"], **ask).stdout.strip()
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
