"""ROC curves of a classifier, and how the scores of two classes lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sciforge.core.data.dataset import Dataset
from sciforge.core.data.store import Store
from sciforge.core.files.output_files import about, whole_files
from sciforge.core.files.results import Result, new_axes, write_table
from sciforge.core.files.settings import Settings
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.text.inference.reading import need, predict_sorted
from sciforge.text.objectives.document_labels import ClassifyDocuments

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

DRAWS = 1000  # of the bootstrap
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"


@dataclass(frozen=True)
class Roc:
    """A ROC curve (false and true positive rates by falling threshold) and its area with a 95 %
    bootstrap interval.
    """

    false_T: np.ndarray
    true_T: np.ndarray
    threshold_T: np.ndarray
    auc: float
    low: float
    high: float


def roc(positive_N: np.ndarray, score_N: np.ndarray, seed: int = 0) -> Roc:
    """Return the ROC curve of scores; documents are redrawn within each class for the interval.

    Args:
        positive_N: bool.
        score_N: higher is more likely positive.
        seed: of the bootstrap.

    Raises:
        DataError: a class has no document.

    >>> roc(np.array([False, True, False, True]), np.array([0.1, 0.4, 0.35, 0.8])).auc
    1.0
    """
    from sklearn.metrics import roc_curve

    if not positive_N.any() or positive_N.all():
        raise DataError("a ROC curve needs documents of both classes; give labelled data of both")
    false_T, true_T, threshold_T = roc_curve(positive_N, score_N)
    rng = np.random.default_rng(seed)
    yes, no = np.sort(score_N[positive_N]), np.sort(score_N[~positive_N])
    drawn = [
        area(rng.choice(yes, len(yes)), np.sort(rng.choice(no, len(no)))) for _ in range(DRAWS)
    ]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Roc(false_T, true_T, threshold_T, area(yes, no), float(low), float(high))


def area(positive_N: np.ndarray, negative_M: np.ndarray) -> float:
    """Return the share of pairs in which the positive has the higher score, ties as half; negatives
    are sorted.

    >>> area(np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    0.625
    """
    below = np.searchsorted(negative_M, positive_N, side="left") + np.searchsorted(
        negative_M, positive_N, side="right"
    )
    return float(below.mean() / 2 / len(negative_M))


class RocResult(Result):
    """A ROC curve with its area, and the scores that it is of.

    Args:
        curve: the curve.
        scores: name, label and probability of every document.
        positive: the class that is looked for.
        other: what the rest is called.
        about: where they come from, as JSON values.
    """

    def __init__(
        self,
        curve: Roc,
        scores: "pd.DataFrame",
        positive: str,
        other: str,
        about: Mapping[str, Any],
    ) -> None:
        self.curve, self.scores, self.positive, self.other, self._about = (
            curve,
            scores,
            positive,
            other,
            dict(about),
        )

    @property
    def about(self) -> dict[str, Any]:
        """Where the result comes from, with the area and its 95 % interval."""
        return self._about | {"auc": self.curve.auc, "auc_95": [self.curve.low, self.curve.high]}

    def to_pandas(self) -> "pd.DataFrame":
        """Return the points of the curve: false_positive_rate, true_positive_rate, threshold."""
        import pandas as pd

        points = {
            "false_positive_rate": self.curve.false_T,
            "true_positive_rate": self.curve.true_T,
        }
        return pd.DataFrame({**points, "threshold": self.curve.threshold_T})

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the curve, its area and the 95 % interval of the area."""
        ax = new_axes(4.2, 4.0) if ax is None else ax
        draw_curve(ax, self.curve)
        return ax

    def plot_scores(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the distributions of the scores of both classes."""
        ax = new_axes(5.4, 4.0) if ax is None else ax
        positive_N = (self.scores["label"] == self.positive).to_numpy()
        draw_scores(
            ax, positive_N, self.scores["probability"].to_numpy(), (self.other, self.positive)
        )
        return ax

    def save(self, path: Path | str) -> Path:
        """Write curve and distributions as .png, with NAME.roc.csv and NAME.scores.csv; or the
        curve's points as .csv or .tsv.

        Raises:
            ConfigError: another suffix, or the path is a folder.
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            return super().save(path)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
        self.plot(left)
        self.plot_scores(right)
        with whole_files(path, binary=True) as (picture,):
            figure.savefig(picture, dpi=150, format="png")
            write_table(path.with_suffix(".roc.csv"), self.to_pandas(), self.about)
            write_table(path.with_suffix(".scores.csv"), self.scores, self.about)
        return path


@dataclass(frozen=True, kw_only=True)
class RocCurve(Settings):
    """ROC curve with AUC and the score distributions of the two classes on labelled documents.

    Saved as NAME.png, with NAME.scores.csv (name, label, probability) and NAME.roc.csv (the curve's
    points) beside it.

    Args:
        data: a prepared store with labels.
        split: whose documents; those trained on would flatter.
        positive: the class that is looked for; empty takes the second one.
    """

    data: Path
    split: Literal["train", "validation", "test"] = "test"
    positive: str = ""

    def run(self, model: Model) -> RocResult:
        """Return the curve and the scores.

        Raises:
            ConfigError: the checkpoint or the data have no such classes, or the split is empty.
            DataError: a class has no document.
        """
        return roc_of(model, Store.open(self.data), self.split, self.positive, about(self, model))


def roc_curve_of(
    model: Model,
    data: "Dataset | Store | Path | str",
    *,
    split: Literal["train", "validation", "test"] = "test",
    positive: str = "",
) -> RocResult:
    """Return the ROC curve of a model on labelled documents.

    Args:
        model: trained to classify documents.
        data: a dataset, a store or its folder.
        split: whose documents; those trained on would flatter.
        positive: the class that is looked for; empty takes the second one.

    Raises:
        ConfigError: the model or the data have no such classes, or the split is empty.
        DataError: a class has no document.
    """
    store = (
        data.store
        if isinstance(data, Dataset)
        else data
        if isinstance(data, Store)
        else Store.open(Path(data))
    )
    options = {"data": str(store.path), "split": split, "positive": positive}
    return roc_of(model, store, split, positive, about(options, model))


def roc_of(
    model: Model, store: Store, split: str, positive: str, facts: Mapping[str, Any]
) -> RocResult:
    """Return the ROC curve of a model on a split of a store."""
    import pandas as pd

    objective = need(model, ClassifyDocuments, "classes of documents")
    classes = objective.classes
    if not positive and len(classes) != 2:
        raise ConfigError(f"there are {len(classes)} classes; name one with --positive")
    positive = positive or classes[1]
    if positive not in classes:
        raise ConfigError(
            f"positive is {positive!r}, no class of the checkpoint;"
            f" {did_you_mean(positive, classes)}"
        )
    if store.domain != model.domain.name:
        raise ConfigError(
            f"{store.path} is of the domain {store.domain}, the checkpoint of {model.domain.name}"
        )
    rows = objective.examples(store, split)
    if not len(rows):
        raise ConfigError(f"{store.path} has no {split} documents; choose another --split")
    records = [rows[i] for i in range(len(rows))]
    if "label" not in records[0]:
        raise ConfigError(f"{store.path} has no labels; prepare it with --label-column")
    p_N = predict_sorted(model, records)["probability"][:, classes.index(positive)].astype(float)
    label_N = [record["label"] for record in records]
    names = [record["name"] or f"line {record['line']}" for record in records]
    curve = roc(np.array([label == positive for label in label_N]), p_N)
    other = (
        next(name for name in classes if name != positive)
        if len(classes) == 2
        else f"not {positive}"
    )
    scores = pd.DataFrame({"name": names, "label": label_N, "probability": p_N})
    return RocResult(curve, scores, positive, other, facts)


def draw_curve(ax: "Axes", curve: Roc) -> None:
    """Draw a ROC curve with its area."""
    ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    ax.step(curve.false_T, curve.true_T, where="post", color=BLUE, lw=1.8)
    ax.set(
        xlabel="false positive rate",
        ylabel="true positive rate",
        xlim=(-0.01, 1),
        ylim=(0, 1.01),
        aspect="equal",
    )
    ax.text(
        0.97,
        0.06,
        f"AUC {curve.auc:.3f}\n95 %: {curve.low:.3f} to {curve.high:.3f}",
        ha="right",
        fontsize=9,
    )
    ax.spines[["top", "right"]].set_visible(False)


def draw_scores(
    ax: "Axes", positive_N: np.ndarray, score_N: np.ndarray, names: Sequence[str]
) -> None:
    """Draw the distributions of the scores of both classes.

    Args:
        ax: where to draw.
        positive_N: bool.
        score_N: probability of the positive class.
        names: of the negative and the positive class.
    """
    bins = np.linspace(0, 1, 26)
    for chosen_N, name, colour in ((~positive_N, names[0], ORANGE), (positive_N, names[1], BLUE)):
        label = f"{name} ({int(chosen_N.sum())})"
        ax.hist(score_N[chosen_N], bins, color=colour, alpha=0.35, density=True)
        ax.hist(
            score_N[chosen_N],
            bins,
            color=colour,
            histtype="step",
            lw=1.6,
            density=True,
            label=label,
        )
    ax.set(xlabel=f"probability of {names[1]!r}", ylabel="density of documents", xlim=(0, 1))
    ax.legend(frameon=False, fontsize=9, loc="upper center")
    ax.spines[["top", "right"]].set_visible(False)
