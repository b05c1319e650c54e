"""What an invariance report says of a domain's augmentations: shifts, label information, a
verdict; as table and JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciforge.core.files.tables import Table
from sciforge.experiments.invariance.label_probe import Explained, lost
from sciforge.experiments.results import ExperimentResult
from sciforge.experiments.statistics import Interval, decimal

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 1e-6  # relative shift in float64 below which an embedding has not moved
PARTS = ("nuisance", "nuisance_after", "embedding", "embedding_after")


@dataclass(frozen=True)
class LabelInformation:
    """What a linear probe explains of one label, in records as they are and as the augmentation
    draws them.
    """

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
        """Whether the augmentation takes the label away: nothing is left, or less than half of what
        the nuisance shared in.

        By the better of nuisance and embedding, before and after. A probe of the embedding alone
        may find both strands harder than one; that is no loss of the label as long as it stays
        beyond chance.
        """
        before = max(self.nuisance, self.embedding, key=lambda e: e.value)
        after = max(self.nuisance_after, self.embedding_after, key=lambda e: e.value)
        shared = self.nuisance.informative and after.value < before.value / 2
        return (
            before.informative and (shared or not after.informative) and lost(before, after)[0] > 0
        )


@dataclass(frozen=True)
class AugmentationEffect:
    """What one augmentation does.

    Args:
        name, summary: which.
        changed: how many records a draw of it changes.
        shift: median distance that a change moves the embedding, in median distances between two
            records.
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
        """Return the worst that can be said: erases the label, carries label information, moves,
        or invariant.
        """
        if label is not None and label.erased:
            return "erases the label"
        if label is not None and label.carried:
            return "carries label information"
        return "moves" if self.shift.value > ROUNDING else "invariant"

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each label that it erases."""
        return tuple(
            erased_line(self.name, x.label, x.nuisance, x.embedding)
            for x in self.labels
            if x.erased
        )


@dataclass(frozen=True, repr=False)
class InvarianceResult(ExperimentResult):
    """All augmentations of a checkpoint's domain on some records.

    Args:
        effects: of each augmentation.
        records, split: which records.
        note: what could not be measured.
    """

    name = "invariance"

    effects: tuple[AugmentationEffect, ...]
    records: int
    split: str
    note: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each label that an augmentation erases."""
        return tuple(line for effect in self.effects for line in effect.warnings)

    def table(self) -> Table:
        """Return one row for each augmentation and label."""
        rows = []
        for effect in self.effects:
            moved = max(effect.prediction.values(), key=lambda i: i.value, default=None)
            start = (effect.name, _text(effect.shift), "" if moved is None else _text(moved))
            for label in effect.labels or (None,):
                rows.append((*start, *_cells(label), effect.verdict(label)))
        head = (
            "augmentation",
            "embedding shift",
            "prediction shift",
            "label",
            "in nuisance",
            "chance",
            "in nuisance after",
        )
        return Table(
            (*head, "in embedding", "in embedding after", "verdict"), tuple(rows), self._note()
        )

    def _note(self) -> str:
        lines = [
            (
                f"{self.records} {self.split} records. Shifts: median change, in median distances"
                " between two records [95 % interval]."
            ),
            (
                "Label columns: cross-validated share of the label that a linear probe explains [95"
                " % interval]; chance is what 97.5 % of permuted labels stay below; after: on"
                " records as the augmentation draws them."
            ),
        ]
        return "\n".join(
            [
                *lines,
                *([self.note] if self.note else []),
                *(f"Warning: {line}." for line in self.warnings),
            ]
        )

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row an augmentation and label: shift, shares of the label, verdict."""
        import pandas as pd

        rows = []
        for effect in self.effects:
            about = {
                "augmentation": effect.name,
                "changed": effect.changed,
                **effect.shift.columns("shift"),
            }
            for label in effect.labels or (None,):
                row = {
                    **about,
                    "label": label.label if label else None,
                    "verdict": effect.verdict(label),
                }
                for part in PARTS if label else ():
                    numbers = _numbers(getattr(label, part))
                    row |= {
                        f"{part}_{name}" if name != "value" else part: x
                        for name, x in numbers.items()
                    }
                rows.append(row)
        return pd.DataFrame(rows)

    @property
    def panels(self) -> tuple[Any, ...]:
        """The shifts and the label information."""
        return (
            (self.plot, self.plot_labels)
            if any(effect.labels for effect in self.effects)
            else (self.plot,)
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw how far each augmentation moves the embedding, and return the axes."""
        from sciforge.experiments.invariance.plot import draw_shifts

        return draw_shifts(self, ax)

    def plot_labels(self, ax: Any = None) -> Any:
        """Draw the share of each label that a linear probe explains, before and after, and
        return the axes.
        """
        from sciforge.experiments.invariance.plot import draw_labels

        return draw_labels(self, ax)

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        rows = []
        for effect in self.effects:
            labels = [
                {"label": x.label, "records": x.records, "verdict": effect.verdict(x)}
                | {part: _numbers(getattr(x, part)) for part in PARTS}
                for x in effect.labels
            ]
            moved = {name: vars(interval) for name, interval in effect.prediction.items()}
            row = {
                "augmentation": effect.name,
                "summary": effect.summary,
                "changed": effect.changed,
            }
            row |= {"shift": vars(effect.shift), "prediction": moved, "labels": labels}
            rows.append(row | ({} if labels else {"verdict": effect.verdict()}))
        head = {"records": self.records, "split": self.split, "note": self.note}
        return {**head, "augmentations": rows, "warnings": list(self.warnings)}


def erased_line(
    name: str, label: str, nuisance: Explained, embedding: Explained | None = None
) -> str:
    """Return the warning of one label, without a full stop."""
    reason = f"what {name} scrambles explains {decimal(nuisance.value)} of {label!r}"
    if embedding is not None and not nuisance.informative:
        reason = f"the embedding explains {decimal(embedding.value)} of {label!r}"
    return f"{reason}, and the augmentation removes it: training with {name} erases this label"


def _cells(label: LabelInformation | None) -> tuple[str, ...]:
    if label is None:
        return ("",) * 6
    parts = [getattr(label, part) for part in PARTS]
    nuisance, after, embedded, embedded_after = (
        Interval(p.value, p.low, p.high).text() for p in parts
    )
    return (label.label, nuisance, decimal(label.nuisance.chance), after, embedded, embedded_after)


def _text(shift: Interval) -> str:
    return f"{shift.value:.1e}" if 0 < shift.value < 5e-3 else shift.text()


def _numbers(explained: Explained) -> dict[str, float]:
    return {name: getattr(explained, name) for name in ("value", "low", "high", "chance")}
