"""Points for tests of the law library: single, spread over the range of a law, and measured."""

import csv
import os
from pathlib import Path

import pytest
import torch

from sciforge.heat.correlations.groups import GROUPS
from sciforge.heat.correlations.library import CORRELATIONS, get_correlation

SHARED = (
    Path(os.environ.get("SCIFORGE_SHARED", Path(__file__).parents[4] / "shared")) / "data" / "heat"
)
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the shared data are not at {SHARED}"
)
USUAL = {"e_D": (0.02, 0.1), "P_e": (10.0, 20.0), "alpha_deg": (30.0, 90.0), "W_H": (1.0, 4.0)}
RIBBED = [name for name, law in CORRELATIONS.items() if law.ribs]


def column(*values: float, dtype=torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def point(**groups: float) -> dict[str, torch.Tensor]:
    return {name: column(value) for name, value in groups.items()}


def drawn(name: str, count: int = 200) -> dict[str, torch.Tensor]:
    """Return points spread over the range of a law in the logarithms."""
    box = {**USUAL, **get_correlation(name).box}
    generator = torch.Generator().manual_seed(0)
    points = {}
    for group in GROUPS:
        low, high = box[group]
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        points[group] = (low * (high / low) ** share).clamp(low, high)
    return points


def read(file: str) -> list[dict[str, str]]:
    return list(csv.DictReader((SHARED / f"{file}.csv").read_text(encoding="utf-8").splitlines()))


def rows(*files: str) -> tuple[dict[str, torch.Tensor], torch.Tensor, list[str]]:
    """Return the measured points of files: groups and columns, Nusselt numbers, sources."""
    found = [row for file in files for row in read(file)]
    names = (*GROUPS, "e_plus", "R", "G", "f_four_sided")
    points = {name: column(*(float(row[name]) for row in found)) for name in names}
    return (
        points,
        column(*(float(row["Nu_ribbed"]) for row in found)),
        [row["source"] for row in found],
    )
