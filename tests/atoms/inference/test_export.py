"""The exported program gives what the potential gives, for other sizes than were traced and
however it is padded.
"""

import json

import pytest
import torch
from test_outputs_atoms import frames, tiny_checkpoint

from sciforge.atoms.data.codec import _packed
from sciforge.atoms.inference.export import (
    BESIDE,
    Export,
    ExportedPotential,
    example_inputs,
    packed_program,
)
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError

EXACT = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture(scope="module", params=[pytest.param("float32", marks=pytest.mark.slow), "float64"])
def exported(request, tmp_path_factory):
    """Return the model in a precision, the program out of its file, the notes in the file and
    the codec.
    """
    folder = tmp_path_factory.mktemp("export")
    tiny_checkpoint(folder / "tiny")
    predictor = Model.load(folder / "tiny", "cpu")
    path = Export(precision=request.param).run(predictor).save(folder / "potential.pt2")
    notes = {BESIDE: ""}
    program = torch.export.load(path, extra_files=notes).module()
    model = predictor.network.to(getattr(torch, request.param))
    return model, program, json.loads(notes[BESIDE]), predictor.codec, EXACT[request.param]


@pytest.mark.parametrize("sizes", [(2, 2), (11, 4), (40, 25)])
def test_other_sizes_than_traced(exported, sizes):
    model, program, _, _, exact = exported
    inputs = example_inputs(model, *sizes, seed=7)
    for wanted, found in zip(packed_program(model)(*inputs), program(*inputs), strict=True):
        assert wanted.dtype == found.dtype and not found.requires_grad
        assert (wanted - found).abs().max() <= exact * wanted.abs().max().clamp(min=1)


def packed(codec, model, structure, places=0, ghosts=0):
    """Return a structure's inputs, with places and ghosts left over."""
    batch = _packed([codec.encode(codec.record_of(structure))], 2 * codec.cutoff_A)
    number_N, edge_NJ3, sender_NJ = batch["number"][0], batch["edge_A"][0], batch["sender"]
    size = len(number_N)
    far = torch.tensor([2 * codec.cutoff_A, 0, 0], dtype=torch.float64)
    edge = far.repeat(size + ghosts, edge_NJ3.shape[1] + places, 1)
    edge[:size, : edge_NJ3.shape[1]] = edge_NJ3
    sender = torch.zeros(edge.shape[:2], dtype=torch.int64)
    sender[:size, : edge_NJ3.shape[1]] = sender_NJ
    return torch.nn.functional.pad(number_N, (0, ghosts)), edge.to(model.scale_eV.dtype), sender


@pytest.mark.parametrize("which", [0, 6])
def test_a_structure_gets_the_potential_s_own_answer_however_padded(exported, which):
    model, program, _, codec, exact = exported
    structure = frames()[which]
    batch = codec.collate([codec.encode(codec.record_of(structure))])
    batch = {
        k: v.to(model.scale_eV.dtype) if v.is_floating_point() else v for k, v in batch.items()
    }
    true = model(batch, stress=True)
    size, loose = len(structure), 30 * exact  # dense and packed layouts add in another order
    for places, ghosts in ((0, 0), (3, 0), (1, 4)):
        atomic_N, forces_N3, virial_33, _ = program(
            *packed(codec, model, structure, places, ghosts)
        )
        assert float(atomic_N.sum() - true["energy_eV"][0].detach()) == pytest.approx(
            0, abs=100 * loose
        )
        torch.testing.assert_close(
            forces_N3[:size], true["forces_eV_A"][0, :size], atol=loose, rtol=loose
        )
        assert not atomic_N[size:].any() and not forces_N3[size:].any()
        if structure.pbc_3.all():
            stress = (virial_33 / structure.volume_A3)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            torch.testing.assert_close(stress, true["stress_eV_A3"][0], atol=loose, rtol=loose)


def test_the_file_says_what_it_is(exported, tmp_path):
    notes = exported[2]
    assert notes["cutoff_A"] == 4.0 and notes["elements"] == ["H", "C", "O"]
    assert "sender_NJ" in notes["conventions"] and notes["weights_sha256"]
    with pytest.raises(ConfigError, match="end it with .pt2"):
        ExportedPotential(None, notes).save(tmp_path / "potential.pt")
    table = ExportedPotential(None, notes).to_pandas()
    assert table.loc[0, "elements"] == "H C O" and table.loc[0, "cutoff_A"] == 4.0
