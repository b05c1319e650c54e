"""NequIP 4 layers, l <= 1, 32 features, no parity, eager; energies scaled by the force RMS, as
its guide advises.
"""

import torch
from adapter import Frame, Peer, Statistics, main
from nequip.data import AtomicDataDict as keys
from nequip.data import compute_neighborlist_, from_dict
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state

ELEMENTS = {1: "H", 6: "C", 7: "N", 8: "O"}


class Nequip(Peer):
    label = "NequIP 4 layers, l 1, 32 features, no parity"
    package = "nequip"
    lr = 5e-3

    def __init__(self, cutoff: float, statistics: Statistics):
        set_global_state()
        self.cutoff = cutoff
        self.types = torch.zeros(119, dtype=torch.long)
        self.types[statistics.elements] = torch.arange(len(statistics.elements))
        self.model = NequIPGNNModel(
            seed=torch.initial_seed() % 2**31,
            model_dtype="float32",
            compile_mode="eager",
            type_names=[ELEMENTS[number] for number in statistics.elements],
            r_max=cutoff,
            num_layers=4,
            l_max=1,
            parity=False,
            num_features=32,
            avg_num_neighbors=statistics.neighbours,
            per_type_energy_scales=statistics.force_rms,
            per_type_energy_shifts=0.0,
        )

    def graph(self, frame: Frame) -> dict[str, torch.Tensor]:
        graph = {
            # float64, as it wishes; the model is float32
            keys.POSITIONS_KEY: torch.from_numpy(frame.pos_N3),
            keys.ATOM_TYPE_KEY: self.types[torch.from_numpy(frame.numbers_N).long()],
            keys.PBC_KEY: torch.from_numpy(frame.pbc_3),
        }
        if frame.pbc_3.any():
            graph[keys.CELL_KEY] = torch.from_numpy(frame.cell_33)
        return compute_neighborlist_(from_dict(graph), self.cutoff)

    def batch(self, graphs: list) -> dict[str, torch.Tensor]:
        return keys.batched_from_list(graphs)

    def energy_forces(self, batch: dict, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        answer = self.model(batch)
        return answer[keys.TOTAL_ENERGY_KEY].flatten(), answer[keys.FORCE_KEY]


if __name__ == "__main__":
    main(Nequip)
