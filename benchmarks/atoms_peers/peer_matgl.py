"""TensorNet as MatGL sets it by default (64 units, 2 blocks), extensive; energies scaled by the
force RMS, as in MatPES.
"""

import torch
from adapter import Frame, Peer, Statistics, main
from ase import Atoms
from ase.data import chemical_symbols
from matgl.apps.pes import Potential
from matgl.ext.ase import Atoms2Graph
from matgl.models import TensorNet
from torch_geometric.data import Batch


class MatGl(Peer):
    label = "TensorNet-64, 2 blocks (MatGL)"
    package = "matgl"
    lr = 1e-3

    def __init__(self, cutoff: float, statistics: Statistics):
        elements = tuple(chemical_symbols[number] for number in statistics.elements)
        self.converter = Atoms2Graph(elements, cutoff)
        energies = TensorNet(element_types=elements, cutoff=cutoff, is_intensive=False)
        self.model = Potential(energies, data_std=statistics.force_rms, calc_stresses=False)

    def graph(self, frame: Frame):
        atoms = Atoms(frame.numbers_N, frame.pos_N3, cell=frame.cell_33, pbc=frame.pbc_3)
        graph, lattice, _ = self.converter.get_graph(atoms)
        return graph, lattice.reshape(3, 3)

    def batch(self, graphs: list):
        return Batch.from_data_list([graph for graph, _ in graphs]), torch.stack(
            [lattice for _, lattice in graphs]
        )

    def energy_forces(self, batch, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        energy, forces, *_ = self.model(*batch)
        return energy.reshape(-1), forces


if __name__ == "__main__":
    main(MatGl)
