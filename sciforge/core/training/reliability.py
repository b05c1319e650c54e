"""Reliability diagrams: how often a classifier is right where it says that it is so sure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sciforge.core.data.dataset import Dataset, as_dataset, is_prepared
from sciforge.core.data.store import Store
from sciforge.core.files.output_files import about, whole_files
from sciforge.core.files.results import Result, new_axes, write_table
from sciforge.core.files.settings import Settings
from sciforge.core.learners import calibration
from sciforge.core.learners.calibration import Binning
from sciforge.core.learners.supervised import OneClass
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

BLUE, GREY = "#0072B2", "#767676"


class ReliabilityDiagram(Result):
    """Share of hits against the probability of the predicted class, in bins, and what follows.

    Args:
        p_NC: probabilities of labelled records.
        label_N: their classes.
        bins: how many; 0 takes about the cube root of the number of records, 15 at most.
        binning: `mass` for bins of as many records each, `width` for bins of equal width.
        about: where they come from, as JSON values.
    """

    def __init__(
        self,
        p_NC: np.ndarray,
        label_N: np.ndarray,
        bins: int = 0,
        binning: Binning = "mass",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.p_NC, self.label_N, self.binning = p_NC, label_N, binning
        self.bins = bins or calibration.num_bins(len(label_N))
        self.confidence_N, self.hit_N = calibration.top_label(p_NC, label_N)
        self._about = dict(about or {})

    @property
    def metrics(self) -> dict[str, float]:
        """Expected calibration error `ece` with its 95 % interval (jackknife over groups of
        records), `ece_chance` of perfect probabilities on as many records, and the Brier score with
        its parts.
        """
        confidence_N, hit_N = self.confidence_N, self.hit_N
        options: Any = {"bins": self.bins, "binning": self.binning}

        def ece(places: np.ndarray) -> float:
            return calibration.expected_calibration_error(
                confidence_N[places], hit_N[places], **options
            )

        value, low, high = calibration.jackknife_interval(ece, len(hit_N))
        parts = calibration.brier_parts(self.p_NC, self.label_N, self.bins)
        return {
            "ece": value,
            "ece_low": low,
            "ece_high": high,
            "ece_chance": calibration.chance_error(confidence_N, **options),
            "accuracy": float(hit_N.mean()),
            "mean_probability": float(confidence_N.mean()),
            "brier": calibration.brier_score(self.p_NC, self.label_N),
            **{f"brier_{name}": part for name, part in parts.items()},
        }

    @property
    def about(self) -> dict[str, Any]:
        """Where the probabilities come from, with the metrics."""
        return self._about | self.metrics

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a bin: probability, accuracy, its exact 95 % interval low and high,
        records.
        """
        import pandas as pd
        from scipy.stats import binomtest

        number_N = calibration.bin_numbers(self.confidence_N, self.bins, self.binning)
        rows = []
        for number in np.unique(number_N):
            inside = number_N == number
            hits, num = int(self.hit_N[inside].sum()), int(inside.sum())
            interval = binomtest(hits, num).proportion_ci(method="exact")
            row = {"probability": self.confidence_N[inside].mean(), "accuracy": hits / num}
            rows.append(row | {"low": interval.low, "high": interval.high, "records": num})
        return pd.DataFrame(rows)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw accuracy against probability with intervals; on the diagonal, probabilities are
        frequencies.
        """
        ax = new_axes(4.2, 4.0) if ax is None else ax
        frame, metrics = self.to_pandas(), self.metrics
        least = min(frame["probability"].min(), frame["low"].min())
        ax.plot([least, 1], [least, 1], color=GREY, lw=0.8, ls=":")
        away = np.abs(frame[["low", "high"]].to_numpy().T - frame["accuracy"].to_numpy())
        points = frame["probability"], frame["accuracy"], away
        ax.errorbar(*points, fmt="o-", color=BLUE, ms=4, lw=1.2, capsize=2)
        ax.set(xlabel="probability of the predicted class", ylabel="share of hits")
        text = f"ECE {metrics['ece']:.3f} (chance {metrics['ece_chance']:.3f})"
        ax.set_title(f"{text}, {len(self.hit_N)} records", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        return ax

    def save(self, path: Path | str) -> Path:
        """Write the diagram as .png with NAME.csv beside it, or the bins as .csv or .tsv.

        Raises:
            ConfigError: another suffix, or the path is a folder.
            DataError: the disk is full or may not be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            return super().save(path)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.2, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        self.plot(figure.subplots())
        with whole_files(path, binary=True) as (picture,):
            figure.savefig(picture, dpi=150, format="png")
            write_table(path.with_suffix(".csv"), self.to_pandas(), self.about)
        return path

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value:.3f}" for name, value in self.metrics.items())
        return f"{super().__repr__()}\n{values}"


@dataclass(frozen=True, kw_only=True)
class Reliability(Settings):
    """Reliability diagram of a classifier on labelled records: share of hits against probability.

    Saved as NAME.png with NAME.csv (one row a bin: probability, accuracy, low, high, records)
    beside it; NAME.json holds the expected calibration error, what chance alone would show, and the
    Brier score with its parts.

    Args:
        data: a prepared store with labels.
        split: whose records; those trained on would flatter.
        bins: how many; 0 takes about the cube root of the number of records, 15 at most.
        binning: `mass` for bins of as many records each, `width` for bins of equal width.
    """

    data: Path
    split: Literal["train", "validation", "test"] = "test"
    bins: int = 0
    binning: Binning = "mass"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0, 1000, "bins")

    def run(self, model: Model) -> ReliabilityDiagram:
        """Return the diagram.

        Raises:
            ConfigError: the checkpoint predicts no classes, or there are too few labelled records.
        """
        facts = about(self, model)
        return _diagram(model, Store.open(self.data), self.split, self.bins, self.binning, facts)


def reliability(
    model: Model,
    data: "Dataset | Store | Path | str | Any",
    targets: Any = None,
    *,
    split: str | None = None,
    input: str | None = None,
    target: str | Sequence[str] | None = None,
    bins: int = 0,
    binning: Binning = "mass",
) -> ReliabilityDiagram:
    """Return the reliability diagram of a classifier on labelled records.

    Args:
        model: trained to classify records.
        data: a dataset, a store or its folder; or natural inputs, or a DataFrame, with their
            labels.
        targets: the labels of natural inputs.
        split: of a dataset; None takes test, or all of natural inputs.
        input: the column of a DataFrame that holds the inputs.
        target: the column of a DataFrame that holds the labels.
        bins: how many; 0 takes about the cube root of the number of records, 15 at most.
        binning: `mass` for bins of as many records each, `width` for bins of equal width.

    Raises:
        ConfigError: the model predicts no classes, or there are too few labelled records.
    """
    options: Any = {"domain": model.domain.name, "input": input, "target": target, "model": model}
    dataset = as_dataset(data, targets, **options)  # which may own a temporary folder
    store = dataset.store
    split = split or ("test" if is_prepared(data) else "train")
    settings = {"data": str(store.path), "split": split, "bins": bins, "binning": binning}
    return _diagram(model, store, split, bins, binning, about(settings, model))


def _diagram(
    model: Model, store: Store, split: str, bins: int, binning: Binning, facts: Mapping[str, Any]
) -> ReliabilityDiagram:
    objective: Any = model.objective
    classes = isinstance(objective, OneClass)
    if not classes:
        raise ConfigError(
            f"{model.checkpoint.path} predicts no class a record ({type(objective).__name__}); for"
            " numbers, evaluate reports the coverage of their intervals"
        )
    if store.domain != model.domain.name:
        raise ConfigError(
            f"{store.path} is of the domain {store.domain}, the checkpoint of {model.domain.name}"
        )
    records = objective.examples(store, split)
    if len(records) < calibration.MIN_RECORDS:
        raise ConfigError(
            f"{store.path} has {len(records)} {split} records; a reliability diagram takes"
            f" {calibration.MIN_RECORDS}: choose another split"
        )
    label_N = objective.class_numbers(records)
    return ReliabilityDiagram(model.outputs(records)["probability"], label_N, bins, binning, facts)
