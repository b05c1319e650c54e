"""A model in use: on users' own inputs, on prepared data, for fine-tuning, and on itself, for
its laws.
"""

import html
import logging
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sciforge.core.data import sampling
from sciforge.core.data.dataset import Dataset, as_dataset, is_prepared
from sciforge.core.data.store import Store
from sciforge.core.data.user_tables import split_table
from sciforge.core.domain import Domain, FitRecipe, Inputs, Objective, Record
from sciforge.core.files.atomic import TemporaryFolder, copy_folder
from sciforge.core.files.docstrings import first_paragraph
from sciforge.core.files.links import following_links
from sciforge.core.files.results import Metrics
from sciforge.core.learners.calibration import Calibrate
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine, choose_device
from sciforge.core.training.evaluation import as_array, evaluate, evaluation
from sciforge.core.training.laws import CheckResult, LawResult
from sciforge.core.training.run import Run, Subset
from sciforge.core.training.seen_records import seen_in_training
from sciforge.errors import CheckpointError, ConfigError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd


LOGGER = logging.getLogger("sciforge")
_METHODS = ("fit", "predict", "evaluate", "embed", "save", "check", "outputs")


@dataclass(repr=False)
class Model:
    """A trained network with its codec and objective; `sciforge.load` returns one.

    Args:
        checkpoint: where it comes from.
        network: on `device`, in evaluation mode.
        device: of the arithmetic.
        batch: records in one forward pass.
        folder: a temporary folder that holds the checkpoint and lives as long as the model; None
            for one that stays.
    """

    checkpoint: Checkpoint
    network: nn.Module
    device: torch.device
    batch: int = 64
    folder: TemporaryFolder | None = field(default=None, compare=False)

    @classmethod
    def load(
        cls,
        path: Path,
        device: str = "auto",
        batch: int = 64,
        follow_links: bool = False,
        task: str | None = None,
    ) -> "Model":
        """Open a checkpoint folder, whose files may be links as `Checkpoint.open` says; raises
        CheckpointError where it is missing or damaged.

        Args:
            path: of the folder.
            device: `auto`, `cpu` or `cuda`.
            batch: records in one forward pass.
            follow_links: read files that are links into the user's caches.
            task: whose heads to load, where the checkpoint learnt several tasks; None for the
                first.
        """
        checkpoint = Checkpoint.open(path, follow_links, task)
        place = choose_device(device)
        return cls(checkpoint, checkpoint.build().to(place), place, batch)

    @property
    def domain(self) -> Domain:
        """The domain of the checkpoint."""
        return self.checkpoint.domain

    @property
    def codec(self) -> Any:
        """The fitted codec."""
        return self.checkpoint.codec

    @property
    def objective(self) -> Objective:
        """What the checkpoint was trained for."""
        return self.checkpoint.objectives[0]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the checkpoint learnt together; empty for one objective."""
        return self.checkpoint.tasks

    def task(self, name: str) -> "Model":
        """Return the model of another task of the same checkpoint, with that task's heads.

        Args:
            name: of the task, one of `tasks`.

        Raises:
            ConfigError: the checkpoint learnt no such task.
        """
        checkpoint = self.checkpoint.of_task(name)
        return replace(self, checkpoint=checkpoint, network=checkpoint.build().to(self.device))

    @property
    def engine(self) -> Engine:
        """A single-process engine on the model's device; on CUDA with bfloat16 autocast, as in
        training.
        """
        return Engine(self.device, "bfloat16" if self.device.type == "cuda" else "float32")

    def _facts(self) -> dict[str, str]:
        """Return what `repr` and notebooks show."""
        methods = [name for name in _METHODS[:-1] if name != "embed" or self._embeds]
        size = sum(p.numel() for p in self.network.parameters())
        return {
            "domain": self.domain.name,
            "checkpoint": self.checkpoint.path.name,
            "objective": type(self.objective).__name__,
            **(
                {"task": f"{self.checkpoint.scope} of {', '.join(self.tasks)}"}
                if self.tasks
                else {}
            ),
            "parameters": f"{size:,}",
            "device": str(self.device),
            "methods": ", ".join(sorted({*methods, *self.domain.methods})),
        }

    @property
    def _embeds(self) -> bool:
        return self.domain.embed is not None or "embed" in self.domain.methods

    def __repr__(self) -> str:
        facts = self._facts()
        return (
            f"Model({facts['domain']}, {facts['checkpoint']!r}, {facts['objective']}, "
            f"{facts['parameters']} parameters, {facts['device']})"
        )

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>"
            for k, v in self._facts().items()
        )
        return f"<table>{''.join(rows)}</table>"

    def __copy__(self) -> "Model":
        return self  # nothing changes a model; `fit` returns another

    def __deepcopy__(self, memo: Any) -> "Model":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the checkpoint's files themselves, so that the model opens on another machine."""
        folder = self.checkpoint.path
        files = {
            name: (folder / name).read_bytes()
            for name in ("checkpoint.json", *self.checkpoint.body["files"])
        }
        task = self.checkpoint.task
        return _model_from_files, (folder.name, files, str(self.device), self.batch, task)

    def __getattr__(self, name: str) -> Any:
        """Return a method that the domain adds (scan, generate, calculator, ...)."""
        if name.startswith("_") or "checkpoint" not in self.__dict__:
            raise AttributeError(name)
        methods = self.domain.methods
        if name not in methods:
            hint = did_you_mean(name, [*methods, *_METHODS])
            raise AttributeError(f"a model of {self.domain.name} has no method {name!r}; {hint}")
        # with the signature and the docstring of the function
        return types.MethodType(methods[name], self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.domain.methods})

    @property
    def inputs(self) -> Inputs:
        """How the domain reads users' own objects; raises ConfigError where it takes prepared
        data only.
        """
        if self.domain.inputs is None:
            raise ConfigError(
                f"the domain {self.domain.name} takes prepared data only; use prepare"
            )
        return self.domain.inputs.of(self)

    # On records and prepared data ------------------------------------------------------------

    def outputs(self, records: Iterable[Record]) -> dict[str, np.ndarray]:
        """Return the objective's outputs for records, first axis the record; labels are not needed.

        Raises:
            ConfigError: the checkpoint's objective predicts nothing (a pretraining checkpoint).
        """
        parts: dict[str, list[np.ndarray]] = {}
        with evaluation(self.network, self.objective), self.engine.autocast():
            for batch in self._batches(records):
                for name, value in self.objective.predict(self.network, batch).items():
                    parts.setdefault(name, []).append(as_array(value))
        if not parts:
            kind = type(self.objective).__name__
            raise ConfigError(
                f"{self.checkpoint.path} was trained for {kind}, which predicts no labels;"
                " fine-tune it first"
            )
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _batches(self, records: Iterable[Record]) -> Iterator[Any]:
        waiting: list[Any] = []
        for index, record in enumerate(records):
            plain = {k: v for k, v in record.items() if k not in ("label", "value")}
            rng = sampling.generator(0, sampling.EVALUATE, 0, index)
            waiting.append(self.objective.prepare(plain, self.codec, rng, training=False))
            if len(waiting) == self.batch:
                yield self.engine.move(self.codec.collate(waiting))
                waiting = []
        if waiting:
            yield self.engine.move(self.codec.collate(waiting))

    def evaluate(
        self,
        data: Any,
        targets: Any = None,
        *,
        split: str | None = None,
        input: str | None = None,
        target: str | Sequence[str] | None = None,
        seed: int = 0,
    ) -> Metrics:
        """Return loss and metrics on labelled data; says where the model was trained on some of
        them.

        Args:
            data: a dataset, a store or its folder; or natural inputs, or a DataFrame, with their
                labels.
            targets: the labels of natural inputs.
            split: of a dataset; None takes test, or all of natural inputs.
            input: the column of a DataFrame that holds the inputs.
            target: the column or columns of a DataFrame that hold the labels.
            seed: of the masks of a pretraining objective.

        Raises:
            ConfigError: the data are of another domain, or hold no record of the split.
        """
        dataset = as_dataset(
            data, targets, domain=self.domain.name, input=input, target=target, model=self
        )
        split = split or ("test" if is_prepared(data) else "train")  # natural inputs are one split
        records = self.objective.examples(dataset.store, split)
        if not len(records):
            raise ConfigError(f"{dataset.path} has no {split} records; choose another split")
        if message := seen_in_training(self.checkpoint, dataset.store, split):
            LOGGER.warning("%s: %s", dataset.path if is_prepared(data) else "inputs", message)
        size = self.batch
        return Metrics(
            evaluate(self.network, self.objective, self.codec, records, self.engine, seed, size)
        )

    # On users' own inputs --------------------------------------------------------------------

    def predict(
        self, inputs: Any, *, split: str = "test", input: str | None = None
    ) -> "pd.DataFrame":
        """Return a row of predictions for each input.

        Args:
            inputs: natural inputs of the domain (strings, ase.Atoms, SMILES or Mol, arrays,
                images); a Series or a DataFrame, whose index is kept; or a dataset.
            split: of a dataset.
            input: the column of a DataFrame that holds the inputs.

        Returns:
            A DataFrame; its columns are described in the domain's manual.

        Raises:
            ConfigError: the checkpoint predicts nothing; fine-tune it first.
            DataError: an input is bad; names it by its place.
        """
        import pandas as pd

        records, index = self._records(inputs, input, split)
        columns = self.inputs.columns(self, self.outputs(records))
        table = pd.DataFrame(columns)
        return table if index is None else table.set_index(index)

    def _records(
        self, inputs: Any, column: str | None = None, split: str = "test"
    ) -> "tuple[Sequence[Record], pd.Index | None]":
        """Return the records of inputs or of a split of a dataset, and the index of a Series or
        DataFrame.
        """
        if isinstance(inputs, Dataset | Store):
            store = inputs.store if isinstance(inputs, Dataset) else inputs
            if store.domain != self.domain.name:
                raise ConfigError(
                    f"the data are of the domain {store.domain}, the model of {self.domain.name}"
                )
            records: Any = self.objective.examples(store, split)
        else:
            records = self.inputs.records(
                split_table(inputs, None, self.domain.name, column).inputs
            )
        if not len(records):
            raise ConfigError("there are no inputs; give at least one")
        return records, getattr(inputs, "index", None) if hasattr(inputs, "iloc") else None

    def embed(
        self, inputs: Any, *, split: str = "test", input: str | None = None, **options: Any
    ) -> np.ndarray:
        """Return what the network makes of each input, float32 [N, D].

        Args:
            inputs: as for `predict`.
            split: of a dataset.
            input: the column of a DataFrame that holds the inputs.
            options: of the domain's embedding, where it has any.

        Raises:
            ConfigError: the domain has no embedding.
        """
        if "embed" in self.domain.methods:
            return self.domain.methods["embed"](self, inputs, **options)
        if self.domain.embed is None:
            raise ConfigError(f"the domain {self.domain.name} has no embedding; use predict")
        if options:
            raise ConfigError(
                f"embed has no option {next(iter(options))!r} for {self.domain.name}; leave it out"
            )
        (records, _), rows = self._records(inputs, input, split), []
        with torch.no_grad(), evaluation(self.network, self.objective), self.engine.autocast():
            for part in sampling.micro_batches(records, self.batch):
                batch = self.codec.collate([self.codec.encode(record) for record in part])
                state_BD = self.domain.embed(self.network, self.engine.move(batch))
                rows.append(state_BD.detach().float().cpu().numpy())
        return np.concatenate(rows)

    def fit(
        self,
        data: Any,
        targets: Any = None,
        *,
        input: str | None = None,
        target: str | Sequence[str] | None = None,
        split: str | Sequence[str] | None = None,
        group: str | Sequence[Any] | None = None,
        labels: int | None = None,
        recipe: str | None = None,
        calibrate: Calibrate = "auto",
        seed: int = 0,
        out: Path | str | None = None,
        verbose: bool = True,
        **settings: Any,
    ) -> "Model":
        """Specialise the model with labelled data and return the new model; this one stays as it
        is.

        Args:
            data: a dataset, a store or its folder; or natural inputs, or a DataFrame, with their
                labels.
            targets: the labels of natural inputs: an array, a Series, or a DataFrame of several
                targets.
            input: the column of a DataFrame that holds the inputs.
            target: the column or columns of a DataFrame that hold the labels.
            split: the column of a DataFrame, or the split of each input; None trains on all.
            group: the column of a DataFrame, or the group of each input (patient, laboratory):
                what is held out of training is held out by whole groups. None for none.
            labels: train on so many labelled records, classes balanced, chosen by `seed`; None for
                all.
            recipe: a named recipe of the domain (`model.domain.inputs.recipes`); None for the
                recommended one.
            calibrate: correct probabilities, or learn 90 % intervals of numbers, on held-out folds
                of the training labels, from 50 labels on: `auto`; for classes also `temperature` or
                `isotonic` by name; `none` does not.
            seed: of new weights, the order of records and the choice of labels.
            out: folder of the run; None for a temporary one, until `save`.
            verbose: print what was used and what was not.
            settings: fields of Run that replace those of the recipe: `schedule`, `finetuning`,
                `regularization`, ...

        Returns:
            The specialised Model.

        Raises:
            ConfigError: an unknown recipe or setting, or too few records.
            DataError: a record is bad; names it by its place.
        """
        from sciforge.core.training import calibrate as calibrating
        from sciforge.core.training.loop import train

        options: dict[str, Any] = {"domain": self.domain.name, "input": input, "target": target}
        options |= {"split": split, "group": group, "seed": seed}
        overrides = _run_fields(settings)
        dataset = as_dataset(data, targets, **options, model=self)
        if not len(dataset.split("train")):
            raise ConfigError(f"{dataset.path} has no training records; give labelled inputs")
        name, chosen = self._recipe(recipe)
        chosen_fields = {**chosen.settings(dataset.store, self.checkpoint, labels), **overrides}
        if labels is not None:
            chosen_fields["subset"] = Subset(labels, seed)
        folder = TemporaryFolder() if out is None else None
        place = Path(folder.name) / "run" if folder else Path(out or ".")
        run = Run(
            data=dataset.path, out=place, init=self.checkpoint.path, seed=seed, **chosen_fields
        )
        calibrating.require_calibration(run.objective, dataset.store, calibrate)
        if verbose:
            print(_fit_summary(dataset, run, name))
        with following_links(self.checkpoint.follow_links):
            trained = train(run)
            device = str(self.device)
            checkpoint, lines = calibrating.calibrate(trained, dataset.store, calibrate, device)
        if verbose and lines:
            print("\n".join(f"  {line}" for line in lines))
        return replace(Model.load(checkpoint.path, device, self.batch), folder=folder)

    def recommended(self, store: Store, recipe: str | None = None) -> Mapping[str, Any]:
        """Return the fields of Run that a recipe of the domain, or the recommended one, sets for
        a prepared store.
        """
        return self._recipe(recipe)[1].settings(store, self.checkpoint)

    def _recipe(self, name: str | None) -> tuple[str, FitRecipe]:
        recipes = self.inputs.recipes
        if not recipes:
            raise ConfigError(f"the domain {self.domain.name} names no recipe; train with a Run")
        name = next(iter(recipes)) if name is None else name
        if name not in recipes:
            raise ConfigError(
                f"no recipe {name!r} in {self.domain.name}; {did_you_mean(name, recipes)}"
            )
        return name, recipes[name]

    def save(self, folder: Path | str) -> Path:
        """Copy the checkpoint to a folder, which appears whole or not at all;
        `sciforge.load(folder)` opens it.

        Raises:
            ConfigError: the folder exists already.
            DataError: the disk is full or may not be written.
        """
        return copy_folder(self.checkpoint.path, Path(folder))

    # On itself -------------------------------------------------------------------------------

    def check(self, seed: int = 0) -> CheckResult:
        """Run the domain's laws on this very model, in float64.

        Args:
            seed: of the random inputs that the laws are tried on.

        Raises:
            CheckpointError: the domain states no laws.
        """
        if not self.domain.laws:
            raise CheckpointError(f"the domain {self.domain.name} states no laws")
        model = self.checkpoint.build().double().to(self.device)
        results = []
        for number, (name, law) in enumerate(self.domain.laws.items()):
            violation, tolerance = law(
                model, self.codec, sampling.generator(seed, sampling.EVALUATE, 1, number)
            )
            summary = first_paragraph(law.__doc__ or name)
            results.append(LawResult(name, summary, float(violation), float(tolerance)))
        return CheckResult(results)


def _model_from_files(
    name: str, files: Mapping[str, bytes], device: str, batch: int, task: str | None = None
) -> Model:
    """Return the model whose checkpoint has these files, on the CPU where there is no such
    device.
    """
    folder = TemporaryFolder()
    place = Path(folder.name) / name
    for relative, content in files.items():
        (place / relative).parent.mkdir(parents=True, exist_ok=True)
        (place / relative).write_bytes(content)
    device = device if device == "cpu" or torch.cuda.is_available() else "cpu"
    return replace(Model.load(place, device, batch, task=task), folder=folder)


def _run_fields(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings; raises ConfigError where one is no field of Run, or one that `fit`
    sets itself.
    """
    known = {f.name for f in fields(Run)} - {
        "data",
        "out",
        "tasks",
        "init",
        "model",
        "codec",
        "subset",
        "seed",
    }
    for name in settings:
        if name == "subset":
            raise ConfigError("fit has no setting 'subset'; give labels=N")
        if name not in known:
            raise ConfigError(
                f"fit has no setting {name!r};"
                f" {did_you_mean(name, {*known, 'labels', 'recipe', 'out'})}"
            )
    return settings


def _fit_summary(dataset: Dataset, run: Run, recipe: str) -> str:
    """Return what `fit` prints: records used and not, the recipe, and how long it trains."""
    train = len(dataset.split("train"))
    used = f"{run.subset.count} of {train}" if run.subset else f"{train}"
    others = [
        f"{len(dataset.split(name))} {name}"
        for name in ("validation", "test")
        if len(dataset.split(name))
    ]
    lines = [
        f"fit: {used} training records"
        + (f" ({', '.join(others)} not trained on)" if others else "")
    ]
    what, steps = type(run.objective).__name__, run.schedule.steps
    lines.append(
        f"  recipe {recipe}: {what}, {steps} step{'s' * (steps != 1)} of {run.schedule.batch},"
        f" {type(run.finetuning).__name__}"
    )
    return "\n".join([*lines, *(f"  {note}" for note in dataset.describe()[1:])])
