"""Valid files of molecules, and what reads them, for tests/core/test_hostile.py to damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sciforge.errors import SciforgeError
from sciforge.molecules.data.readers import parts_of, read_part
from sciforge.molecules.evaluation.generated_files import judge, read_strings

SMILES = b"smiles name\nCCO ethanol\nc1ccccc1C(=O)[O-] benzoate\nC[C@H](N)C(=O)O.Cl salt\n"
CSV = b'smiles,name,y\nCCO,ethanol,1.5\n"C1CC1",ring,-2e3\nc1ccncc1,"a, b",nan\n'
SDF = b"""ethane
  x

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.5000    0.0000    0.0000 C   0  0
  1  2  1  0
M  CHG  1   1   0
M  END
> <y>
1.5

$$$$
"""


def molecules(path: Path) -> None:
    """Read a file of molecules as `prepare --on-error skip` does, each record to its molecule;
    raise the first refusal.
    """
    columns, refused = () if ".smi" in path.name else ("y",), []
    for part in parts_of(path):
        for entry in read_part(part, "smiles", columns):
            try:
                entry.mol()
            except SciforgeError as error:
                assert len(str(error).splitlines()) == 1
                refused.append(error)
    if refused:
        raise refused[0]


# Name -> (a valid file, its ending, what reads it).
PARSERS: dict[str, tuple[bytes, str, Callable[[Path], Any]]] = {
    "smiles": (SMILES, ".smi", molecules),
    "molecule table": (CSV, ".csv", molecules),
    "sdf": (SDF, ".sdf", molecules),
    "sampled": (CSV, ".csv", lambda path: [judge(text) for text in read_strings(path)]),
}
