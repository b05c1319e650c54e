"""`sciforge score`: how good are generated molecules, honestly: invalid is invalid, and real
molecules stand beside.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sciforge.catalog import cache_folder
from sciforge.core.data.store import open_executor
from sciforge.core.files.atomic import one_line, replace_file, sha256
from sciforge.core.files.output_files import write_whole
from sciforge.core.files.results import Result, new_axes
from sciforge.core.files.settings import Settings
from sciforge.core.files.tables import Table
from sciforge.core.training.distributed import choose_device
from sciforge.core.training.run import to_json
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.evaluation import comparison, features, hash_index
from sciforge.molecules.evaluation.comparison import Findings, Reference, compare
from sciforge.molecules.evaluation.fcd import FrechetTo, Moments, activations, moments, require_fcd
from sciforge.molecules.evaluation.features import Features, features_of
from sciforge.molecules.evaluation.generated_files import (
    Sample,
    in_chunks,
    judge_all,
    pick_strings,
    read_strings,
)
from sciforge.molecules.evaluation.hash_index import HashIndex, hash_index_of
from sciforge.molecules.evaluation.metrics import Z95, Figure, fraction, normal, uniqueness

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

UNIQUE_AT = (1000, 10000)
TITLES = {
    "validity": "valid",
    "unique_1000": "unique in the first 1,000",
    "unique_10000": "unique in the first 10,000",
    "unique": "unique",
    "novelty": "novel (not in training)",
    "fcd": "FCD, lower is better",
    "fcd_excess": "FCD above real molecules",
    "snn": "SNN, nearest neighbour",
    "fragments": "Frag, BRICS fragments",
    "scaffolds": "Scaf, Murcko scaffolds",
    "diversity": "IntDiv, internal diversity",
    "filters": "Filters, MCF and PAINS",
    "logP_distance": "logP, distance",
    "QED_distance": "QED, distance",
    "SA_distance": "SA, distance",
    "weight_distance": "weight, distance (g/mol)",
    "atoms_distance": "heavy atoms, distance",
    "rings_distance": "ring sizes, distance",
}
Kept = TypeVar("Kept")


@dataclass(frozen=True, kw_only=True)
class Score(Settings):
    """Metrics of generated molecules: validity, uniqueness, novelty, FCD and MOSES' metrics, each
    with a 95 % interval.

    Every line of the file counts: mixtures, radicals and empty lines are invalid, and the largest
    fragment is never taken for the whole. Metrics that depend on the number of molecules (FCD above
    all) come with those of as many random molecules of the training set. Intervals are of the draw
    of the samples; the reference is taken as fixed. What is computed of the training set and the
    reference is kept in the cache.

    Args:
        file: SMILES, one a line, as the generator wrote them; .smi or .csv, either as .gz.
        reference: molecules that the generator has not seen, the test set; .csv with a column
            `smiles`, or .smi.
        training: all molecules that the generator was trained on; novelty against a part of them
            would be inflated.
        num: strings to score, from the top of the file.
        fcd: whether to compute FCD, which needs the extra [fcd].
        fcd_num: FCD of the first so many valid molecules; by default of all.
        reference_num: so many random molecules of the reference instead of all.
        reference_stats: mean and covariance of ChemNet on the reference (.npz with mu and sigma),
            instead of computing them.
        cache: folder for what is kept; by default that of the downloads.
        workers: processes for RDKit.
        device: for ChemNet and similarities.
        seed: of the draws and the bootstrap.
    """

    file: Path
    reference: Path
    training: Path
    num: int = 30000
    fcd: bool = True
    fcd_num: int | None = None
    reference_num: int | None = None
    reference_stats: Path | None = None
    cache: Path | None = None
    workers: int = 1
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, math.inf, "num", "fcd_num", "reference_num", "workers")
        for name in ("fcd_num", "reference_stats"):
            if not self.fcd and getattr(self, name) is not None:
                raise ConfigError(f"{name} is about FCD, which is switched off; leave it out")

    def run(self) -> "ScoreResult":
        """Score the molecules of the file.

        Raises:
            DataError: a file cannot be read, or holds no valid molecule.
            MissingExtra: FCD is asked for and fcd_torch is not installed.
        """
        self._check()
        return self.score(list(read_strings(self.file, self.num)))

    def score(self, strings: Sequence[str]) -> "ScoreResult":
        """Score SMILES that are in memory, in place of those of the file; raises as `run` does."""
        self._check()
        return ScoreResult(self.report(strings), self.file.name)

    def _check(self) -> None:
        for file in (self.training, self.reference):
            next(read_strings(file, 1), None)  # says in one line what is wrong with it
        if self.fcd:
            require_fcd()

    def report(self, strings: Sequence[str]) -> dict[str, Any]:
        """Return metrics, floor, reasons, seconds and provenance as JSON values; raises as `run`
        does.
        """
        import rdkit

        with open_executor("processes", self.workers) as pool:
            samples = [
                sample for part in in_chunks(judge_all, strings, pool, "samples") for sample in part
            ]
            valid = [sample for sample in samples if not sample.reason]
            reasons = Counter(sample.reason for sample in samples if sample.reason)
            if not valid:
                first = (
                    f"the first, {strings[0][:40]!r}: {samples[0].reason}"
                    if strings
                    else "it is empty"
                )
                raise DataError(
                    f"no valid molecule among {len(strings)} lines ({first}); give SMILES",
                    self.file,
                )
            known = self._kept(
                "known", (), HashIndex, lambda: hash_index_of(self.training, pool), self.training
            )
            reference = self._reference(pool)
            settings = {
                "fcd_num": self.fcd_num,
                "seed": self.seed,
                "pool": pool,
                "device": self._device,
            }
            findings = compare([sample.smiles for sample in valid], reference, **settings)
            floor = self._floor(len(valid), reference, settings)
        metrics = _own_metrics(samples, valid, known) | findings.metrics
        _excess(metrics, floor, findings)
        return {
            "metrics": {name: metrics[name].as_json() for name in TITLES if name in metrics},
            "real_molecules": {name: figure.as_json() for name, figure in floor.items()},
            "omitted": {**findings.omitted, **_too_few(len(valid))},
            "strings": len(strings),
            "invalid": dict(reasons.most_common()),
            "rejected_of_training": known.rejected,
            "reference_molecules": len(reference.features),
            "seconds": findings.seconds,
            "options": to_json(self),
            "versions": {"sciforge": version("sciforge"), "rdkit": rdkit.__version__},
        }

    @property
    def _device(self) -> str:
        return str(choose_device(self.device))

    def _kept(
        self, what: str, key: tuple, kind: type[Kept], make: Callable[[], Kept], *files: Path
    ) -> Kept:
        """Return what the cache has under the digest of the files and the key; otherwise make it
        and keep it.
        """
        import rdkit

        state = (what, key, [sha256(file) for file in files], rdkit.__version__)
        versions = (hash_index.VERSION, features.VERSION, comparison.VERSION)
        name = hashlib.sha256(repr((state, versions)).encode()).hexdigest()[:24]
        path = (self.cache or cache_folder() / "score") / f"{what}-{name}"
        if path.exists():
            return kind.load(path)
        value = make()
        with one_line(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, value.save)
        return value

    def _reference(self, pool: Executor | None) -> Reference:
        key = (self.reference_num, self.seed if self.reference_num else 0)

        def molecules() -> list[str]:
            if self.reference_num is None:
                texts = list(read_strings(self.reference))
            else:
                texts = pick_strings(self.reference, self.reference_num, self.seed)
            parts = in_chunks(judge_all, texts, pool, "reference")
            smiles = [sample.smiles for part in parts for sample in part if not sample.reason]
            if len(smiles) < 2:
                raise DataError(
                    f"{len(smiles)} valid molecules in it; give at least two", self.reference
                )
            return smiles

        reference = self._kept(
            "features", key, Features, lambda: features_of(molecules(), False, pool), self.reference
        )
        if not self.fcd:
            return Reference(reference, None)
        if self.reference_stats is not None:
            return Reference(reference, FrechetTo(Moments.load(self.reference_stats)))

        def chemnet() -> Moments:
            return moments(activations(molecules(), self._device))

        return Reference(
            reference, FrechetTo(self._kept("moments", key, Moments, chemnet, self.reference))
        )

    def _floor(
        self, count: int, reference: Reference, settings: dict[str, Any]
    ) -> dict[str, Figure]:
        """Return the metrics of as many random molecules of the training set."""

        def make() -> "_Floor":
            texts = pick_strings(self.training, count + count // 100 + 16, self.seed)
            parts = in_chunks(judge_all, texts, settings["pool"], "real molecules")
            smiles = [sample.smiles for part in parts for sample in part if not sample.reason]
            return _Floor(compare(smiles[:count], reference, **settings).metrics)

        files = [
            self.training,
            self.reference,
            *filter(None, [self.reference_stats if self.fcd else None]),
        ]
        key = (count, self.fcd, self.fcd_num, self.reference_num, self.seed)
        return self._kept("real", key, _Floor, make, *files).metrics


class ScoreResult(Result):
    """Metrics of generated molecules, each with a 95 % interval, beside those of as many real
    molecules.

    Args:
        report: what `Score.report` returns.
        name: of the molecules, in tables.
    """

    def __init__(self, report: dict[str, Any], name: str) -> None:
        self.report, self.name = report, name

    @property
    def about(self) -> dict[str, Any]:
        """The settings, the versions and how many molecules were read."""
        return {
            key: value
            for key, value in self.report.items()
            if key not in ("metrics", "real_molecules")
        }

    def table(self) -> Table:
        """Return the metrics as text, with notes on what was not counted."""
        return table_of({self.name: self.report})

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a metric: metric, value, low, high (95 %), real (of real molecules),
        count, by.
        """
        import pandas as pd

        rows = []
        for name, metric in self.report["metrics"].items():
            real = self.report["real_molecules"].get(name, {}).get("value")
            rows.append({"metric": name, **metric, "real": real})
        return pd.DataFrame(rows)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the metrics that lie between 0 and 1, with their intervals, and those of real
        molecules.
        """
        frame = self.to_pandas()
        frame = frame[(frame["low"] >= 0) & (frame["high"] <= 1)].iloc[::-1].reset_index(drop=True)
        ax = new_axes(7, 0.35 * len(frame) + 1) if ax is None else ax
        error = [frame["value"] - frame["low"], frame["high"] - frame["value"]]
        ax.errorbar(frame["value"], frame.index, xerr=error, fmt="o", capsize=3, label=self.name)
        ax.plot(
            frame["real"].astype(float),
            frame.index,
            "|",
            ms=14,
            color="0.4",
            label="real molecules",
        )
        ax.set(
            yticks=list(frame.index),
            yticklabels=[TITLES[name] for name in frame["metric"]],
            xlim=(-0.02, 1.02),
        )
        ax.legend()
        return ax

    def save(self, path: Path | str) -> Path:
        """Write the report as .json, or the metrics as .csv or .tsv; return the path."""
        path = Path(path)
        if path.suffix.lower() != ".json":
            return super().save(path)
        text = json.dumps(self.report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return write_whole(path, lambda work: work.write_text(text, encoding="utf-8"))

    def __repr__(self) -> str:
        return self.table().text()


@dataclass(frozen=True)
class _Floor:
    metrics: dict[str, Figure]

    def save(self, path: Path) -> None:
        body = {name: figure.as_json() for name, figure in self.metrics.items()}
        path.write_text(json.dumps(body, allow_nan=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "_Floor":
        return cls(
            {
                name: Figure(**body)
                for name, body in json.loads(path.read_text(encoding="utf-8")).items()
            }
        )


def _own_metrics(samples: list[Sample], valid: list[Sample], known: HashIndex) -> dict[str, Figure]:
    plain = [sample.plain for sample in valid]
    metrics = {"validity": fraction(len(valid), len(samples)), "unique": uniqueness(plain)}
    metrics |= {
        f"unique_{first}": uniqueness(plain, first) for first in UNIQUE_AT if first <= len(plain)
    }
    different = sorted(set(plain))
    return metrics | {"novelty": fraction(int((~known.holds(different)).sum()), len(different))}


def _too_few(count: int) -> dict[str, str]:
    return {
        f"unique_{first}": f"only {count} valid molecules" for first in UNIQUE_AT if first > count
    }


def _excess(metrics: dict[str, Figure], floor: dict[str, Figure], findings: Findings) -> None:
    if "fcd" not in metrics:
        return
    ours, real = metrics["fcd"], floor.get("fcd")
    if real is None or real.count != ours.count:
        findings.omitted["fcd_excess"] = "the training set has fewer molecules than the sample"
        return
    std = sum((figure.high - figure.low) ** 2 for figure in (ours, real)) ** 0.5 / (2 * Z95)
    metrics["fcd_excess"] = normal(
        ours.value - real.value, std, ours.count, "both bootstraps", (-1e9, 1e9)
    )


def table_of(reports: dict[str, dict[str, Any]]) -> Table:
    """Return the metrics of reports (name -> what `Score.report` returns) as one table; real
    molecules are the first's.
    """
    first = next(iter(reports.values()))
    rows = []
    for name, title in TITLES.items():
        metrics = [report["metrics"].get(name) for report in reports.values()]
        if not any(metrics):
            continue
        real = first["real_molecules"].get(name)
        cells = [cell for figure in metrics for cell in _cells(figure)]
        counts = "/".join(dict.fromkeys(f"{figure['count']:,}" for figure in metrics if figure))
        by = next(figure["by"] for figure in metrics if figure)
        rows.append((title, *cells, f"{real['value']:.4f}" if real else "-", counts, by))
    heads = [head for name in reports for head in (name, "95 % interval")]
    notes = [_note(name, report) for name, report in reports.items()]
    return Table(("figure", *heads, "real", "n", "interval by"), tuple(rows), "\n".join(notes))


def _cells(figure: dict[str, Any] | None) -> tuple[str, str]:
    return (
        (f"{figure['value']:.4f}", f"{figure['low']:.4f} to {figure['high']:.4f}")
        if figure
        else ("-", "-")
    )


def _note(name: str, report: dict[str, Any]) -> str:
    asked, have = report["options"]["num"], report["strings"]
    parts = [
        f"{have:,} strings"
        + (f" (all there are; {asked:,} were asked for)" if have < asked else "")
    ]
    parts += [f"{count:,} invalid: {reason}" for reason, count in report["invalid"].items()]
    parts += [f"no {TITLES.get(what, what)}: {why}" for what, why in report["omitted"].items()]
    if report["rejected_of_training"]:
        parts.append(
            f"{report['rejected_of_training']:,} rows of the training set are no valid molecules"
        )
    parts.append(
        "real: as many random molecules of the training set; reference of"
        f" {report['reference_molecules']:,}"
    )
    return "\n  ".join([f"{name}:", *parts])
