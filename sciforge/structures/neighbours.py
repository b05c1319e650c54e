"""Neighbour lists: pairs within a cutoff, periodic images included, sorted by the atom that
receives.
"""

from dataclasses import dataclass

import numpy as np

from sciforge.errors import DataError
from sciforge.structures.structure import OVERLAP_A, Structure


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Directed pairs, both directions present, sorted by receiver, then sender, then shift.

    The vector of an edge is pos[sender] + shift @ cell - pos[receiver]: it points from the receiver
    to the sender.

    Args:
        receiver_E: int32.
        sender_E: int32; equals the receiver where an atom sees its own image.
        shift_E3: int32, in lattice vectors.
    """

    receiver_E: np.ndarray
    sender_E: np.ndarray
    shift_E3: np.ndarray

    def __len__(self) -> int:
        return len(self.receiver_E)

    def vectors_A(self, pos_A_N3: np.ndarray, cell_A_33: np.ndarray) -> np.ndarray:
        """Return the edge vectors [E, 3] in float64."""
        return pos_A_N3[self.sender_E] - pos_A_N3[self.receiver_E] + self.shift_E3 @ cell_A_33


def find_neighbours(
    pos_A_N3: np.ndarray, cell_A_33: np.ndarray, pbc_3: np.ndarray, cutoff_A: float
) -> Neighbours:
    """Return every pair closer than the cutoff, also in cells smaller than it and with mixed
    periodicity.
    """
    from vesin import NeighborList

    finder = NeighborList(cutoff=cutoff_A, full_list=True)
    box = cell_A_33 if np.any(pbc_3) else np.zeros((3, 3))
    receiver, sender, shift = finder.compute(
        points=np.ascontiguousarray(pos_A_N3, float),
        box=np.ascontiguousarray(box, float),
        periodic=np.asarray(pbc_3, bool),
        quantities="ijS",
    )
    shift = np.asarray(shift, np.int32).reshape(-1, 3)
    order = np.lexsort((*shift.T[::-1], sender, receiver))
    return Neighbours(
        receiver[order].astype(np.int32), sender[order].astype(np.int32), shift[order]
    )


def require_apart(structure: Structure, neighbours: Neighbours) -> None:
    """Raise DataError where two atoms lie closer than any bond; names them."""
    if len(neighbours):
        distance = np.linalg.norm(
            neighbours.vectors_A(structure.pos_A_N3, structure.cell_A_33), axis=1
        )
        if (nearest := int(distance.argmin())) is not None and distance[nearest] < OVERLAP_A:
            pair = int(neighbours.receiver_E[nearest]) + 1, int(neighbours.sender_E[nearest]) + 1
            raise DataError(
                f"atoms {pair[0]} and {pair[1]} are {distance[nearest]:.3f} angstrom apart; "
                "remove the structure or check its unit of length",
                structure.name or None,
            )
