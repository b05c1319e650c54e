"""sciforge's potential, preset mini, eager."""

import torch
from adapter import Frame, Peer, Statistics, main

from sciforge.atoms import AtomsCodec
from sciforge.atoms.model.potential import MODELS
from sciforge.structures.structure import Structure


class Sciforge(Peer):
    label = "sciforge mini"
    package = "sciforge"
    lr = 5e-3

    def __init__(self, cutoff: float, statistics: Statistics):
        self.codec = AtomsCodec(
            cutoff_A=cutoff,
            neighbours=statistics.neighbours,
            force_eV_A=statistics.force_rms,
            elements=tuple(statistics.elements),
        )
        self.model = MODELS["mini"].build(self.codec)

    def graph(self, frame: Frame) -> dict[str, torch.Tensor]:
        structure = Structure(
            frame.numbers_N.astype("int64"), frame.pos_N3.astype(float), frame.cell_33, frame.pbc_3
        )
        return self.codec.encode(self.codec.record_of(structure))

    def batch(self, graphs: list) -> dict[str, torch.Tensor]:
        batch = self.codec.collate(graphs)
        return {
            key: value.float() if value.is_floating_point() else value
            for key, value in batch.items()
        }

    def energy_forces(self, batch: dict, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        answer = self.model(batch, create_graph=training)
        real = batch["number"] > 0
        return answer["energy_eV"], answer["forces_eV_A"][real]


if __name__ == "__main__":
    main(Sciforge)
