"""MACE 32x0e+32x1o, 2 layers, l <= 2 on edges, correlation 3, eager; interaction energy scaled
by the force RMS, its default.
"""

import mace  # noqa: F401  (before e3nn, whose constants torch loads only with the setting made here)

# isort: split
import numpy as np
import torch
from adapter import Frame, Peer, Statistics, main
from e3nn import o3
from mace.data import AtomicData, Configuration
from mace.modules import ScaleShiftMACE, gate_dict, interaction_classes
from mace.tools import AtomicNumberTable
from mace.tools.torch_geometric import Batch

FIRST = interaction_classes["RealAgnosticInteractionBlock"]
LATER = interaction_classes["RealAgnosticResidualInteractionBlock"]


class Mace(Peer):
    label = "MACE 32x0e+32x1o, 2 layers, l 2, corr. 3"
    package = "mace-torch"
    lr = 5e-3

    def __init__(self, cutoff: float, statistics: Statistics):
        self.cutoff = cutoff
        self.table = AtomicNumberTable(statistics.elements)
        self.model = ScaleShiftMACE(
            r_max=cutoff,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=LATER,
            interaction_cls_first=FIRST,
            num_interactions=2,
            num_elements=len(self.table),
            hidden_irreps=o3.Irreps("32x0e + 32x1o"),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(self.table)),
            avg_num_neighbors=statistics.neighbours,
            atomic_numbers=self.table.zs,
            correlation=3,
            gate=gate_dict["silu"],
            atomic_inter_scale=statistics.force_rms,
            atomic_inter_shift=0.0,
        )

    def graph(self, frame: Frame) -> AtomicData:
        configuration = Configuration(
            atomic_numbers=frame.numbers_N,
            positions=frame.pos_N3,
            properties={},
            property_weights={},
            cell=frame.cell_33,
            pbc=tuple(bool(periodic) for periodic in frame.pbc_3),
        )
        return AtomicData.from_config(configuration, z_table=self.table, cutoff=self.cutoff)

    def batch(self, graphs: list) -> dict[str, torch.Tensor]:
        return Batch.from_data_list(graphs).to_dict()

    def energy_forces(self, batch: dict, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        answer = self.model(batch, training=training)
        return answer["energy"], answer["forces"]


if __name__ == "__main__":
    main(Mace)
