"""`sample`: geometries of molecules in thermal motion, from their SMILES, to be labelled."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from sciforge.core.files.atomic import one_line
from sciforge.core.files.settings import Settings, to_json
from sciforge.errors import ConfigError, DataError, MissingExtra
from sciforge.structures.labelling.geometries import (
    WILD_A,
    charge_and_spin,
    find_wells,
    molecule,
    skeleton,
    stretched,
)
from sciforge.structures.structure import Structure
from sciforge.structures.structure_set import StructureSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sample(Settings):
    """Make geometries of molecules from their SMILES, to be labelled; seeded, so the same seed
    gives the same structures.

    A molecule's geometries depend on its SMILES and the seed, not on what else is in the file. What
    fails is left out and counted, with its reason; saved structures have it in NAME.rejected.jsonl.

    Args:
        smiles: a file with a SMILES at the beginning of each line (`#` begins a comment); in Python
            also a tuple of them.
        conformers: minima to look for in each molecule; small rigid ones have fewer.
        per_conformer: geometries for each of `conformers`, however many there are.
        temperature_K: temperatures of the thermal motion, taken in turn.
        wild: share of the geometries with a random displacement of 0.03 to 0.15 A on every
            coordinate as well.
        stretched: share of the geometries with one bond stretched or compressed as well.
        seed: another seed gives other geometries.
    """

    smiles: Path | tuple[str, ...]
    conformers: int = 4
    per_conformer: int = 5
    temperature_K: tuple[float, ...] = (300.0, 600.0, 1200.0)
    wild: float = 0.1
    stretched: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, float("inf"), "conformers", "per_conformer")
        if not self.temperature_K or not all(0 <= t < 1e5 for t in self.temperature_K):
            raise ConfigError(
                f"temperature_K is {self.temperature_K}; give temperatures in kelvin, none negative"
            )
        if min(self.wild, self.stretched) < 0 or self.wild + self.stretched > 1:
            raise ConfigError(
                f"wild {self.wild} and stretched {self.stretched} are shares; at most 1 together"
            )

    def run(self) -> StructureSet:
        """Return the geometries, molecule by molecule.

        Raises:
            DataError: the file cannot be read, or no SMILES gives a molecule.
            MissingExtra: RDKit is not installed.
        """
        if find_spec("rdkit") is None:
            raise MissingExtra("rdkit", "label")
        structures, rejected = [], []
        entries = self._entries()
        for line, smiles in tqdm(entries, desc="sample", unit="molecule", disable=None):
            try:
                structures += list(self.geometries(smiles))
            except DataError as error:
                rejected.append({"line": line, "name": smiles, "reason": str(error)})
        file = self.smiles if isinstance(self.smiles, Path) else None
        if not structures:
            why = rejected[0]["reason"] if rejected else "there is no SMILES in it"
            raise DataError(f"no molecule to sample: {why}", file)
        if rejected:
            logger.warning(
                "%d of %d molecules rejected: %s",
                len(rejected),
                len(entries),
                rejected[0]["reason"],
            )
        sources = () if file is None else (file,)
        return StructureSet(structures, rejected, {"options": to_json(self)}, sources)

    def geometries(self, smiles: str) -> Iterator[Structure]:
        """Yield conformers x per_conformer geometries of one molecule; raises DataError where
        there is none.
        """
        mol = molecule(smiles)
        digest = hashlib.blake2b(f"{self.seed}:{smiles}".encode(), digest_size=8).digest()
        random = np.random.default_rng(int.from_bytes(digest, "big"))
        wells = find_wells(mol, self.conformers, int(random.integers(2**31 - 1)))
        numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        group, (charge, spin) = skeleton(mol), charge_and_spin(mol)
        for index in range(self.conformers * self.per_conformer):
            temperature = self.temperature_K[index // len(wells) % len(self.temperature_K)]
            pos, kind = wells[index % len(wells)].thermal(temperature, random), f"{temperature:g} K"
            draw = random.random()
            if draw < self.wild:
                pos, kind = (
                    pos + random.uniform(*WILD_A) * random.standard_normal(pos.shape),
                    kind + " wild",
                )
            elif draw < self.wild + self.stretched:
                pos, kind = stretched(mol, pos, random), kind + " stretched"
            yield Structure(
                numbers, pos, charge=charge, spin=spin, name=f"{smiles} {index} {kind}", group=group
            )

    def _entries(self) -> list[tuple[int, str]]:
        """Return (line number, SMILES)."""
        lines: tuple[str, ...] | list[str] = (
            self.smiles if not isinstance(self.smiles, Path) else []
        )
        if isinstance(self.smiles, Path):
            with one_line(self.smiles):
                try:
                    lines = self.smiles.read_text(encoding="utf-8").splitlines()
                except UnicodeDecodeError:
                    raise DataError(
                        "not a text file; give SMILES, one per line", self.smiles
                    ) from None
        words = [(number, line.split()) for number, line in enumerate(lines, 1)]
        return [(number, word[0]) for number, word in words if word and not word[0].startswith("#")]
