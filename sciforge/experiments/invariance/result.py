"""What an invariance report says of a domain's augmentations: shifts, label information, a verdict; as table and JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sciforge.core.files.tables import Table
from sciforge.experiments.invariance.label_probe import Explained, lost
from sciforge.experiments.label_efficiency.result import Interval, figure

ROUNDING = 1e-6  # relative shift in float64 below which an embedding has not moved
PARTS = ("nuisance", "nuisance_after", "embedding", "embedding_after")


@dataclass(frozen=True)
class LabelInformation:
    """What a linear reader finds of one label, in records as they are and as the augmentation draws them."""

    label: str
    records: int
    nuisance: Explained
    nuisance_after: Explained
    embedding: Explained
    embedding_after: Explained

    @property
    def carried(self) -> bool:
        """Whether what is scrambled says anything of the label."""
        return self.nuisance.informative

    @property
    def erased(self) -> bool:
        """Whether the augmentation takes the label away: nothing is left, or less than half of what the nuisance shared in.

        Judged by the better of nuisance and embedding, before and after. A reader of the embedding alone may find both
        strands harder to read than one; that is no loss of the label as long as it stays beyond chance.
        """
        before = max(self.nuisance, self.embedding, key=lambda e: e.value)
        after = max(self.nuisance_after, self.embedding_after, key=lambda e: e.value)
        shared = self.nuisance.informative and after.value < before.value / 2
        return before.informative and (shared or not after.informative) and lost(before, after)[0] > 0


@dataclass(frozen=True)
class AugmentationFigures:
    """What one augmentation does.

    Args:
        name, summary: which.
        changed: how many records a draw of it changes.
        shift: median distance that a change moves the embedding, in median distances between two records.
        prediction: output -> the same of what the checkpoint predicts, for outputs of one shape.
        labels: one entry a label.
    """

    name: str
    summary: str
    changed: int
    shift: Interval
    prediction: Mapping[str, Interval]
    labels: tuple[LabelInformation, ...]

    def verdict(self, label: LabelInformation | None = None) -> str:
        """Return the worst that can be said: erases the label, carries label information, moves, or invariant."""
        if label is not None and label.erased:
            return "erases the label"
        if label is not None and label.carried:
            return "carries label information"
        return "moves" if self.shift.value > ROUNDING else "invariant"

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each label that it erases."""
        return tuple(erased_line(self.name, x.label, x.nuisance, x.embedding) for x in self.labels if x.erased)


@dataclass(frozen=True)
class InvarianceResult:
    """All augmentations of a checkpoint's domain on some records."""

    metrics: tuple[AugmentationFigures, ...]
    records: int
    split: str
    note: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each label that an augmentation erases."""
        return tuple(line for found in self.metrics for line in found.warnings)

    def table(self) -> Table:
        """Return one row for each augmentation and label."""
        rows = []
        for found in self.metrics:
            moved = max(found.prediction.values(), key=lambda i: i.value, default=None)
            start = (found.name, _text(found.shift), "" if moved is None else _text(moved))
            for label in found.labels or (None,):
                rows.append((*start, *_cells(label), found.verdict(label)))
        head = (
            "augmentation",
            "embedding shift",
            "prediction shift",
            "label",
            "in nuisance",
            "chance",
            "in nuisance after",
        )
        return Table((*head, "in embedding", "in embedding after", "verdict"), tuple(rows), self._note())

    def _note(self) -> str:
        lines = [
            f"{self.records} {self.split} records. Shifts: median change, in median distances between two records [95 % interval].",
            "Label columns: cross-validated share of the label that a linear reader explains [95 % interval]; chance is what "
            "97.5 % of permuted labels stay below; after: on records as the augmentation draws them.",
        ]
        return "\n".join(
            [*lines, *([self.note] if self.note else []), *(f"Warning: {line}." for line in self.warnings)]
        )

    def to_json(self) -> dict[str, Any]:
        """Return every figure."""
        rows = []
        for found in self.metrics:
            labels = [
                {"label": x.label, "records": x.records, "verdict": found.verdict(x)}
                | {part: _plain(getattr(x, part)) for part in PARTS}
                for x in found.labels
            ]
            moved = {name: vars(interval) for name, interval in found.prediction.items()}
            row = {"augmentation": found.name, "summary": found.summary, "changed": found.changed}
            row |= {"shift": vars(found.shift), "prediction": moved, "labels": labels}
            rows.append(row | ({} if labels else {"verdict": found.verdict()}))
        head = {"records": self.records, "split": self.split, "note": self.note}
        return {**head, "augmentations": rows, "warnings": list(self.warnings)}


def erased_line(name: str, label: str, nuisance: Explained, embedding: Explained | None = None) -> str:
    """Return the warning of one label, without a full stop."""
    said = f"what {name} scrambles explains {figure(nuisance.value)} of {label!r}"
    if embedding is not None and not nuisance.informative:
        said = f"the embedding explains {figure(embedding.value)} of {label!r}"
    return f"{said}, and the augmentation removes it: training with {name} erases this label"


def _cells(label: LabelInformation | None) -> tuple[str, ...]:
    if label is None:
        return ("",) * 6
    parts = [getattr(label, part) for part in PARTS]
    told, after, embedded, embedded_after = (Interval(p.value, p.low, p.high).text() for p in parts)
    return (label.label, told, figure(label.nuisance.chance), after, embedded, embedded_after)


def _text(shift: Interval) -> str:
    return f"{shift.value:.1e}" if 0 < shift.value < 5e-3 else shift.text()


def _plain(found: Explained) -> dict[str, float]:
    return {name: getattr(found, name) for name in ("value", "low", "high", "chance")}
