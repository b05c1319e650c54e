"""A Verlet list: pairs a little beyond the cutoff, listed again only when a pair not listed could
have come inside.

Legend: N atoms, E listed pairs, J neighbours of an atom.
"""

import numpy as np
import torch
from torch import Tensor

from sciforge.atoms.data.codec import BEYOND
from sciforge.errors import DataError
from sciforge.structures.neighbours import find_neighbours
from sciforge.structures.structure import OVERLAP_A


class VerletList:
    """Pairs within cutoff + skin of the positions they were listed at, and their vectors at any
    later positions.

    Args:
        cutoff_A: how far the model sees.
        skin_A: how much further pairs are listed; 0 lists them anew whenever an atom moves.
        device: where vectors are computed.
    """

    def __init__(self, cutoff_A: float, skin_A: float, device: torch.device) -> None:
        self.cutoff_A, self.skin_A, self.device = cutoff_A, skin_A, device
        self.rebuilds = 0
        self.pos_A_N3 = np.zeros((0, 3))
        self.cell_A_33 = np.zeros((3, 3))
        self.pbc_3 = np.zeros(3, bool)

    def covers(self, pos_A_N3: np.ndarray, cell_A_33: np.ndarray, pbc_3: np.ndarray) -> bool:
        """Return whether every pair that is now within the cutoff is surely listed.

        With positions r = r0 F + u, where F maps the old lattice onto the new, a vector d0 of the
        old structure is now d0 F + u_j - u_i, which is no shorter than s |d0| - |u_i| - |u_j| with
        s the least singular value of F. Pairs not listed had |d0| > cutoff + skin. A drift common
        to all u is nobody's motion and is taken off.
        """
        if self.rebuilds == 0 or len(pos_A_N3) != len(self.pos_A_N3) or (pbc_3 != self.pbc_3).any():
            return False
        least, carried = 1.0, self.pos_A_N3
        if (cell_A_33 != self.cell_A_33).any() and pbc_3.any():
            old, new = self.cell_A_33[pbc_3], cell_A_33[pbc_3]
            # F - 1; no strain across directions that do not repeat
            strain = np.linalg.pinv(old) @ (new - old)
            least = np.linalg.svd(np.eye(3) + strain, compute_uv=False)[-1]
            carried = carried + carried @ strain
        moved = pos_A_N3 - carried
        moved -= moved.mean(0)
        squared = np.einsum("ni,ni->n", moved, moved)
        farthest = np.sqrt(np.partition(squared, -2)[-2:]).sum() if len(squared) > 1 else 0.0
        return bool(least * (self.cutoff_A + self.skin_A) - farthest >= self.cutoff_A)

    def update(self, pos_A_N3: np.ndarray, cell_A_33: np.ndarray, pbc_3: np.ndarray) -> None:
        """List the pairs anew where `covers` does not hold."""
        if self.covers(pos_A_N3, cell_A_33, pbc_3):
            return
        near = find_neighbours(pos_A_N3, cell_A_33, pbc_3, self.cutoff_A + self.skin_A)
        self.pos_A_N3, self.cell_A_33, self.pbc_3 = pos_A_N3.copy(), cell_A_33.copy(), pbc_3.copy()
        self.receiver_E = torch.from_numpy(near.receiver_E).to(self.device, torch.int64)
        self.sender_E = torch.from_numpy(near.sender_E).to(self.device, torch.int64)
        self.shift_E3 = torch.from_numpy(near.shift_E3).to(self.device, torch.float64)
        self.offset_E3, self.offset_cell_33 = None, None
        self.rebuilds += 1

    def vectors_A(self, pos_A_N3: np.ndarray, cell_A_33: np.ndarray) -> Tensor:
        """Return the vectors [E, 3] of all listed pairs, receiver to sender, in float64."""
        pos = torch.from_numpy(pos_A_N3).to(self.device)
        vectors = pos.index_select(0, self.sender_E).sub_(pos.index_select(0, self.receiver_E))
        if self.pbc_3.any():
            if self.offset_cell_33 is None or (cell_A_33 != self.offset_cell_33).any():
                self.offset_cell_33 = cell_A_33.copy()
                self.offset_E3 = self.shift_E3 @ torch.from_numpy(self.offset_cell_33).to(
                    self.device
                )
            vectors.add_(self.offset_E3)
        return vectors

    def table(
        self, pos_A_N3: np.ndarray, cell_A_33: np.ndarray, dtype: torch.dtype, prune: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return edge vectors [1, N, J, 3] and senders [N, J] as the packed layout of the codec has
        them.

        Args:
            pos_A_N3: present positions, for which `update` has been called.
            cell_A_33: present lattice vectors.
            dtype: of the vectors; they are subtracted in float64 first.
            prune: leave out pairs of the skin; False is for measuring what that saves.

        Raises:
            DataError: two atoms lie closer than any bond.
        """
        vectors, receiver, sender = (
            self.vectors_A(pos_A_N3, cell_A_33),
            self.receiver_E,
            self.sender_E,
        )
        # four times as fast as vecdot, for three components
        squared = torch.einsum("ei,ei->e", vectors, vectors)
        if len(squared) and squared.min() < OVERLAP_A**2:
            nearest = int(squared.argmin())
            raise_overlap(
                int(receiver[nearest]), int(sender[nearest]), float(squared[nearest].sqrt())
            )
        if prune:
            inside = (squared < self.cutoff_A**2).nonzero()[:, 0]
            vectors, receiver, sender = (
                x.index_select(0, inside) for x in (vectors, receiver, sender)
            )
        size = len(pos_A_N3)
        counts = torch.bincount(receiver, minlength=size)
        most = max(int(counts.max()), 1)  # no axis is empty
        first = counts.cumsum(0) - counts
        # Pairs are sorted by receiver: the place of one is receiver * J + how many of that receiver
        # came before.
        offset = torch.arange(size, device=self.device) * most - first
        place = offset.index_select(0, receiver) + torch.arange(len(receiver), device=self.device)
        edge_A = torch.zeros(size * most, 3, dtype=dtype, device=self.device)
        edge_A[:, 0] = BEYOND * self.cutoff_A
        edge_A.index_copy_(0, place, vectors.to(dtype))
        senders = (
            torch.arange(size, device=self.device)
            .repeat_interleave(most)
            .index_copy_(0, place, sender)
        )
        return edge_A.view(1, size, most, 3), senders.view(size, most)


def all_pairs(
    pos_A_N3: np.ndarray, cutoff_A: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the edge vectors [1, N, N, 3] of the codec's dense layout, for a molecule that needs
    no list.

    Raises:
        DataError: two atoms lie closer than any bond.
    """
    vectors = pos_A_N3[None] - pos_A_N3[:, None]
    np.einsum("iic->ic", vectors)[:, 0] = BEYOND * cutoff_A  # an atom does not see itself
    squared = np.einsum("ijc,ijc->ij", vectors, vectors)
    if (nearest := int(squared.argmin())) is not None and squared.flat[nearest] < OVERLAP_A**2:
        raise_overlap(*divmod(nearest, len(pos_A_N3)), float(squared.flat[nearest]) ** 0.5)
    return torch.from_numpy(vectors[None]).to(device, dtype)


def raise_overlap(first: int, second: int, distance_A: float) -> None:
    """Raise DataError for two atoms, counted from 0, that lie closer than any bond."""
    raise DataError(
        f"atoms {first + 1} and {second + 1} are {distance_A:.3f} angstrom apart; "
        "check the unit of length, or take a shorter time step"
    )
