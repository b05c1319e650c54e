"""TensorNet 128, 1 layer, of TorchMD-Net 3; energies scaled by their deviation (its
`standardize`).
"""

import torch
from adapter import Frame, Peer, Statistics, main
from torchmdnet.models.model import create_model

SETTINGS = {
    "model": "tensornet",
    "embedding_dimension": 128,
    "num_layers": 1,
    "num_rbf": 32,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "cutoff_lower": 0.0,
    "max_z": 20,
    "max_num_neighbors": 64,
    "equivariance_invariance_group": "O(3)",
    "static_shapes": False,
    "output_model": "Scalar",
    "reduce_op": "add",
    "derivative": True,
    "prior_model": None,
    "atom_filter": -1,
    "precision": 32,
}


class TensorNet(Peer):
    label = "TensorNet-128, 1 layer (TorchMD-Net)"
    package = "torchmd-net"
    lr = 2e-3

    def __init__(self, cutoff: float, statistics: Statistics):
        self.model = create_model(
            SETTINGS | {"cutoff_upper": cutoff}, std=torch.tensor(statistics.energy_std)
        )

    def graph(self, frame: Frame) -> dict[str, torch.Tensor]:
        """No more than tensors: this model finds its neighbours in its forward pass."""
        return {
            "z": torch.from_numpy(frame.numbers_N).long(),
            "pos": torch.from_numpy(frame.pos_N3).float(),
            "box": torch.from_numpy(frame.cell_33).float() if frame.pbc_3.any() else None,
        }

    def batch(self, graphs: list) -> dict[str, torch.Tensor]:
        counts = torch.tensor([len(graph["z"]) for graph in graphs])
        return {
            "z": torch.cat([graph["z"] for graph in graphs]),
            "pos": torch.cat([graph["pos"] for graph in graphs]),
            "batch": torch.repeat_interleave(torch.arange(len(graphs)), counts),
            "box": graphs[0]["box"],
        }

    def energy_forces(self, batch: dict, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        energy, forces = self.model(**batch)
        return energy.flatten(), forces


if __name__ == "__main__":
    main(TensorNet)
