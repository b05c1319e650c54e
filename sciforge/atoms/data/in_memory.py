"""Structures that users hold in memory (ase.Atoms, Structure, files) as a preparer of labelled
data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from sciforge.atoms.data.split_plan import Plan, make_plan, survey
from sciforge.atoms.data.structures import OnReject, Source, StructureStore
from sciforge.core.data.groups import group_names
from sciforge.core.data.store import SPLIT_NAMES, ShardWriter
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError, did_you_mean
from sciforge.structures.file_labels import Keys, Labels
from sciforge.structures.readers import Frame, read_structures
from sciforge.structures.structure import Structure
from sciforge.structures.units import Units

IN_MEMORY = Path("inputs")  # stands for a file in messages and names


def as_structures(inputs: Sequence[Any]) -> list[Structure]:
    """Return inputs as structures; a path stands for all structures of its file.

    Args:
        inputs: ase.Atoms (labels from their calculator, `info` and `arrays`, in eV and angstrom,
            under the names that file readers know), Structure, or paths.

    Raises:
        DataError: an input is none of these, or its labels are ambiguous; names it by its place.
    """
    labels = Labels(Keys(), Units(), "", IN_MEMORY)
    structures: list[Structure] = []
    for place, given in enumerate(inputs):
        try:
            structures += _structures_of(given, place, labels)
        except DataError as error:
            message = str(error).removeprefix(f"{IN_MEMORY}: ")
            raise DataError(f"input {place}: {message}") from None
    return structures


def _structures_of(given: Any, place: int, labels: Labels) -> list[Structure]:
    if isinstance(given, Structure):
        return [given]
    if isinstance(given, str | Path):
        return list(read_structures(Path(given)))
    if not hasattr(given, "get_atomic_numbers"):
        raise DataError(f"is a {type(given).__name__}; give ase.Atoms, a Structure or a path")
    return [labels.of_atoms(given, place)]


@dataclass(frozen=True, kw_only=True)
class StructuresInMemory(StructureStore, Settings):
    """Structures in memory as graphs; made by `of`.

    Args:
        cutoff_A: pairs of atoms closer than this are edges, angstrom.
        seed: recorded; nothing is drawn.
    """

    cutoff_A: float = 5.0
    seed: int = 0
    structures: tuple[Structure, ...] = field(default=(), init=False, repr=False, compare=False)
    split_names: tuple[str, ...] = field(default=(), init=False, repr=False, compare=False)
    groups: tuple[str, ...] | None = field(default=None, init=False, repr=False, compare=False)

    domain: ClassVar[str] = "atoms"
    kind: ClassVar[str] = "structures"

    @classmethod
    def of(
        cls,
        inputs: Sequence[Any],
        split: Sequence[str] | None = None,
        group: Sequence[Any] | None = None,
        **options: Any,
    ) -> Self:
        """Return the preparer of inputs.

        Args:
            inputs: as for `as_structures`.
            split: `train`, `validation` or `test` of each input; None puts all in train.
            group: of each input; None for none.
            options: fields of this class.

        Raises:
            DataError: as `as_structures`.
            ConfigError: `split` has another length or an unknown name.
        """
        preparer, structures = cls(**options), as_structures(inputs)
        names = ["train"] * len(structures) if split is None else list(split)
        if len(names) != len(structures):
            raise ConfigError(
                f"{len(names)} splits for {len(structures)} structures; give one for each"
            )
        for name in names:
            if name not in SPLIT_NAMES:
                raise ConfigError(f"split {name!r} is not known; {did_you_mean(name, SPLIT_NAMES)}")
        if (groups := group_names(group, len(structures))) is not None:
            pairs = zip(structures, groups, strict=True)
            structures = [replace(structure, group=name) for structure, name in pairs]
        object.__setattr__(preparer, "groups", groups)
        object.__setattr__(preparer, "structures", tuple(structures))
        object.__setattr__(preparer, "split_names", tuple(names))
        return preparer

    @property
    def grouped(self) -> bool:
        """Whether the groups of the inputs are given."""
        return self.groups is not None

    def sources(self) -> Sequence[Source]:
        """Return the inputs as one source."""
        plan = self.plan()
        return [Source(IN_MEMORY, plan.split[0], plan.group[0])]

    def plan(self) -> Plan:
        """Return the split of every structure, as given; isolated atoms become references."""
        if not self.structures:
            raise ConfigError("there are no structures; give at least one")
        frames = survey(IN_MEMORY, self.frames(IN_MEMORY), self.cutoff_A)
        plan = make_plan([frames], ["files"], "random", 0, 0, 0.0, 0.0, self.seed)
        given = np.array([SPLIT_NAMES[name] for name in self.split_names], np.int8)
        split = np.where(plan.split[0] < 0, plan.split[0], given)
        return replace(plan, how="given", split=[split], notes=[])

    def frames(self, path: Path) -> Sequence[Frame]:
        """Return the structures with their numbers from 1."""
        return list(enumerate(self.structures, 1))

    def named(self, number: int) -> str:
        """Return what messages call a structure, by its number from 1: its place from 0."""
        return f"input {number - 1}"

    def write(self, source: Source, shard: ShardWriter, on_reject: OnReject) -> None:
        """Write the structures; raises DataError naming the first bad one by its place."""
        try:
            super().write(source, shard, on_reject)
        except DataError as error:
            raise DataError(str(error).removeprefix(f"{IN_MEMORY}: ")) from None

    def free_atoms(self, plan: Plan) -> dict[str, dict[int, float]]:
        """Return level -> atomic number -> eV of the isolated atoms among the inputs."""
        return plan.isolated
