"""Records to tensors: edge vectors, labels with their masks, and the two layouts of a batch.

Legend: B structures, A atoms of a structure (all atoms of the batch where it is packed), J
neighbours, E edges. Energies of 1e5 eV must keep their millielectronvolts through a cast to
float32, so they travel as two numbers, high and low, whose float64 sum is exact to 48 bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sciforge.core.domain import Batch, Example, Record
from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError
from sciforge.structures.neighbours import Neighbours, find_neighbours, require_apart
from sciforge.structures.structure import Structure, require_physical

DENSE_ATOMS = 64  # molecules up to this size may take the dense layout
DENSE_WASTE = 1.6  # how many more pairs than the packed layout it may then compute
BEYOND = 2.0  # padding edges lie at this many cutoffs, where every function of distance is 0


def split_energy(energy_eV: float) -> Tensor:
    """Return an energy as two float32 whose sum in float64 is exact to about 1e-14 of it.

    >>> high, low = split_energy(-17617.123456789).tolist()
    >>> abs(high + low + 17617.123456789) < 1e-9
    True
    """
    high = np.float32(energy_eV)
    return torch.tensor([high, np.float32(energy_eV - float(high))], dtype=torch.float32)


def joined_energy(pair: Tensor) -> Tensor:
    """Return the float64 sum of high and low parts along the last axis."""
    return pair.double().sum(-1)


@dataclass(frozen=True)
class AtomsCodec(Settings):
    """Structures to graphs; what is None is fitted on the training split.

    Args:
        cutoff_A: how far an atom sees.
        neighbours: mean number of neighbours, by which sums over them are scaled.
        force_eV_A: root mean square force component, the scale of atomic energies.
        elements: atomic numbers in the training data.
    """

    cutoff_A: float = 5.0
    neighbours: float | None = None
    force_eV_A: float | None = None
    elements: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.cutoff_A <= 20:
            raise ConfigError(
                f"atomscodec.cutoff_A is {self.cutoff_A}; it must be between 1 and 20 angstrom"
            )

    def fit_all(self, stores: Sequence[Any]) -> Self:
        """Return a copy completed from the training splits of all tasks: the elements of all, the
        force of the first that has any.
        """
        fitted = [self.fit(store) for store in stores]
        labelled = [c for c, s in zip(fitted, stores, strict=True) if s.meta["forces"]]
        elements = self.elements or tuple(
            sorted({element for codec in fitted for element in codec.elements})
        )
        return replace(fitted[0], elements=elements, force_eV_A=(labelled or fitted)[0].force_eV_A)

    def fit(self, store: Any) -> Self:
        """Return a copy completed from the training split; raises DataError where the store's
        neighbours end earlier.
        """
        stored = store.meta["cutoff_A"]
        if stored < self.cutoff_A:
            raise DataError(
                f"neighbours were listed up to {stored} angstrom, the model wants {self.cutoff_A};"
                f" prepare again with --cutoff-A {self.cutoff_A}",
                store.path,
            )
        records = store.split("train")
        sample = [
            records[i]
            for i in np.linspace(0, len(records) - 1, min(len(records), 1000)).astype(int)
        ]
        near = [
            (np.linalg.norm(self._edges(r)[1], axis=1) < self.cutoff_A).sum() / len(r["numbers"])
            for r in sample
        ]
        forces = [r["forces_eV_A"] for r in sample if np.isfinite(r["forces_eV_A"]).all()]
        force = np.sqrt(np.mean(np.concatenate(forces) ** 2)) if forces else 1.0
        return replace(
            self,
            neighbours=self.neighbours or max(float(np.mean(near)), 1.0),
            force_eV_A=self.force_eV_A or float(force) or 1.0,
            elements=self.elements or tuple(store.meta["elements"]),
        )

    def _edges(self, record: Record) -> tuple[Neighbours, np.ndarray]:
        near = Neighbours(
            record["receiver"], record["sender"], np.asarray(record["shift"], np.int32)
        )
        return near, near.vectors_A(record["pos_A"], record["cell_A"])

    def encode(self, record: Record, displaced_A: np.ndarray | None = None) -> Example:
        """Return the graph of a record with its labels.

        Args:
            record: a stored structure.
            displaced_A: displacements [N, 3] added to the positions first (denoising); the
                neighbours stay those stored.
        """
        pos = np.asarray(record["pos_A"], float)
        if displaced_A is not None:
            record = {**record, "pos_A": pos + displaced_A}
        near, vectors_A = self._edges(record)
        inside = (vectors_A**2).sum(1) < self.cutoff_A**2
        number = np.asarray(record["numbers"], np.int64)
        known = {"charge": record.get("charge", 0), "spin": record.get("spin", 1), "level": 0}
        return {
            "number": torch.from_numpy(number),
            "receiver": torch.from_numpy(np.asarray(near.receiver_E[inside], np.int64)),
            "sender": torch.from_numpy(np.asarray(near.sender_E[inside], np.int64)),
            "edge_A": torch.from_numpy(vectors_A[inside]),
            "volume_A3": torch.tensor(
                abs(np.linalg.det(record["cell_A"])) or 1.0, dtype=torch.float64
            ),
            "images": torch.tensor(bool(np.any(record["shift"]))),
            **{name: torch.tensor(int(value)) for name, value in known.items()},
            **_labels(record, len(number)),
        }

    def record_of(self, structure: Structure) -> dict[str, Any]:
        """Return the record of a structure that is in no store; raises DataError where it is not
        physical.
        """
        require_physical(structure)
        near = find_neighbours(
            structure.pos_A_N3, structure.cell_A_33, structure.pbc_3, self.cutoff_A
        )
        require_apart(structure, near)
        return {
            "numbers": structure.numbers_N,
            "pos_A": structure.pos_A_N3,
            "cell_A": structure.cell_A_33,
            "pbc": structure.pbc_3,
            "receiver": near.receiver_E,
            "sender": near.sender_E,
            "shift": near.shift_E3,
            "energy_eV": np.nan if structure.energy_eV is None else structure.energy_eV,
            "forces_eV_A": _or_nan(structure.forces_eV_A_N3, (len(structure), 3)),
            "stress_eV_A3": _or_nan(structure.stress_eV_A3_6, (6,)),
            "charge": structure.charge,
            "spin": structure.spin,
            "level": structure.level,
            "name": structure.name,
        }

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Return one batch, dense for small molecules and packed otherwise; the model's answer
        is the same.
        """
        layout = _dense if _dense_pays(examples) else _packed
        batch = layout(examples, BEYOND * self.cutoff_A)
        batch["size"] = torch.tensor([len(x["number"]) for x in examples])
        whole = (
            "volume_A3",
            "charge",
            "spin",
            "level",
            "energy_eV",
            "energy_known",
            "forces_known",
        )
        for name in (*whole, "stress_eV_A3", "stress_known"):
            batch[name] = torch.stack([x[name] for x in examples])
        return batch


def _or_nan(value: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, np.nan) if value is None else value


def _labels(record: Mapping[str, Any], size: int) -> dict[str, Tensor]:
    """Return labels with zeros where they are missing, and whether each is there."""
    energy = float(record.get("energy_eV", np.nan))
    forces = np.asarray(record.get("forces_eV_A", np.full((size, 3), np.nan)), float)
    stress = np.asarray(record.get("stress_eV_A3", np.full(6, np.nan)), float)
    return {
        "energy_eV": split_energy(np.nan_to_num(energy)),
        "energy_known": torch.tensor(bool(np.isfinite(energy))),
        "forces_eV_A": torch.from_numpy(np.nan_to_num(forces)),
        "forces_known": torch.tensor(bool(np.isfinite(forces).all())),
        "stress_eV_A3": torch.from_numpy(np.nan_to_num(stress)),
        "stress_known": torch.tensor(bool(np.isfinite(stress).all())),
    }


def _degree(example: Example) -> int:
    """Return the largest number of neighbours of any atom, at least 1 so that no axis is empty."""
    counts = torch.bincount(example["receiver"], minlength=1)
    return max(int(counts.max()), 1)


def _dense_pays(examples: Sequence[Example]) -> bool:
    atoms = [len(x["number"]) for x in examples]
    if max(atoms) > DENSE_ATOMS or any(bool(x["images"]) for x in examples):
        return False
    return len(atoms) * max(atoms) ** 2 <= DENSE_WASTE * sum(atoms) * (
        1 + max(map(_degree, examples))
    )


def _dense(examples: Sequence[Example], beyond_A: float) -> Batch:
    """Lay molecules out as [B, A, A]: every atom is a neighbour of every other, itself and
    ghosts beyond the cutoff.
    """
    num, most = len(examples), max(len(x["number"]) for x in examples)
    number = torch.zeros(num, most, dtype=torch.int64)
    edge_A = torch.zeros(num, most, most, 3, dtype=torch.float64)
    edge_A[..., 0] = beyond_A
    forces = torch.zeros(num, most, 3, dtype=torch.float64)
    for b, x in enumerate(examples):
        size = len(x["number"])
        number[b, :size] = x["number"]
        edge_A[b, x["receiver"], x["sender"]] = x["edge_A"]
        forces[b, :size] = x["forces_eV_A"]
    graph = torch.arange(num).repeat_interleave(most)
    return {"number": number, "edge_A": edge_A, "forces_eV_A": forces, "graph": graph}


def _packed(examples: Sequence[Example], beyond_A: float) -> Batch:
    """Lay all atoms out in one row [1, N] with J neighbours each, by index; places left over see
    themselves afar.
    """
    sizes = torch.tensor([len(x["number"]) for x in examples])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    total, most = int(starts[-1]), max(map(_degree, examples))
    sender = torch.arange(total)[:, None].repeat(1, most)
    edge_A = torch.zeros(1, total, most, 3, dtype=torch.float64)
    edge_A[..., 0] = beyond_A
    for start, x in zip(starts.tolist(), examples, strict=False):
        counts = torch.bincount(x["receiver"], minlength=len(x["number"]))
        first = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)[:-1]])
        # edges are sorted by receiver
        column = torch.arange(len(x["receiver"])) - first[x["receiver"]]
        edge_A[0, start + x["receiver"], column] = x["edge_A"]
        sender[start + x["receiver"], column] = start + x["sender"]
    return {
        "number": torch.cat([x["number"] for x in examples])[None],
        "edge_A": edge_A,
        "sender": sender,
        "forces_eV_A": torch.cat([x["forces_eV_A"] for x in examples])[None],
        "graph": torch.arange(len(examples)).repeat_interleave(sizes),
    }
