"""A sample of molecules beside a reference: every figure that needs one, for generated molecules
and for real ones alike.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from sciforge.molecules.evaluation.fcd import LEAST, FrechetTo, activations
from sciforge.molecules.evaluation.features import PROPERTIES, Features, features_of
from sciforge.molecules.evaluation.metrics import (
    Bag,
    Figure,
    bootstrapped,
    cosine_to,
    fraction,
    mean_of,
    normal,
    wasserstein_to,
)
from sciforge.molecules.evaluation.similarity import mean_similarity, nearest

VERSION = 1  # of the metrics' definitions; part of the key of the cached floor
SHARE = (0.0, 1.0)  # bounds of a figure that is a share or a cosine


@dataclass(frozen=True)
class Reference:
    """What samples are compared with; `frechet` is None where FCD is not asked for."""

    features: Features
    frechet: FrechetTo | None


@dataclass
class Findings:
    """Figures by name, the reasons why others could not be computed, and the seconds that each
    group took.
    """

    metrics: dict[str, Figure] = field(default_factory=dict)
    omitted: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the time that a block takes to `seconds`."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 2)


def compare(
    smiles: Sequence[str],
    reference: Reference,
    *,
    fcd_num: int | None = None,
    seed: int = 0,
    pool: Executor | None = None,
    device: str = "cpu",
) -> Findings:
    """Return the metrics of valid molecules against a reference.

    The intervals are of the draw of the sample; the reference is taken as fixed.

    Args:
        smiles: canonical SMILES of at least one valid molecule, duplicates kept.
        reference: what to compare with.
        fcd_num: FCD of the first so many; all by default.
        seed: of the bootstrap.
        pool: processes for RDKit.
        device: for ChemNet and the similarities.
    """
    findings = Findings()
    with findings.clock("features"):
        features = features_of(smiles, True, pool)
    if reference.frechet is not None:
        with findings.clock("fcd"):
            _fcd(findings, smiles[:fcd_num], reference.frechet, seed, device)
    with findings.clock("snn"):
        findings.metrics["snn"] = mean_of(
            nearest(features.bits_NB, reference.features.bits_NB, device)
        )
    with findings.clock("diversity"):
        _diversity(findings, features, device)
    findings.metrics["filters"] = fraction(int(features.passed_N.sum()), len(features))
    with findings.clock("fragments, scaffolds and distributions"):
        _cosines(findings, features, reference.features, seed)
        _distances(findings, features, reference.features, seed)
    return findings


def _fcd(
    findings: Findings, smiles: Sequence[str], frechet: FrechetTo, seed: int, device: str
) -> None:
    if len(smiles) < LEAST:
        findings.omitted["fcd"] = f"{len(smiles)} valid molecule has no covariance"
        return
    acts = activations(smiles, device)
    findings.metrics["fcd"] = bootstrapped(frechet.of_weighted(acts), len(acts), seed)


def _diversity(findings: Findings, features: Features, device: str) -> None:
    row_N = 1 - mean_similarity(features.bits_NB, device)
    # A mean over pairs: each molecule is in two places, so the std is twice that of a mean of rows
    # (Hoeffding 1948).
    std = 2 * float(np.std(row_N, ddof=1)) / len(row_N) ** 0.5 if len(row_N) > 1 else 1.0
    findings.metrics["diversity"] = normal(
        float(row_N.mean()), std, len(row_N), "projection", SHARE
    )


def _cosines(findings: Findings, features: Features, reference: Features, seed: int) -> None:
    pairs = {
        "fragments": (features.fragments, reference.fragments),
        "scaffolds": (features.scaffolds, reference.scaffolds),
    }
    for name, (sample, other) in pairs.items():
        if reason := _lacking(sample, other, name):
            findings.omitted[name] = reason
        else:
            findings.metrics[name] = bootstrapped(
                cosine_to(sample, other), len(features), seed, bounds=SHARE
            )


def _lacking(sample: Bag, other: Bag, what: str) -> str:
    """Return why two bags cannot be compared; empty where they can."""
    return next(
        (
            f"no {what} in the {name}"
            for name, bag in (("sample", sample), ("reference", other))
            if not bag.words
        ),
        "",
    )


def _distances(findings: Findings, features: Features, reference: Features, seed: int) -> None:
    everyone = np.arange(len(features))
    for column, name in enumerate(PROPERTIES):
        ours, reference_values = features.values_NP[:, column], reference.values_NP[:, column]
        if np.isnan(ours).any() or np.isnan(reference_values).any():
            findings.omitted[f"{name}_distance"] = (
                f"RDKit could not compute {name} (SA needs its Contrib folder)"
            )
            continue
        statistic = wasserstein_to(ours, everyone, reference_values)
        findings.metrics[f"{name}_distance"] = bootstrapped(statistic, len(features), seed)
    if reason := _lacking(features.rings, reference.rings, "rings"):
        findings.omitted["rings_distance"] = reason
        return
    ours, reference_values = (
        np.array(bag.words, float)[bag.word_M] for bag in (features.rings, reference.rings)
    )
    statistic = wasserstein_to(ours, features.rings.owner_M, reference_values)
    findings.metrics["rings_distance"] = bootstrapped(statistic, len(features), seed)
