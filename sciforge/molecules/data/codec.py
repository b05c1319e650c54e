"""Stored graphs -> padded tensors.

Legend of shape letters: B batch, N atoms, M bonds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from sciforge.core.domain import Batch, Example, Record
from sciforge.core.files.settings import Settings
from sciforge.molecules.chemistry.graph import Graph

if TYPE_CHECKING:
    from rdkit import Chem

PAD = -1
RING_SIZES = (0, 3, 4, 5, 6, 7, 8)  # of the ring classes 0..6; the last holds all larger ones
# what is given for each atom: rank and seed are of trajectories, the targets of hidden atoms
# of self_supervised.py
PER_ATOM = ("atom", "hydrogens", "flags", "rank", "seed", "target_atom", "target_hydrogens")
PADDED = ("atom", "target_atom", "target_hydrogens")  # with PAD, the others with 0
PER_BOND = ("bond", "target_bond")  # rows (i, j, order), which become symmetric matrices


def flags_of(mol: "Chem.Mol") -> tuple[np.ndarray, np.ndarray]:
    """Return the hydrogens of each atom, uint8 [N], and its flags, uint8 [N].

    Bit 0 of the flags: aromatic. Bits 1 to 3: class of the smallest ring that holds the atom, 0 for
    none, 1 to 6 for rings of 3, 4, 5, 6, 7 and at least 8 atoms. Other bits are 0.

    >>> from rdkit import Chem
    >>> hydrogens, flags = flags_of(Chem.MolFromSmiles("Cc1cc[nH]c1"))
    >>> hydrogens.tolist(), (flags & 1).tolist(), (flags >> 1).tolist()
    ([3, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 3, 3, 3, 3, 3])
    """
    smallest = [0] * mol.GetNumAtoms()
    for ring in sorted(mol.GetRingInfo().AtomRings(), key=len, reverse=True):
        for place in ring:
            smallest[place] = len(ring)
    hydrogens, flags = [], []
    # mol.GetAtoms() is Python and takes as long as all the rest
    for place, size in enumerate(smallest):
        atom = mol.GetAtomWithIdx(place)
        hydrogens.append(atom.GetTotalNumHs())
        flags.append(atom.GetIsAromatic() | (min(max(size - 2, 0), len(RING_SIZES) - 1) << 1))
    return np.array(hydrogens, np.uint8), np.array(flags, np.uint8)


@dataclass(frozen=True)
class MoleculeCodec(Settings):
    """Graphs as integers; stored properties in units of their std.

    Args:
        properties: names of the stored properties, in the order of the column.
        means, stds: of the properties over the training molecules.
    """

    properties: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()

    def fit(self, store: Any) -> Self:
        """Return a copy with the statistics of the stored properties, which preparation took
        from training only.
        """
        statistics = store.meta.get("properties", [])
        columns = [tuple(entry[key] for entry in statistics) for key in ("name", "mean", "std")]
        return type(self)(*columns)

    def encode(self, record: Record) -> Example:
        """Return atom, hydrogens, flags int64 [N] and bond int64 [M, 3]; works on a record or a
        graph's arrays.
        """
        return {name: _int64(record[name]) for name in (*PER_ATOM, "bond") if name in record}

    def encode_graph(self, graph: Graph, mol: "Chem.Mol") -> Example:
        """Return the example of a graph and its molecule, whose atoms are in the same order."""
        hydrogens, flags = flags_of(mol)
        bond = np.concatenate([graph.pair_M2, graph.order_M[:, None]], axis=1)
        return self.encode(
            {"atom": graph.atom_N, "bond": bond, "hydrogens": hydrogens, "flags": flags}
        )

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Pad examples into one batch.

        Returns:
            atom int64 [B, N], PAD behind the last; hydrogens and flags int64 [B, N], 0 there; bond
            int64 [B, N, N], symmetric bond orders 0 to 3; num int64 [B]; every other key of the
            examples, all of one shape, stacked.
        """
        num_B = torch.tensor([len(example["atom"]) for example in examples])
        size = max(int(num_B.max()), 1)
        batch: Batch = {"num": num_B}
        for name in PER_ATOM:
            if name in examples[0]:
                fill = PAD if name in PADDED else 0
                batch[name] = torch.full((len(examples), size), fill, dtype=torch.long)
                for row, example in enumerate(examples):
                    batch[name][row, : len(example[name])] = example[name]
        for name in PER_BOND:
            if name in examples[0]:
                batch[name] = _matrices([example[name] for example in examples], size)
        for name in examples[0].keys() - {*PER_ATOM, *PER_BOND}:
            batch[name] = torch.stack([example[name] for example in examples])
        return batch


def _matrices(bonds: Sequence[Tensor], size: int) -> Tensor:
    """Return symmetric matrices of bond orders [B, N, N] from rows (i, j, order), one tensor a
    molecule.
    """
    bond_BNN = torch.zeros(len(bonds), size, size, dtype=torch.long)
    row_M = torch.repeat_interleave(torch.tensor([len(rows) for rows in bonds]))
    i_M, j_M, order_M = torch.cat(list(bonds)).unbind(1)
    bond_BNN[row_M, i_M, j_M] = order_M
    bond_BNN[row_M, j_M, i_M] = order_M
    return bond_BNN


def _int64(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values).astype(np.int64))
