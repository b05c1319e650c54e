"""From a generator to molecules in memory and in files: what generate and likelihoods promise
and refuse.
"""

import json
import math

import pandas as pd
import pytest
import torch
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from sciforge import api
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.molecules import (
    DOMAIN,
    Constraints,
    Generate,
    GeneratedMolecules,
    Grow,
    MoleculeNetConfig,
    Molecules,
    Sampling,
    generate,
)
from sciforge.molecules.chemistry.graph import canonical, graph_of_mol, mol_of_smiles
from sciforge.molecules.demo import kept
from sciforge.molecules.generation.unmasked_validity import possible, unmasked_validity
from sciforge.molecules.inference.likelihoods import Likelihoods, log_likelihoods

MOLECULES = (
    "CCO CC(=O)O c1ccccc1O CCN(CC)CC O=S(=O)(N)c1ccccc1 C1CCNCC1 FC(F)F Clc1ccncc1 N#CC CC(C)=O"
    " OCCO CNC".split()
)
OPTIONS = {"hardware": Hardware(device="cpu", threads=1), "seed": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A net that has hardly learnt anything: what it promises, it promises by law."""
    room = tmp_path_factory.mktemp("grow")
    (room / "known.smi").write_text(
        "".join(f"{smiles} m{i}\n" for i, smiles in enumerate(MOLECULES))
    )
    preparer = Molecules(
        files=(room / "known.smi",),
        split="random",
        shares=(0.8, 0.2, 0.0),
        properties=("logp", "size"),
    )
    api.prepare(preparer, room / "store")
    run = Run(
        data=room / "store",
        out=room / "run",
        model=MoleculeNetConfig(width=16, depth=1, heads=2),
        objective=Grow(conditions=("logp", "size")),
        schedule=Schedule(steps=3, batch=6),
        **OPTIONS,
    )
    return api.train(run).path


def test_what_is_drawn_is_a_sequence_with_a_table_pictures_and_files(checkpoint, tmp_path):
    molecules = Model.load(checkpoint, "cpu").generate(12, formula="C4H8O2", unmasked=8)
    assert (
        isinstance(molecules, GeneratedMolecules)
        and len(molecules) == 12
        and isinstance(molecules[0], Chem.Mol)
    )
    assert {CalcMolFormula(mol) for mol in molecules} == {"C4H8O2"}
    assert (
        molecules.to_pandas()["smiles"].tolist()
        == molecules.smiles()
        == [Chem.MolToSmiles(m) for m in molecules]
    )
    lines = [
        line.split("\t") for line in molecules.save(tmp_path / "new.smi").read_text().splitlines()
    ]
    assert lines == [[smiles, f"sciforge-{i}"] for i, smiles in enumerate(molecules.smiles())]
    report = json.loads((tmp_path / "new.json").read_text())
    assert report["molecules"] == 12 and report["options"]["formula"] == "C4H8O2"
    assert (
        set(report["mask_removed"]) == {"stop", "next", "add", "ring"}
        and 0 <= report["valid_without_mask"] <= 1
    )
    assert molecules.plot().images[0].get_array().std() > 0.02 and "<svg" in molecules._repr_html_()
    assert pd.read_csv(molecules.save(tmp_path / "new.csv")).shape == (12, 3)
    with pytest.raises(ConfigError, match=r"written as \.smi"):
        molecules.save(tmp_path / "new.doc")


@pytest.mark.filterwarnings("ignore:.* have no conformer")
def test_conformers_are_written_to_an_sdf(checkpoint, tmp_path):
    molecules = generate(checkpoint, 12, formula="C4H8O2", device="cpu")
    solid = [
        mol
        for mol in Chem.SDMolSupplier(str(molecules.save(tmp_path / "new.sdf")), removeHs=False)
        if mol
    ]
    assert solid and all(
        mol.GetConformer().Is3D() and CalcMolFormula(mol) == "C4H8O2" for mol in solid
    )
    flat = list(Chem.SDMolSupplier(str(molecules.to_sdf(tmp_path / "flat.sdf", conformers=False))))
    assert [Chem.MolToSmiles(mol) for mol in flat] == molecules.smiles()
    missing = json.loads((tmp_path / "new.json").read_text())["without_conformer"]
    assert len(solid) + missing == 12


@pytest.mark.parametrize(
    "asked",
    [
        Constraints(atoms=(8, 8)),
        Constraints(charge=-1, atoms=(2, 9)),
        Constraints(charge=2, atoms=(6, 14)),
        Constraints(rings=(2, 2), ring_sizes=(4, 6), atoms=(6, 12)),
        Constraints(formula="C6H6"),
        Constraints(formula="C3H7NO2S"),
        Constraints(scaffold="c1ccc2[nH]ccc2c1", atoms=(9, 16)),
        Constraints(forbidden=("C=O", "c1ccccc1"), types=("C", "N", "O", "F")),
        Constraints(scaffold="*c1ccncc1", forbidden=("NN",), atoms=(6, 15), charge=1),
    ],
    ids=lambda asked: str({k: v for k, v in vars(asked).items() if v != getattr(Constraints(), k)}),
)
def test_an_untaught_net_keeps_every_constraint(checkpoint, asked):
    molecules = generate(checkpoint, 60, **vars(asked), parallel=30, seed=3, device="cpu")
    assert len(molecules) == 60
    assert all(kept(smiles, asked) for smiles in molecules.smiles())


def test_growth_starts_at_marked_places_only(checkpoint):
    ring = Chem.MolFromSmarts("[$([cH])]1[$([cH])]c(F)[$([cH])][$([cH])]c1")
    molecules = generate(checkpoint, 40, scaffold="*c1ccc(F)cc1", atoms=(8, 14), device="cpu")
    assert all(mol.HasSubstructMatch(ring) for mol in molecules)


def test_the_same_seed_gives_the_same_molecules(checkpoint):
    first, again, other = (
        generate(checkpoint, 20, seed=seed, device="cpu").smiles() for seed in (5, 5, 6)
    )
    assert first == again != other


def test_wishes_reach_the_net(checkpoint):
    """Untold and told nets draw different molecules from the same random numbers."""
    plain = generate(checkpoint, 30, device="cpu").smiles()
    with pytest.warns(UserWarning, match="logp=8 lies outside of the range that the generator"):
        steered = generate(checkpoint, 30, want={"logp": 8.0, "size": 3.0}, device="cpu").smiles()
    assert plain != steered


@pytest.mark.parametrize(
    ("want", "message"),
    [
        (("logp=1", "logp=2"), "names 'logp' twice"),
        (("logp=nan",), "not finite"),
        (("logp=high",), "not NAME=VALUE"),
    ],
)
def test_wishes_that_would_be_dropped_are_refused(checkpoint, want, message):
    with pytest.raises(ConfigError, match=message):
        generate(checkpoint, 1, want=want, device="cpu")


def test_a_formula_does_not_silently_override_a_size(checkpoint):
    with pytest.raises(ConfigError, match="C3H8 has 3 heavy atoms, and atoms is"):
        generate(checkpoint, 1, formula="C3H8", atoms=(5, 9), device="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"formula": "C6H7"}, "odd hydrogen count"),
        ({"formula": "C2H20"}, "too many hydrogens"),
        ({"formula": "C6Xx2"}, "holds no Xx"),
        ({"formula": "benzene"}, "cannot be read"),
        ({"types": ("C", "Zn")}, "alphabet holds no 'Zn'"),
        ({"types": ("F", "O")}, "add C or N"),
        ({"scaffold": "c1ccccc1", "atoms": (1, 3)}, "the scaffold has 6 heavy atoms"),
        ({"scaffold": "CC(=O)C", "forbidden": ("C=O",)}, "holds the forbidden C=O"),
        ({"rings": (3, 2)}, "the fewest and the most rings"),
        ({"atoms": (0, 5)}, "1 to 64"),
        ({"ring_sizes": (2, 6)}, "3 to 24"),
        ({"rings": (3, 4), "atoms": (1, 5), "ring_sizes": (5, 6)}, "take more atoms than 5"),
        ({"num": 0}, "at least 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"num": "ten"}, "generate.num is 'ten'"),
        ({"atoms": "many"}, "generate.atoms is 'many'"),
        ({"scafold": "C"}, "did you mean 'scaffold'"),
        ({"want": ("logp",)}, "NAME=VALUE"),
        ({"want": ("qed=0.5",)}, "cannot be steered to 'qed'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(checkpoint, change, said):
    with pytest.raises(ConfigError, match=said):
        generate(checkpoint, **{"num": 5, **change}, device="cpu")


def test_python_and_the_command_line_share_one_set_of_defaults(checkpoint):
    """The settings class is what the command line parses; the function and the method add
    nothing of their own.
    """
    expected = Generate(seed=4).run(Model.load(checkpoint, "cpu")).smiles()
    assert generate(checkpoint, seed=4, device="cpu").smiles() == expected
    assert Model.load(checkpoint, "cpu").generate(seed=4).smiles() == expected
    assert DOMAIN.outputs["generate"] is Generate and len(expected) == Generate().num


@pytest.mark.parametrize(
    "scaffold", ["c1ccccc", "C(C)(C)(C)(C)C", "[Na+].[Cl-]", "[CH3]", "", "[13CH4]"]
)
def test_bad_scaffolds_are_named(checkpoint, scaffold):
    with pytest.raises(DataError) as caught:
        generate(checkpoint, 2, scaffold=scaffold, device="cpu")
    assert "\n" not in str(caught.value) and (scaffold in str(caught.value) or not scaffold)


def test_without_the_mask_validity_is_a_matter_of_luck(checkpoint):
    model = Model.load(checkpoint, "cpu").network.eval()
    share = unmasked_validity(model, 64, Sampling(parallel=64), torch.zeros(4), room=12)
    assert share < 1, "an untaught net should break valences when it may"


def test_what_is_possible_holds_what_is_legal(checkpoint):
    from sciforge.molecules.generation.action_mask import legal
    from sciforge.molecules.generation.feasibility import Feasibility
    from sciforge.molecules.generation.partial_graph import PartialGraph
    from sciforge.molecules.generation.policy import actions_of

    model = Model.load(checkpoint, "cpu").network
    actions, partial_graph = actions_of(model), PartialGraph.empty(64, 10)
    rng = torch.Generator().manual_seed(0)
    for _ in range(30):
        may = legal(partial_graph, actions, Feasibility((1, 10), torch.zeros(1, dtype=torch.long)))
        assert not bool((may & ~possible(partial_graph, actions)).any())
        partial_graph.act(actions, torch.multinomial(may.float(), 1, generator=rng)[:, 0])


def test_the_bound_of_a_molecule_is_above_each_walk_and_below_one(checkpoint):
    model = Model.load(checkpoint, "cpu").network.eval()
    for smiles in ("CCO", "c1ccccc1O", "CC(C)=O"):
        graph = graph_of_mol(canonical(mol_of_smiles(smiles))[1])
        trajectory, bound, walks = log_likelihoods(model, graph, 24, 0, torch.zeros(4))
        few = log_likelihoods(model, graph, 4, 0, torch.zeros(4))[1]
        assert trajectory <= few <= bound < 0 and 1 < walks <= 24


def test_methane_has_one_walk(checkpoint):
    model = Model.load(checkpoint, "cpu").network.eval()
    trajectory, bound, walks = log_likelihoods(
        model, graph_of_mol(mol_of_smiles("C")), 8, 0, torch.zeros(4)
    )
    assert walks == 1 and trajectory == pytest.approx(bound)


def test_likelihoods_keep_a_row_for_every_molecule(checkpoint, tmp_path):
    (tmp_path / "mine.smi").write_text("CCO ethanol\nnonsense bad\n[NH3+]C charged\n")
    model = Model.load(checkpoint, "cpu")
    frame = Likelihoods(files=tmp_path / "mine.smi", walks=4).run(model).to_pandas()
    assert frame["name"].tolist() == ["ethanol", "bad", "charged"]
    assert frame.loc[0, "log_p_walk"] < 0 and not frame.loc[0, "reason"]
    assert "no valid SMILES" in frame.loc[1, "reason"] and math.isnan(frame.loc[1, "log_p_walk"])
    assert math.isinf(frame.loc[2, "log_p_bound"]) and "valence rules" in frame.loc[2, "reason"]
    series = pd.Series(["CCO", "nonsense"], index=["a", "b"])
    table = model.likelihoods(series, walks=4)
    assert (
        table.index.tolist() == ["a", "b"]
        and table.loc["a", "log_p_walk"] == frame.loc[0, "log_p_walk"]
    )


def test_a_checkpoint_that_does_not_generate_says_so(checkpoint):
    model = Model.load(checkpoint, "cpu")
    other = Model(model.checkpoint, model.network, model.device)
    type(other).objective, kept_objective = (
        property(lambda self: "not to grow"),
        type(other).objective,
    )
    try:
        with pytest.raises(ConfigError, match="not to generate"):
            other.generate(2)
    finally:
        type(other).objective = kept_objective
