"""From a checkpoint to files: what `sciforge generate` and `likelihoods` write, promise and refuse."""

import json
import math

import pytest
import torch
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from sciforge import api
from sciforge.cli.main import main
from sciforge.core.training.model import Model
from sciforge.core.training.run import Hardware, Run, Schedule
from sciforge.errors import ConfigError, DataError
from sciforge.molecules import Constraints, Generate, Grow, MoleculeNetConfig, Molecules, Sampling, generate
from sciforge.molecules.chemistry.graph import canonical, graph_of_mol, mol_of_smiles
from sciforge.molecules.demo import kept
from sciforge.molecules.generation.unmasked_validity import possible, unmasked_validity
from sciforge.molecules.inference.likelihoods import Likelihoods, log_likelihoods

MOLECULES = (
    "CCO CC(=O)O c1ccccc1O CCN(CC)CC O=S(=O)(N)c1ccccc1 C1CCNCC1 FC(F)F Clc1ccncc1 N#CC CC(C)=O OCCO CNC".split()
)
OPTIONS = {"hardware": Hardware(device="cpu", threads=1), "seed": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A net that has hardly learnt anything: what it promises, it promises by law."""
    room = tmp_path_factory.mktemp("grow")
    (room / "known.smi").write_text("".join(f"{smiles} m{i}\n" for i, smiles in enumerate(MOLECULES)))
    what = Molecules(files=(room / "known.smi",), split="random", shares=(0.8, 0.2, 0.0), properties=("logp", "size"))
    api.prepare(what, room / "store")
    run = Run(
        data=room / "store", out=room / "run", model=MoleculeNetConfig(width=16, depth=1, heads=2),
        objective=Grow(conditions=("logp", "size")), schedule=Schedule(steps=3, batch=6), **OPTIONS,
    )  # fmt: skip
    return api.train(run).path


def test_the_command_writes_molecules_and_where_they_come_from(checkpoint, tmp_path, capsys):
    out, sdf = tmp_path / "new.smi", tmp_path / "new.sdf"
    argv = ["generate", str(checkpoint), "--num", "12", "--out", str(out), "--formula", "C4H8O2", "--unmasked", "8"]
    assert main([*argv, "--conformers", str(sdf)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    lines = [line.split("\t") for line in out.read_text().splitlines()]
    assert [name for _, name in lines] == [f"sciforge-{i}" for i in range(12)]
    assert {CalcMolFormula(Chem.MolFromSmiles(smiles)) for smiles, _ in lines} == {"C4H8O2"}
    report = json.loads((tmp_path / "new.smi.json").read_text())
    assert report["molecules"] == 12 and report["options"]["formula"] == "C4H8O2"
    assert set(report["mask_removed"]) == {"stop", "next", "add", "ring"} and 0 <= report["valid_without_mask"] <= 1
    embedded = [mol for mol in Chem.SDMolSupplier(str(sdf), removeHs=False) if mol is not None]
    assert embedded and all(mol.GetConformer().Is3D() for mol in embedded)
    assert all(CalcMolFormula(mol) == "C4H8O2" for mol in embedded)


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
    drawn = generate(checkpoint, 60, constraints=asked, sampling=Sampling(batch=30, seed=3), device="cpu")
    assert len(drawn.graphs) == 60
    assert all(kept(smiles, asked) for smiles in drawn.smiles())


def test_growth_starts_at_marked_places_only(checkpoint):
    asked = Constraints(scaffold="*c1ccc(F)cc1", atoms=(8, 14))
    ring = Chem.MolFromSmarts("[$([cH])]1[$([cH])]c(F)[$([cH])][$([cH])]c1")
    drawn = generate(checkpoint, 40, constraints=asked, device="cpu").smiles()
    assert all(Chem.MolFromSmiles(smiles).HasSubstructMatch(ring) for smiles in drawn)


def test_the_same_seed_gives_the_same_molecules(checkpoint):
    first, again, other = (
        generate(checkpoint, 20, sampling=Sampling(seed=seed), device="cpu").smiles() for seed in (5, 5, 6)
    )
    assert first == again != other


def test_wishes_reach_the_net(checkpoint):
    """Untold and told nets draw different molecules from the same random numbers."""
    plain = generate(checkpoint, 30, device="cpu").smiles()
    steered = generate(checkpoint, 30, want={"logp": 8.0, "size": 3.0}, device="cpu").smiles()
    assert plain != steered


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
        ({"want": ("logp",)}, "NAME=VALUE"),
        ({"want": ("qed=0.5",)}, "cannot be steered to 'qed'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(checkpoint, tmp_path, change, said):
    with pytest.raises(ConfigError, match=said):
        api.generate(checkpoint, Generate(out=tmp_path / "x.smi", **{"num": 5, **change}), device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scaffold", ["c1ccccc", "C(C)(C)(C)(C)C", "[Na+].[Cl-]", "[CH3]", "", "[13CH4]"])
def test_bad_scaffolds_are_named(checkpoint, scaffold):
    with pytest.raises(DataError) as caught:
        generate(checkpoint, 2, constraints=Constraints(scaffold=scaffold), device="cpu")
    assert "\n" not in str(caught.value) and (scaffold in str(caught.value) or not scaffold)


def test_without_the_mask_validity_is_a_matter_of_luck(checkpoint):
    model = Model.load(checkpoint, "cpu").network.eval()
    share = unmasked_validity(model, 64, Sampling(batch=64), torch.zeros(4), room=12)
    assert share < 1, "an untaught net should break valences when it may"


def test_what_is_possible_holds_what_is_legal(checkpoint):
    from sciforge.molecules.generation.action_mask import legal
    from sciforge.molecules.generation.feasibility import Rules
    from sciforge.molecules.generation.partial_graph import Growth
    from sciforge.molecules.generation.policy import actions_of

    model = Model.load(checkpoint, "cpu").network
    actions, growth = actions_of(model), Growth.empty(64, 10)
    rng = torch.Generator().manual_seed(0)
    for _ in range(30):
        may = legal(growth, actions, Rules((1, 10), torch.zeros(1, dtype=torch.long)))
        assert not bool((may & ~possible(growth, actions)).any())
        growth.act(actions, torch.multinomial(may.float(), 1, generator=rng)[:, 0])


def test_the_bound_of_a_molecule_is_above_each_walk_and_below_one(checkpoint):
    model = Model.load(checkpoint, "cpu").network.eval()
    for smiles in ("CCO", "c1ccccc1O", "CC(C)=O"):
        graph = graph_of_mol(canonical(mol_of_smiles(smiles))[1])
        walk, bound, walks = log_likelihoods(model, graph, 24, 0, torch.zeros(4))
        few = log_likelihoods(model, graph, 4, 0, torch.zeros(4))[1]
        assert walk <= few <= bound < 0 and 1 < walks <= 24


def test_methane_has_one_walk(checkpoint):
    model = Model.load(checkpoint, "cpu").network.eval()
    walk, bound, walks = log_likelihoods(model, graph_of_mol(mol_of_smiles("C")), 8, 0, torch.zeros(4))
    assert walks == 1 and walk == pytest.approx(bound)


def test_likelihoods_keep_a_row_for_every_molecule(checkpoint, tmp_path):
    (tmp_path / "mine.smi").write_text("CCO ethanol\nnonsense bad\n[NH3+]C charged\n")
    path = api.predict(
        checkpoint, Likelihoods(files=(tmp_path / "mine.smi",), out=tmp_path / "out.tsv", walks=4), device="cpu"
    )
    head, columns, *rows = path.read_text().splitlines()
    assert json.loads(head[2:])["step"] == 3 and columns.split("\t")[0] == "name"
    cells = [row.split("\t") for row in rows]
    assert [row[0] for row in cells] == ["ethanol", "bad", "charged"]
    assert float(cells[0][3]) < 0 and not cells[0][-1]
    assert "no valid SMILES" in cells[1][-1] and not cells[1][3]
    assert math.isinf(float(cells[2][3])) and "rules of growth" in cells[2][-1]


def test_a_checkpoint_that_does_not_generate_says_so(checkpoint, tmp_path):
    predictor = Model.load(checkpoint, "cpu")
    other = Model(predictor.checkpoint, predictor.network, predictor.device)
    type(other).objective, kept_objective = property(lambda self: "not to grow"), type(other).objective
    try:
        with pytest.raises(ConfigError, match="not to generate"):
            Generate(out=tmp_path / "x.smi", num=2).write(other)
    finally:
        type(other).objective = kept_objective
