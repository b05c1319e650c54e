"""PaiNN 128, 3 interactions, of SchNetPack 2.0; energies unscaled, as in its tutorials."""

import typing

import torch
import torch.utils.data.dataloader
from adapter import Frame, Peer, Statistics, main

# SchNetPack 2.0.4 imports it; torch 2.13 has it no more
if not hasattr(torch.utils.data.dataloader, "T_co"):
    torch.utils.data.dataloader.T_co = typing.TypeVar("T_co", covariant=True)

import schnetpack.properties as keys  # noqa: E402
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances  # noqa: E402
from schnetpack.data.loader import _atoms_collate_fn  # noqa: E402
from schnetpack.model import NeuralNetworkPotential  # noqa: E402
from schnetpack.nn import CosineCutoff, GaussianRBF  # noqa: E402
from schnetpack.representation import PaiNN  # noqa: E402
from schnetpack.transform import MatScipyNeighborList  # noqa: E402


class Painn(Peer):
    label = "PaiNN 128, 3 interactions (SchNetPack)"
    package = "schnetpack"
    lr = 1e-3

    def __init__(self, cutoff: float, statistics: Statistics):
        basis = GaussianRBF(n_rbf=20, cutoff=cutoff)
        self.neighbours = MatScipyNeighborList(cutoff)
        self.model = NeuralNetworkPotential(
            representation=PaiNN(128, 3, radial_basis=basis, cutoff_fn=CosineCutoff(cutoff)),
            input_modules=[PairwiseDistances()],
            output_modules=[Atomwise(128, output_key=keys.energy), Forces()],
        )

    def graph(self, frame: Frame) -> dict[str, torch.Tensor]:
        graph = {
            keys.n_atoms: torch.tensor([len(frame.numbers_N)]),
            keys.Z: torch.from_numpy(frame.numbers_N).long(),
            keys.R: torch.from_numpy(frame.pos_N3),
            keys.cell: torch.from_numpy(frame.cell_33)[None],
            keys.pbc: torch.from_numpy(frame.pbc_3)[None],
        }
        graph = self.neighbours(graph)
        return {
            key: value.float() if value.is_floating_point() else value
            for key, value in graph.items()
        }

    def batch(self, graphs: list) -> dict[str, torch.Tensor]:
        return _atoms_collate_fn(graphs)

    def energy_forces(self, batch: dict, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        answer = self.model(dict(batch))  # a copy: the model writes into its input
        return answer[keys.energy], answer[keys.forces]


if __name__ == "__main__":
    main(Painn)
