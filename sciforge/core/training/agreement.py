"""What all processes of a run must have in common before the first step: settings, version,
data, parent, weights.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciforge import __version__
from sciforge.core.files.settings import to_json
from sciforge.core.training.checkpoint import git_state
from sciforge.core.training.run import Run
from sciforge.errors import printable

# May differ from process to process: they decide speed and places, not the result.
FREE = {
    "out",
    "log",
    "hardware.device",
    "hardware.workers",
    "hardware.threads",
    "hardware.compile",
    "hardware.timeout",
}


def settings(run: Run) -> dict[str, str]:
    """Return name -> value of the settings that decide the result; of paths only whether they are
    given.

    What lies at a path is compared by its digest, since nodes may keep the same data at different
    places.
    """
    return {name: value for name, value in _flat("", run) if name not in FREE}


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Path):
        return [(name, "a path")]
    if is_dataclass(value) and not isinstance(value, type):
        own = [] if isinstance(value, Run) else [(f"{name}.type", type(value).__name__)]
        inner = [(f"{name}.{f.name}".lstrip("."), getattr(value, f.name)) for f in fields(value)]
        return own + [pair for place, part in inner for pair in _flat(place, part)]
    if isinstance(value, tuple) and any(is_dataclass(part) for part in value):
        inner = [(f"{name}.{number}", part) for number, part in enumerate(value)]
        return [pair for place, part in inner for pair in _flat(place, part)]
    return [(name, json.dumps(to_json(value), sort_keys=True, default=str))]


def version() -> dict[str, str]:
    """Return the versions of sciforge and torch, and the commit of a checkout with whether it
    has changes.
    """
    commit, dirty = git_state()
    changes = " with changes" if dirty else ""
    return {
        "sciforge": __version__,
        "torch": torch.__version__,
        "commit": f"{(commit or 'none')[:12]}{changes}",
    }


def digest(values: Mapping[str, Any]) -> dict[str, str]:
    """Return one short digest of named values, to be compared over processes."""
    return {"digest": hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]}


def weights_digest(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return one short digest of names, shapes and bytes of tensors."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        values = tensor.detach().cpu().contiguous()
        total.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        total.update(values.flatten().view(torch.uint8).numpy().astype(np.uint8, copy=False).data)
    return {"digest": total.hexdigest()[:12]}


def disagreement(of_ranks: Sequence[Mapping[str, Mapping[str, str]]]) -> str | None:
    """Return one line that says what differs between processes, and at which of them; None where
    all agree.

    Args:
        of_ranks: of each process kind (`run`, `data`, ...) -> name -> value.

    >>> disagreement([{"run": {"seed": seed}} for seed in "007"]).partition(";")[0]
    'processes disagree: rank 2 has another run than rank 0 (seed 7, not 0)'
    """
    problems = []
    for kind, wanted in of_ranks[0].items():
        others = [rank for rank, values in enumerate(of_ranks) if values[kind] != wanted]
        if not others:
            continue
        values = of_ranks[others[0]][kind]
        names = sorted(
            name for name in {**wanted, **values} if wanted.get(name) != values.get(name)
        )
        pairs = [
            f"{name} {values.get(name, 'none')}, not {wanted.get(name, 'none')}"
            for name in names[:3]
        ]
        more = ", ..." if len(names) > 3 else ""
        ranks, verb = ("rank", "has") if len(others) == 1 else ("ranks", "have")
        listed = ", ".join(map(str, others[:8])) + (", ..." if len(others) > 8 else "")
        problems.append(
            f"{ranks} {listed} {verb} another {kind} than rank 0 ({'; '.join(pairs)}{more})"
        )
    if not problems:
        return None
    return printable(
        f"processes disagree: {'; '.join(problems)}; start all with the same command and files"
    )
