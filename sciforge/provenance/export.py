"""A checkpoint as one file that runs without sciforge: a torch.export program (.pt2) or ONNX
(.onnx).

The program takes the tensors of a collated batch by name and returns what the objective predicts.
Before the file appears under its name, its answers are compared with the model's on real records,
in batches of other sizes than it was traced with.
"""

import contextlib
import copy
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.data.store import Store
from sciforge.core.domain import Batch, Objective
from sciforge.core.files.output_files import write_whole
from sciforge.core.files.tables import Table
from sciforge.core.training.evaluation import batches, evaluation
from sciforge.core.training.model import Model
from sciforge.errors import CheckpointError, ConfigError, DataError, MissingExtra

TOLERANCE = 1e-5
TRACED = 5  # records of the batch that is traced; not 1, which torch takes for a constant
TRIED = (1, 2, 16)  # batches that the program is tried on besides
MAX_RECORDS = 64  # read for it


class Predicting(nn.Module):
    """A model with its objective's predict, as a function of a batch's tensors."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> dict[str, Any]:
        """Return the objective's outputs of a batch."""
        return self.objective.predict(self.model, batch)


class Heads(nn.Module):
    """A model's heads under names that a program's code can spell; some are called by a word of
    Python's (`class`).
    """

    def __init__(self, heads: nn.ModuleDict) -> None:
        super().__init__()
        for name, head in heads.items():
            self.add_module(f"head_{name}", head)

    def __getitem__(self, name: str) -> nn.Module:
        return getattr(self, f"head_{name}")

    def __contains__(self, name: str) -> bool:
        return hasattr(self, f"head_{name}")


def settled(model: nn.Module, widen: bool = False) -> nn.Module:
    """Return a copy whose buffers of a single number are plain numbers: a program cannot branch on
    a tensor's value.

    With `widen` small integers become int64, the one kind that every operator of onnxruntime takes.
    """
    model = copy.deepcopy(model).requires_grad_(False).eval()
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.ndim == 0:
                delattr(module, name)
                setattr(module, name, buffer.item())
            elif widen and buffer.dtype in (torch.int8, torch.int16, torch.int32):
                setattr(module, name, buffer.long())
    model.heads = Heads(model.heads)  # type: ignore[arg-type]
    return model


@dataclass(frozen=True)
class Exported:
    """What was written, and how it differs from the model.

    Args:
        path: the file.
        differences: output -> largest absolute difference over all batches tried, in units of the
            output's largest value where that is above 1.
        inputs: name -> shape, `*` where it may differ from batch to batch.
        records: tried.
        bytes: of the file.
    """

    path: Path
    differences: Mapping[str, float]
    inputs: Mapping[str, tuple[str, ...]]
    records: int
    bytes: int

    def table(self) -> Table:
        """Return inputs and differences as a table."""
        rows = [(f"input {name}", f"[{', '.join(shape)}]") for name, shape in self.inputs.items()]
        rows += [
            (f"output {name}", f"differs by {value:.2g} at most")
            for name, value in self.differences.items()
        ]
        note = (
            f"{self.path}, {self.bytes / 1e6:.2f} MB; compared on {self.records} records in batches"
            f" of {TRACED} and "
        )
        return Table(("what", "value"), tuple(rows), note + ", ".join(map(str, TRIED)) + ".")


def export(model: Model, out: Path, data: Path | None = None) -> Exported:
    """Write a checkpoint as a torch.export program (.pt2) or ONNX (.onnx) and return how its
    answers differ.

    Args:
        model: the checkpoint, on the CPU.
        out: the file; its suffix tells the format.
        data: a store whose records it is tried on; by default the one it was trained on.

    Raises:
        ConfigError: an unknown suffix, a checkpoint that predicts nothing, or a model that cannot
            be exported.
        MissingExtra: ONNX without its packages.
        DataError: no records to try it on.
        CheckpointError: the program's answers differ by more than 1e-5.
    """
    _check(model, out)
    objective = model.objective
    ready = real_batches(model, data)
    with evaluation(model.network, objective):
        expected: list[Any] = [objective.predict(model.network, batch) for batch in ready]
    program = traced(model, ready, widen=out.suffix == ".onnx")
    differences: dict[str, float] = {}

    def write(work: Path) -> None:
        if out.suffix == ".pt2":
            answer = _pt2(model, program, work)
        else:
            answer = _onnx(model, program, ready[0], work)
        with torch.no_grad():
            for batch, wanted in zip(ready, expected, strict=True):
                try:
                    outputs = answer(batch)
                # what the program does not hold for: guards of torch, shapes of onnxruntime
                except Exception as error:
                    raise _impossible(
                        model, f"it holds for one shape of batch alone: {_line(error)}"
                    ) from None
                compare(outputs, wanted, differences)
        if worst := {k: v for k, v in differences.items() if not v <= TOLERANCE}:
            name, value = max(worst.items(), key=lambda pair: pair[1])
            raise CheckpointError(
                f"{out}: not written, the program's {name!r} differs by {value:.2g}; "
                + (
                    "a .pt2 keeps torch's own arithmetic"
                    if out.suffix == ".onnx"
                    else "load the checkpoint itself"
                )
            )

    path = write_whole(out, write)
    free = {name: _free([batch[name] for batch in ready]) for name in ready[0]}
    inputs = {
        name: tuple("*" if i in free[name] else str(n) for i, n in enumerate(t.shape))
        for name, t in ready[0].items()
    }
    return Exported(
        path, differences, inputs, sum(len(_first(e)) for e in expected), path.stat().st_size
    )


def _check(model: Model, out: Path) -> None:
    """Raise what `export` raises before any work is done."""
    if out.suffix not in (".pt2", ".onnx"):
        raise ConfigError(
            f"{out}: no format is called {out.suffix or 'that'}; end the name in .pt2 or .onnx"
        )
    objective = model.objective
    if objective.needs_grad:
        raise _impossible(
            model,
            "its predictions are derivatives of the model (forces), which a program cannot take",
        )
    if type(objective).predict is Objective.predict:
        raise ConfigError(
            f"{model.checkpoint.path} predicts nothing yet ({type(objective).__name__}); fine-tune"
            " it first"
        )
    if out.suffix == ".onnx":
        require_onnx()


def real_batches(model: Model, data: Path | None) -> list[Batch]:
    """Return batches of a store's records without their labels, the first to trace with; raises
    DataError without records.
    """
    place = model.checkpoint.run.data if data is None else data
    try:
        store = Store.open(place)
    except DataError as error:
        raise DataError(f"{error}; give --data, a store to try the program on") from None
    objective, codec = model.objective, model.codec
    splits = [objective.examples(store, split) for split in ("test", "validation", "train")]
    records = max(splits, key=lambda part: (len(part) >= max(TRIED), len(part)))
    if len(records) < TRACED + 1:
        raise DataError(
            f"{place}: {len(records)} records are too few to try a program on; give another --data"
        )
    num = min(len(records), MAX_RECORDS)
    plain = [
        {k: v for k, v in records[i].items() if k not in ("label", "value")} for i in range(num)
    ]
    collated = []
    for number, size in enumerate((TRACED, *TRIED)):
        places = [(number * 7 + i) % num for i in range(min(size, num))]
        collated += [
            model.engine.move(b) for b in batches(objective, codec, plain, places, 0, size)
        ]
    if not all(isinstance(value, Tensor) for value in collated[0].values()):
        raise _impossible(model, "its batches are not tensors by name")
    return collated


def traced(model: Model, ready: Sequence[Batch], widen: bool = False) -> Any:
    """Return the torch.export program of a model; every axis that differs among the batches may
    differ in use.
    """
    module = Predicting(settled(model.network, widen), model.objective).eval()
    free = {name: _free([batch[name] for batch in ready]) for name in ready[0]}
    shapes = {
        "batch": {name: dict.fromkeys(axes, torch.export.Dim.AUTO) for name, axes in free.items()}
    }
    try:
        with torch.no_grad(), _quiet():
            # strict: without it len(tensor) is taken for a constant, and batches of other sizes are
            # refused
            return torch.export.export(module, (ready[0],), dynamic_shapes=shapes, strict=True)
    # torch raises types of its own, from a dozen modules, for what it cannot trace
    except Exception as error:
        raise _impossible(model, f"torch.export: {_line(error)}") from None


def _free(values: Sequence[Tensor]) -> list[int]:
    """Return the axes along which tensors differ."""
    return [
        axis for axis in range(values[0].ndim) if len({value.shape[axis] for value in values}) > 1
    ]


def require_onnx() -> None:
    """Raise MissingExtra where a package that writes or runs ONNX is absent."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise MissingExtra(name, "onnx") from None


def _pt2(model: Model, program: Any, work: Path) -> Any:
    """Write a program as .pt2 and return the function that the file holds."""
    try:
        with open(work, "wb") as handle:
            torch.export.save(program, handle)
        with open(work, "rb") as handle, _quiet():
            return torch.export.load(handle).module()
    except OSError:
        raise
    except Exception as error:  # as where it is traced
        raise _impossible(model, f"torch.export: {_line(error)}") from None


def _onnx(model: Model, program: Any, batch: Batch, work: Path) -> Any:
    """Write a program as ONNX and return a function that runs the file by onnxruntime."""
    import onnxruntime

    try:
        with _quiet():
            exported: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, external_data=False
            )
            exported.save(str(work), external_data=False)
            session = onnxruntime.InferenceSession(str(work), providers=["CPUExecutionProvider"])
    except OSError:
        raise
    except Exception as error:  # as above
        raise _impossible(model, f"ONNX: {_line(error)}") from None
    wanted = {
        entry.name: name
        for entry in session.get_inputs()
        for name in batch
        if entry.name in (name, f"batch_{name}")
    }
    names = list(_output_names(model, batch))

    def answer(batch: Batch) -> dict[str, Tensor]:
        values = session.run(None, {given: batch[name].numpy() for given, name in wanted.items()})
        return {
            name: torch.from_numpy(np.asarray(value))
            for name, value in zip(names, values, strict=True)
        }

    return answer


def _output_names(model: Model, batch: Batch) -> Iterator[str]:
    with evaluation(model.network, model.objective):
        yield from model.objective.predict(model.network, batch)


def compare(
    outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], worst: dict[str, float]
) -> None:
    """Raise each output's largest difference in `worst` to that of one more batch; NaN counts as
    infinitely different.

    >>> worst = {}
    >>> compare({"x": torch.tensor([10.0, 2.0])}, {"x": torch.tensor([10.5, 2.0])}, worst)
    >>> round(worst["x"], 4)
    0.0476
    """
    for name, value in wanted.items():
        scale = max(1.0, float(value.abs().max()))
        away = (
            float((outputs[name] - value).abs().max()) / scale
            if outputs[name].shape == value.shape
            else float("inf")
        )
        worst[name] = max(worst.get(name, 0.0), away if away == away else float("inf"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own words about tracing off the terminal: what matters is compared or raised."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _line(error: BaseException) -> str:
    """Return the first line of an error."""
    return next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )[:160]


def _first(outputs: Mapping[str, Tensor]) -> Tensor:
    return next(iter(outputs.values()))


def _impossible(model: Model, why: str) -> ConfigError:
    """Return the error that says why a model cannot be exported and what its domain offers
    instead.
    """
    outputs = sorted(model.domain.outputs, key=lambda name: name != "export")
    instead = (
        f"use `sciforge predict CHECKPOINT {outputs[0]}`"
        if outputs
        else "use sciforge.load in Python"
    )
    return ConfigError(f"{model.checkpoint.path} cannot be exported ({why}); {instead}")
