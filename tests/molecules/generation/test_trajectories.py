"""Walks rebuild known molecules, whatever their order; canonical walks are never masked on
MOSES.
"""

import csv
import gzip
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import ROOT, load_file

from sciforge.errors import DataError
from sciforge.molecules.chemistry.graph import (
    canonical,
    graph_of_mol,
    mol_of_smiles,
    smiles_of_graph,
)
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.generation.feasibility import Feasibility
from sciforge.molecules.generation.partial_graph import NEXT, STOP, Actions
from sciforge.molecules.generation.sampler import graphs_of
from sciforge.molecules.generation.trajectories import OUTSIDE, REOPEN, Target, trajectory
from sciforge.molecules.objectives.generation import choose_seed, legal_lesson, lesson

DATA = Path(__file__).parents[4] / "shared/data/molecules"
ALL = Actions(tuple(range(len(TYPES))))
FILES = {
    "moses": (DATA / "moses/train.csv.gz", "SMILES", 500),
    "qm9": (DATA / "qm9_smiles.csv.gz", "smiles", 60),
    "lipo": (DATA / "moleculenet/lipo.csv", "smiles", 4),
    "tox21": (DATA / "moleculenet/tox21.csv", "smiles", 6),
}
ODD = (
    "C",
    "[HH]",
    "C1CC1",
    "C12C3C4C1C5C2C3C45",
    "C1CC2CCC1CC2",
    "C1CCC2(CC1)CCCC2",
    "O=[N+]([O-])c1ccccc1",
    "C#CC#N",
    "CS(=O)(=O)N",
    "OP(O)(O)=O",
    "c1ccc2c(c1)[nH]c1ccccc12",
    "C[Si](C)(C)C",
    "C1CCCCCCCCC1",
    "[O-][Cl+3]([O-])([O-])[O-]",
)


def known(smiles: Iterator[str]) -> tuple[list[str], Target]:
    """Return canonical SMILES and targets in canonical order of molecules that the table holds."""
    texts, examples, codec = [], [], MoleculeCodec()
    for text in smiles:
        try:
            name, mol = canonical(mol_of_smiles(text))
            graph = graph_of_mol(mol)
        except DataError:
            continue
        texts.append(name)
        examples.append(codec.encode_graph(graph, mol))
    batch = codec.collate(examples)
    rank = torch.arange(batch["atom"].shape[1]).expand(len(texts), -1)
    return texts, Target(
        batch["atom"], batch["bond"], rank, torch.zeros_like(batch["atom"], dtype=torch.bool)
    )


def rows(name: str) -> Iterator[str]:
    path, column, every = FILES[name]
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as text:
        yield from (row[column] for row in islice(csv.DictReader(text), 0, 300 * every, every))


def rebuilt(target: Target) -> list[str]:
    *_, last = trajectory(target, ALL)
    return [smiles_of_graph(graph) for graph in graphs_of(last.partial_graph)]


def turned(target: Target, seeded: bool) -> Target:
    """Return the same molecules in random order, with a seed for each."""
    rng = np.random.default_rng(0)
    rank = torch.from_numpy(np.stack([rng.permutation(target.kind.shape[1]) for _ in target.kind]))
    seed = torch.zeros_like(target.seed)
    for row, (kind, bond) in enumerate(zip(target.kind, target.bond, strict=True)):
        size = int((kind >= 0).sum())
        i, j = np.nonzero(np.triu(bond[:size, :size].numpy()))
        if seeded:
            seed[row, :size] = torch.from_numpy(choose_seed(np.stack([i, j, i], 1), size, rng)) > 0
    return Target(target.kind, target.bond, rank, seed)


@pytest.mark.parametrize("name", ["odd", *FILES])
@pytest.mark.parametrize("order", ["canonical", "random", "seeded"])
def test_every_walk_rebuilds_its_molecule(name: str, order: str):
    texts, target = known(iter(ODD) if name == "odd" else rows(name))
    assert len(texts) > 0.6 * (len(ODD) if name == "odd" else 300)
    assert rebuilt(target if order == "canonical" else turned(target, order == "seeded")) == texts


def test_canonical_walks_of_moses_are_never_masked():
    moses = load_file(ROOT / "benchmarks/molecules_moses_walks.py")
    texts = list(rows("moses"))
    counts = moses.judge(texts, random=False)
    assert (
        counts["molecules"] == len(texts)
        and not counts["illegal walks"]
        and not counts["not rebuilt"]
    )


def test_a_seed_is_walked_first_and_then_opened_again():
    texts, target = known(iter(["c1ccccc1CCO", "CC(C)C1CC1"]))
    target = turned(target, seeded=True)
    reopened, size = {}, target.seed.sum(1)
    for step in trajectory(target, ALL):
        for row in range(len(texts)):
            if int(step.action[row]) == REOPEN:
                reopened[row] = int(step.partial_graph.num[row])
                placed = step.whose[row, : reopened[row]]
                assert bool(target.seed[row, placed].all())
            assert bool(step.seeding[row]) == (
                row not in reopened or int(step.action[row]) == REOPEN
            )
    assert reopened == {row: int(size[row]) for row in range(len(texts))}


def test_an_atom_outside_the_alphabet_is_said():
    _, target = known(iter(["CCBr"]))
    actions = [int(step.action) for step in trajectory(target, Actions((0, 2)))]
    assert OUTSIDE in actions and actions[-1] == STOP


def test_rings_close_at_once_and_nothing_is_left_before_the_end():
    _, target = known(iter(["C1CC1C"]))
    actions = [int(step.action) for step in trajectory(target, ALL)]
    assert actions == [2, 2, 2, 2, ALL.close(1, 1), STOP] and NEXT not in actions


def test_rules_of_training_allow_walks_with_charges():
    moses = load_file(ROOT / "benchmarks/molecules_moses_walks.py")
    counts = moses.judge(
        ["C[N+](=O)[O-]", "[O-][n+]1ccccc1", "CS(C)(=O)=O", "C[N+](C)(C)C", "CC(=O)[O-]"],
        random=False,
    )
    assert counts["molecules"] == 5 and not counts["illegal walks"]
    assert Feasibility((1, 64), None).plain


def test_a_cage_is_learnt_from_another_place():
    """Its canonical walk would first close a ring of more than eight atoms; molecules beside it
    keep their walk.
    """
    _, target = known(iter(["CN1CN2C(=O)N3CN(C)CN4C(=O)N(C1)C2C34", "CCO"]))
    rules = Feasibility((1, 64), torch.zeros(2, dtype=torch.long))
    first, made = lesson(target, ALL, rules), legal_lesson(target, ALL, rules)
    assert first.illegal.tolist() == [1, 0] and made.illegal.tolist() == [0, 0]
    assert int(made.counts[0].sum()) > int(made.counts[1].sum()) > 0
    steps = int(made.counts[1].sum())
    assert torch.equal(first.action[1, :steps], made.action[1, :steps])
