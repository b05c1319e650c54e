"""What a molecule encoder learns from labels: numbers and yes-or-no properties, several at once,
with gaps.

Legend of shape letters: B batch, N molecules, K tasks, P descriptors, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.data.store import Rows
from sciforge.core.domain import (
    Batch,
    Categorical,
    Example,
    Gaussian,
    Likelihood,
    Loss,
    Objective,
    Record,
    widened,
)
from sciforge.core.learners.calibration import probability_metrics
from sciforge.core.learners.metrics import classification_metrics, regression_metrics
from sciforge.core.training.evaluation import batches, evaluation
from sciforge.core.transfers import constant, host_view, places
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.molecules.chemistry.descriptors import descriptor_names
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.data.finalization import scales
from sciforge.molecules.model.heads import READERS, PropertyHead
from sciforge.molecules.objectives.self_supervised import (
    HEAD,
    DescriptorHead,
    PredictDescriptors,
    descriptors_of,
    pooled,
)

SUPPORT = 1024
Reader = Literal["linear", "kernel", "said", "forest"]


class Labelled(Rows):
    """Molecules with some of the label columns of their store, in the order of an objective's
    tasks.

    Few of them are drawn at random, as the metrics of the field are, not balanced by class.
    """

    def __init__(self, store: Any, indices: np.ndarray, places: Sequence[int]) -> None:
        super().__init__(store, indices)
        self.places = list(places)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = super().__getitem__(i)
        return {**record, "label": record["label"][self.places]}

    def column(self, name: str) -> Any:
        """Return a column over these molecules; of the labels the chosen ones [N, K]."""
        values = super().column(name)
        return values[:, self.places] if name == "label" else values

    def labels(self) -> np.ndarray:
        """Return zeros: all molecules are of one class to the draw."""
        return np.zeros(len(self))

    def take(self, places: np.ndarray) -> "Labelled":
        """Return the molecules at these places."""
        return Labelled(self.store, self.indices[places], self.places)


@dataclass(frozen=True)
class Properties(Objective):
    """Numbers and yes-or-no properties of a molecule, each column of labels a task; a missing label
    counts for nothing.

    The head is solved on the training labels before the first step, from the encoder's states and
    from RDKit's descriptors, which are computed where they are not stored. Descent then moves the
    encoder and the linear reader.

    Args:
        tasks: names of the label columns; empty takes all of the data.
        yes_no: of each task, whether its labels are 0 and 1.
        means, stds: of the numbers over the training labels; 0 and 1 for yes-or-no tasks.
        readers: which parts of the head to use (heads.PropertyHead); for numbers the forest joins
            from 300 labels on, and `said` is used only where the checkpoint has learnt descriptors.
        descriptor_weight: weight of the error of the descriptors that the encoder says, which keeps
            it able to say them.
        molecules: the most training molecules; 0 takes their number from the data.
        warm_start: solve the head before the first step.
    """

    tasks: tuple[str, ...] = ()
    yes_no: tuple[bool, ...] = ()
    means: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()
    readers: tuple[Reader, ...] = READERS
    descriptor_weight: float = 1.0
    molecules: int = 0
    warm_start: bool = True

    metric: ClassVar[str] = "error"
    fresh: ClassVar[tuple[str, ...]] = ("properties",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.readers or set(self.readers) - set(READERS):
            raise ConfigError(f"readers are {self.readers}; choose among {', '.join(READERS)}")

    def resolve(self, store: Any) -> Self:
        """Take tasks and their statistics from the store.

        Raises:
            DataError: it has no labels, not the tasks asked for, or descriptors of another RDKit
                release.
        """
        labels = {entry["name"]: entry for entry in store.meta.get("labels", [])}
        if not labels:
            raise DataError("no labels in this store; prepare it with --labels", store.path)
        tasks = self.tasks or tuple(labels)
        for name in tasks:
            if name not in labels:
                raise DataError(
                    f"no labels {name!r} in this store; {did_you_mean(name, labels)}", store.path
                )
        if (
            tuple(store.meta.get("descriptors", {}).get("names", descriptor_names()))
            != descriptor_names()
        ):
            raise DataError(
                "its descriptors are of another RDKit release; prepare it again", store.path
            )
        if self.yes_no:  # a trained objective keeps its own statistics
            return self
        if empty := [name for name in tasks if not labels[name]["count"]]:
            raise DataError(
                f"no training molecule has a label {empty[0]!r}; leave it out or split otherwise",
                store.path,
            )
        yes_no = tuple(bool(labels[name]["binary"]) for name in tasks)
        means = tuple(0.0 if labels[name]["binary"] else labels[name]["mean"] for name in tasks)
        stds = tuple(1.0 if labels[name]["binary"] else labels[name]["std"] for name in tasks)
        num = self.molecules or len(store.split("train"))
        return replace(self, tasks=tasks, yes_no=yes_no, means=means, stds=stds, molecules=num)

    def attach(self, model: nn.Module) -> None:
        """Add the head, and the descriptor head that it reads."""
        if HEAD not in model.heads:
            model.heads[HEAD] = DescriptorHead(model.width, len(descriptor_names()))
        model.heads["properties"] = PropertyHead(
            model.width, self.yes_no, self.molecules, len(descriptor_names()), SUPPORT
        )

    def examples(self, store: Any, split: str) -> Sequence[Record]:
        """Return the molecules of a split, their labels in the order of `tasks`."""
        known = [entry["name"] for entry in store.meta.get("labels", [])]
        if missing := [task for task in self.tasks if task not in known]:
            raise DataError(
                f"no labels {missing[0]!r} in this store; {did_you_mean(missing[0], known)}",
                store.path,
            )
        return Labelled(
            store, store.split(split).indices, [known.index(task) for task in self.tasks]
        )

    def start(
        self,
        model: nn.Module,
        codec: MoleculeCodec,
        records: Sequence[Record],
        engine: Any,
        seed: int,
        parent: Any,
    ) -> Mapping[str, Any] | None:
        """Solve the head on the training records, unless the parent learnt this very objective."""
        if not self.warm_start or (parent is not None and self in parent.objectives):
            return None
        head = model.heads["properties"]
        self._set_scales(head, records, parent)
        encoded, computed = [], []
        with evaluation(model, self):
            for batch in batches(self, codec, records, range(len(records)), 0, 64):
                batch = engine.move(batch)
                encoded.append(encode(model, batch).cpu().numpy())
                computed.append(bent(head, batch).cpu().numpy())
        label_NK = (self.known_labels(records) - np.array(self.means)) / np.array(self.stds)
        pretrained = parent is not None and any(
            isinstance(o, PredictDescriptors | Properties) for o in parent.objectives
        )
        readers = (
            self.readers
            if pretrained
            else tuple(name for name in self.readers if name != "said") or ("linear",)
        )
        return head.solve(
            np.concatenate(encoded), np.concatenate(computed), label_NK, readers, seed
        )

    def _set_scales(self, head: PropertyHead, records: Sequence[Record], parent: Any) -> None:
        """Take the scales of descriptors from the pretraining set, which is larger, else from
        the training molecules.
        """
        known = [
            o
            for o in (parent.objectives if parent is not None else ())
            if isinstance(o, PredictDescriptors)
        ]
        if known:
            if known[0].names != descriptor_names():
                raise ConfigError(
                    f"{parent.path} learnt the descriptors of another RDKit release; pretrain it"
                    " again"
                )
            statistics = {
                name: getattr(known[0], name) for name in ("centre", "width", "mean", "std")
            }
        elif parent is not None and any(isinstance(o, Properties) for o in parent.objectives):
            weights = parent.weights()
            for name in ("centre_P", "width_P", "mean_P", "std_P"):
                getattr(head, name).copy_(weights[f"heads.properties.{name}"])
            return
        else:
            statistics = scales(np.stack([descriptors_of(record) for record in records]))
        for name in ("centre", "width", "mean", "std"):
            getattr(head, f"{name}_P").copy_(torch.tensor(statistics[name]))

    def known_labels(self, records: Sequence[Record]) -> np.ndarray:
        """Return labels float64 [N, K] in the order of `tasks`, NaN where missing."""
        return np.asarray(records.column("label"), np.float64)

    def prepare(
        self, record: Record, codec: MoleculeCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a molecule, its descriptors and its labels."""
        example = codec.encode(record)
        example["descriptors"] = torch.from_numpy(np.array(descriptors_of(record), np.float32))
        if (label := record.get("label")) is not None:
            example["label"] = torch.from_numpy(np.array(label, np.float32))
        return example

    def _targets(self, batch: Batch) -> Tensor:
        """Return labels [B, K] in units of std, NaN where missing."""
        label_BK = batch["label"]
        return (label_BK - constant(self.means, label_BK.device, label_BK.dtype)) / constant(
            self.stds, label_BK.device, label_BK.dtype
        )

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return half the squared errors of numbers and the cross-entropies of classes, summed over
        known labels.

        In training, added for each molecule with a label: `descriptor_weight` times half the mean
        squared error of its descriptors.
        """
        head, encoded_BF, target_BK = (
            model.heads["properties"],
            encode(model, batch),
            self._targets(batch),
        )
        scores_BK = (
            head.linear(encoded_BF) if model.training else head(encoded_BF, bent(head, batch))[0]
        )
        known_BK, target_BK = target_BK.isfinite(), target_BK.nan_to_num()
        class_K = constant(self.yes_no, target_BK.device)
        nats_BK = F.binary_cross_entropy_with_logits(
            scores_BK, target_BK.clamp(0, 1), reduction="none"
        )
        each_BK = torch.where(class_K, nats_BK, 0.5 * (scores_BK - target_BK) ** 2)
        total, count = torch.where(known_BK, each_BK, 0.0).sum(), known_BK.sum()
        if model.training and self.descriptor_weight:
            computed_BP = bent(head, batch)
            away_B = 0.5 * ((encoded_BF[:, : computed_BP.shape[1]] - computed_BP) ** 2).mean(1)
            labelled_B = host_view(batch["label"]).isfinite().any(1)
            total = total + self.descriptor_weight * away_B[places(labelled_B, away_B.device)].sum()
        return Loss(total, count)

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return what the linear reader says of known labels: classes where all tasks are, else
        numbers of unit std.
        """
        scores_BK, target_BK = (
            model.heads["properties"].linear(encode(model, batch)),
            self._targets(batch),
        )
        known_BK = target_BK.isfinite()
        if all(self.yes_no):
            logits_N2 = torch.stack([torch.zeros_like(scores_BK), scores_BK], -1)[known_BK]
            return Categorical(logits_N2, target_BK[known_BK].round().long())
        # among numbers a class counts by its slope at even odds: a logit of std 2
        std_BK = torch.where(constant(self.yes_no, scores_BK.device), 2.0, 1.0).expand_as(scores_BK)
        target_BK = torch.where(std_BK > 1, 4 * target_BK - 2, target_BK)
        return Gaussian(scores_BK[known_BK], std_BK[known_BK], target_BK[known_BK])

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return `value` [B, K] (numbers in the labels' unit, or probabilities of yes) and `std`
        [B, K] (0 for classes).
        """
        head = model.heads["properties"]
        scores_BK, std_BK = head(encode(model, batch), bent(head, batch))
        class_K = constant(self.yes_no, scores_BK.device)
        mean_K, unit_K = (
            constant(self.means, scores_BK.device, scores_BK.dtype),
            constant(self.stds, scores_BK.device, scores_BK.dtype),
        )
        value_BK = torch.where(class_K, scores_BK.sigmoid(), scores_BK * unit_K + mean_K)
        return {"value": value_BK, "std": torch.where(class_K, 0.0, std_BK * unit_K)}

    def metrics(
        self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]
    ) -> dict[str, float]:
        """Return metrics of every task and their means: rmse, mae, r2, coverage of 90 % intervals;
        auroc, mcc, and ece and brier of 50 labels or more.

        `error` is the mean over tasks of the RMSE in stds of the labels, or 1 - AUROC. With several
        tasks each figure comes by task too, as NAME/rmse.
        """
        label_NK = self.known_labels(records)
        by_metric: dict[str, list[float]] = {}
        by_task: dict[str, float] = {}
        for k, name in enumerate(self.tasks):
            rows = np.isfinite(label_NK[:, k])
            if not rows.any():
                continue
            metrics = self._metrics(
                k, label_NK[rows, k], outputs["value"][rows, k], outputs.get("std", None), rows
            )
            for figure, value in metrics.items():
                by_metric.setdefault(figure, []).append(value)
                by_task[f"{name}/{figure}"] = value
        means = {figure: float(np.mean(values)) for figure, values in by_metric.items()}
        return means | (by_task if len(self.tasks) > 1 else {})

    def _metrics(
        self,
        k: int,
        label_N: np.ndarray,
        value_N: np.ndarray,
        std_NK: np.ndarray | None,
        rows: np.ndarray,
    ) -> dict[str, float]:
        """Return the metrics of one task."""
        if self.yes_no[k]:
            both = label_N.astype(int), np.stack([1 - value_N, value_N], 1)
            metrics = classification_metrics(*both) | probability_metrics(*both)
            return metrics | {"error": 1 - metrics.get("auroc", 0.5)}
        metrics = regression_metrics(label_N, value_N.astype(np.float64))
        if std_NK is not None:
            inside_N = np.abs(value_N - label_N) <= 1.645 * std_NK[rows, k]
            metrics["coverage90"] = float(inside_N.mean())
        return metrics | {"error": metrics["rmse"] / self.stds[k]}


def encode(model: nn.Module, batch: Batch) -> Tensor:
    """Return what the head reads of the encoder: said descriptors, the layer below them, pooled
    states [B, F].
    """
    pooled_BF = pooled(model(batch), batch)
    head: DescriptorHead = model.heads[HEAD]
    hidden_BH = head.hidden(pooled_BF)
    return torch.cat([widened(part) for part in (head.outer(hidden_BH), hidden_BH, pooled_BF)], 1)


def bent(head: PropertyHead, batch: Batch) -> Tensor:
    """Return the computed descriptors in units of std [B, P], 0 where unknown."""
    x_BP = batch["descriptors"]
    x_BP = (torch.asinh((x_BP - head.centre_P) / head.width_P) - head.mean_P) / torch.where(
        head.std_P > 0, head.std_P, 1.0
    )
    return torch.where(head.std_P > 0, x_BP.nan_to_num(), 0.0).clamp(-6, 6)
