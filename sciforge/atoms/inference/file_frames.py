"""Structures out of the files that an output is asked about, each with the place where it
stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError
from sciforge.structures.file_labels import Keys
from sciforge.structures.readers import read_frames
from sciforge.structures.structure import Structure


@dataclass(frozen=True, eq=False)
class FileFrame:
    """A structure and where it stands: the file, and its place in it from 1."""

    file: Path
    number: int
    structure: Structure

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"{self.file}: frame {self.number}: "


@dataclass(frozen=True, kw_only=True)
class FromFiles(Settings):
    """The options of an output that reads structures.

    Args:
        files: extended XYZ, HDF5, JSON of mlearn, ASE's trajectories and databases, or what ASE
            reads.
        units: of the files, e.g. "eV angstrom" or "hartree bohr".
        level: level of theory to predict, of a potential that knows several; by default each
            structure's own.
        key_energy: name of the energy in the files; found where not given.
        key_forces: name of the forces; found where not given.
        key_stress: name of the stress; found where not given.
        key_charge: name of the total charge; found where not given.
        key_spin: name of the multiplicity; found where not given.
    """

    files: tuple[Path, ...]
    units: str = "eV angstrom"
    level: str = ""
    key_energy: str = ""
    key_forces: str = ""
    key_stress: str = ""
    key_charge: str = ""
    key_spin: str = ""

    def frames(self) -> Iterator[FileFrame]:
        """Yield the structures of all files, one at a time.

        Raises:
            DataError: a frame is bad; names file and frame.
            ConfigError: no file.
        """
        keys = Keys(
            self.key_energy, self.key_forces, self.key_stress, self.key_charge, self.key_spin
        )
        if not self.files:
            raise ConfigError("no file of structures; give at least one")
        for file in self.files:
            for number, structure in read_frames(file, self.units, keys):
                if isinstance(structure, DataError):
                    raise structure
                yield FileFrame(file, number, structure)
