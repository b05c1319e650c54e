"""Valid files of atoms, and what reads them, for tests/core/test_hostile.py to damage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_runs import exhaust

from sciforge.structures.readers import read_structures

XYZ = b"""3
Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy=-76.3 charge=0 \
stress="1 0 0 0 1 0 0 0 1" pbc="T T F"
O 0.0 0.0 0.1 0.1 0.2 0.3
H 0.0 0.7 -0.4 0 0 0
H 0.0 -0.7 -0.4 0 0 -1e-3
2
energy=1.5 name="N2"
N 0 0 0
N 0 0 1.1
"""
MLEARN = json.dumps(
    [
        {
            "structure": {
                "lattice": {"matrix": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]},
                "sites": [{"species": [{"element": "Li"}], "xyz": [0, 0, 0]}],
                "charge": None,
            },
            "outputs": {"energy": -1.9, "forces": [[0, 0, 0]], "virial_stress": [1, 2, 3, 4, 5, 6]},
            "description": "a",
        }
    ]
).encode()

# Name -> (a valid file, its ending, what reads it).
PARSERS: dict[str, tuple[bytes, str, Callable[[Path], Any]]] = {
    "extended xyz": (XYZ, ".xyz", exhaust(read_structures)),
    "mlearn": (MLEARN, ".json", exhaust(read_structures)),
}
