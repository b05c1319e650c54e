"""The codec: padding says nothing of a molecule, and order of atoms nothing of its graph."""

import numpy as np
import torch

from sciforge.molecules.chemistry.graph import canonical, graph_of_mol, mol_of_smiles
from sciforge.molecules.data.codec import PAD, MoleculeCodec


def example(smiles: str) -> dict:
    mol = canonical(mol_of_smiles(smiles))[1]
    return MoleculeCodec().encode_graph(graph_of_mol(mol), mol)


def test_examples_are_padded_and_bonds_symmetric():
    batch = MoleculeCodec().collate([example("C#N"), example("CC(=O)O"), example("C")])
    assert batch["num"].tolist() == [2, 4, 1]
    assert batch["atom"].tolist() == [[0, 1, PAD, PAD], [0, 0, 2, 2], [0, PAD, PAD, PAD]]
    assert batch["hydrogens"].tolist() == [[1, 0, 0, 0], [3, 0, 0, 1], [4, 0, 0, 0]]
    assert torch.equal(batch["bond"], batch["bond"].transpose(1, 2))
    assert batch["bond"][0, 0].tolist() == [0, 3, 0, 0] and batch["bond"][1, 1].tolist() == [
        1,
        0,
        2,
        1,
    ]
    assert batch["bond"][2].sum() == 0


def test_other_keys_are_stacked():
    examples = [
        {**example("CC"), "label": torch.tensor([1.0, 2.0])},
        {**example("C"), "label": torch.tensor([3.0, 4.0])},
    ]
    assert MoleculeCodec().collate(examples)["label"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_statistics_of_properties_come_from_the_store():
    class Prepared:
        meta = {"properties": [{"name": "logp", "mean": 1.0, "std": 2.0}]}

    codec = MoleculeCodec().fit(Prepared())
    assert (codec.properties, codec.means, codec.stds) == (("logp",), (1.0,), (2.0,))


def test_a_record_of_a_store_is_encoded_as_its_graph():
    mol = canonical(mol_of_smiles("c1ccccc1O"))[1]
    graph = graph_of_mol(mol)
    made = MoleculeCodec().encode_graph(graph, mol)
    assert made["atom"].dtype == torch.int64
    np.testing.assert_array_equal(made["bond"].numpy()[:, 2], graph.order_M)
