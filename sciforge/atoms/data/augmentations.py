"""Changes of a structure that mean nothing to its energy: turned, moved; and what each scrambles.

Legend of shape letters: N atoms.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sciforge.core.domain import Augmentation, Record

VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])  # rows and columns of xx yy zz yz xz xy
FARTHEST_A = 10.0


def known_labels(records: Sequence[Record], meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the energy per atom, eV, where any structure has one."""
    energy = np.array(
        [float(record.get("energy_eV", np.nan)) / len(record["numbers"]) for record in records]
    )
    return {"energy_eV_atom": energy} if np.isfinite(energy).any() else {}


def rotated(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return the structure turned at random (uniform over rotations), its cell, forces and
    stress with it.
    """
    turn, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    turn = turn * np.sign(np.diag(upper))
    turn[:, 0] *= np.sign(np.linalg.det(turn))
    changed = {
        name: np.asarray(record[name], float) @ turn
        for name in ("pos_A", "cell_A", "forces_eV_A")
        if name in record
    }
    if "stress_eV_A3" in record:
        stress_33 = np.empty((3, 3))
        stress_33[VOIGT] = stress_33[VOIGT[::-1]] = np.asarray(record["stress_eV_A3"], float)
        changed["stress_eV_A3"] = (turn.T @ stress_33 @ turn)[VOIGT]
    return {**record, **changed}


def orientation(record: Record) -> np.ndarray:
    """Return which way a structure lies [8]: the direction to its heavy side, and the shape of its
    tensor of gyration.

    >>> record = {"numbers": np.array([1, 8]), "pos_A": np.array([[0.0, 0, 0], [0, 0, 2]])}
    >>> orientation(record)[:3].tolist()
    [0.0, 0.0, 1.0]
    """
    pos_N3 = np.asarray(record["pos_A"], float)
    pos_N3 = pos_N3 - pos_N3.mean(0)
    heavy_3 = np.asarray(record["numbers"], float) @ pos_N3
    tensor_33 = pos_N3.T @ pos_N3
    tensor_33 = tensor_33 - np.eye(3) * np.trace(tensor_33) / 3
    parts = (heavy_3, tensor_33[([0, 1, 1, 0, 0], [0, 1, 2, 2, 1])])
    return np.concatenate([part / max(float(np.linalg.norm(part)), 1e-9) for part in parts])


def moved(record: Record, rng: np.random.Generator) -> dict[str, Any]:
    """Return the structure up to 10 angstrom elsewhere along each axis."""
    return {
        **record,
        "pos_A": np.asarray(record["pos_A"], float) + rng.uniform(-FARTHEST_A, FARTHEST_A, 3),
    }


def place(record: Record) -> np.ndarray:
    """Return the mean position [3], angstrom."""
    return np.asarray(record["pos_A"], float).mean(0)


AUGMENTATIONS = {
    "rotation": Augmentation(rotated, orientation, "turned at random"),
    "translation": Augmentation(moved, place, "moved by up to 10 angstrom along each axis"),
}
