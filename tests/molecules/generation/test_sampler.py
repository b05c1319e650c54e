"""Drawing: every request is kept by nets that learnt nothing, and what cannot be promised is
refused before.
"""

import random

import pytest
import torch
from tiny_runs import ROOT, load_file

from sciforge.errors import ConfigError, DataError, SciforgeError
from sciforge.molecules.chemistry.forbidden_substructures import patterns_of
from sciforge.molecules.generation import sampler
from sciforge.molecules.generation.constraints import Constraints
from sciforge.molecules.generation.sampler import Sampling, choose, sample

rollouts = load_file(ROOT / "benchmarks/molecules_rollouts.py")


@pytest.mark.parametrize("name", rollouts.REQUESTS)
def test_random_weights_keep_every_promise(name: str):
    asked = rollouts.REQUESTS[name]
    drawn = sample(rollouts.untrained(5), 24, asked, Sampling(parallel=24, seed=1))
    assert len(drawn.graphs) == 24 and not rollouts.faults(drawn, asked)


def test_the_judge_finds_faults():
    drawn = sample(rollouts.untrained(0), 8, Constraints(atoms=(3, 6)), Sampling(parallel=8))
    wrong = Constraints(
        atoms=(7, 9), charge=1, rings=(4, 5), formula=None, scaffold="C1CCCCC1", types=("C",)
    )
    assert len(rollouts.faults(drawn, wrong)) == 8
    for word in ("charge", "atoms", "rings", "scaffold"):
        assert word in rollouts.faults(drawn, wrong)[0]


CHOICES = {
    "charge": (-2, -1, 1, 2),
    "formula": ("C9H8O4", "C4H4O", "C8H11NO2S", "C7H12N2O", "C5H11O2P", "C4H8ClNOS", "C2H6S"),
    "atoms": ((1, 4), (3, 3), (6, 9), (9, 12)),
    "rings": ((1, 1), (0, 0), (1, 2), (2, 3)),
    "ring_sizes": ((3, 3), (5, 6), (4, 6), (5, 12)),
    "forbidden": (
        ("[O-][N+]=O",),
        ("OO", "NN"),
        ("[O-]",),
        ("O[N+]",),
        ("CC",),
        ("C1CC1",),
        ("c1ccccc1", "S"),
    ),
    "types": (
        ("C", "N", "O"),
        ("N", "S", "O"),
        ("C", "N+", "O-"),
        ("N", "N+", "O-", "S"),
        ("P", "O", "O-"),
    ),
    "scaffold": (
        "c1ccccc1",
        "C1CN(*)CCN1*",
        "C[NH3+]",
        "[O-]C=O",
        "O",
        "*S(*)=O",
        "C12C3C4C1C5C2C3C45",
    ),
}


@pytest.mark.parametrize("seed", range(3))
def test_any_mixture_of_requests_is_refused_or_kept(seed: int):
    rng, kept = random.Random(seed), 0
    for number in range(12):
        names = rng.sample(sorted(CHOICES), rng.randint(1, 4))
        choices = {name: rng.choice(CHOICES[name]) for name in names}
        model = rollouts.untrained(number, sharpness=rng.choice((0.0, 1.0, 6.0)))
        try:
            asked = Constraints(**choices)
            drawn = sample(model, 16, asked, Sampling(parallel=16, seed=number))
        except SciforgeError:
            continue
        kept += 1
        assert not rollouts.faults(drawn, asked), asked
    assert kept >= 2


# Each of these had a dead end or broke the request once.
@pytest.mark.parametrize(
    ("asked", "seed"),
    [
        (Constraints(types=("N", "N+", "O-", "S"), atoms=(6, 14)), 3),
        (Constraints(scaffold="C[NH3+]", atoms=(6, 6), rings=(1, 2)), 4),
        (Constraints(scaffold="O=S", atoms=(9, 17), rings=(2, 3), charge=2), 5),
        (
            Constraints(forbidden=("[O-][N+]=O",), types=("C", "N", "N+", "O", "O-"), atoms=(1, 6)),
            6,
        ),
        (Constraints(forbidden=("OO", "NN"), types=("N", "O", "C"), rings=(1, 2), atoms=(3, 5)), 7),
        (
            Constraints(
                forbidden=("OO", "N=N"), types=("C", "O", "N"), atoms=(4, 4), charge=0, rings=(1, 1)
            ),
            8,
        ),
    ],
)
def test_former_dead_ends(asked: Constraints, seed: int):
    for sharpness in (0.0, 6.0):
        drawn = sample(
            rollouts.untrained(seed, sharpness=sharpness),
            128,
            asked,
            Sampling(parallel=128, seed=seed),
        )
        assert not rollouts.faults(drawn, asked)


def test_iodine_keeps_to_single_bonds():
    """RDKit rewrites I=O as [I+][O-], which the table does not hold."""
    drawn = sample(
        rollouts.untrained(2),
        64,
        Constraints(types=("C", "I", "O"), atoms=(3, 9)),
        Sampling(parallel=64),
    )
    assert any("I" in text for text in drawn.smiles()) and not any(
        "[I+" in text for text in drawn.smiles()
    )


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"scaffold": "c1ccccc1", "atoms": (1, 5)}, "scaffold has 6 heavy atoms and 5 are allowed"),
        ({"scaffold": "c1ccccc1", "forbidden": ("C=C",)}, "holds the forbidden C=C"),
        ({"scaffold": "C1CC1", "ring_sizes": (5, 6)}, "ring of 3 atoms and 5 to 6 are asked"),
        ({"scaffold": "C1CC1", "rings": (0, 0)}, "the scaffold has 1 rings"),
        ({"scaffold": "c1ccccc1", "formula": "C5H6"}, "scaffold has 6 heavy atoms"),
        ({"scaffold": "CCN", "formula": "C4H10O"}, "scaffold does not fit the formula"),
        ({"forbidden": ("N",), "formula": "C2H7N"}, "beside an exact formula"),
        ({"forbidden": ("CC",), "atoms": (5, 9), "types": ("C", "O")}, "cannot be promised"),
        (
            {"forbidden": ("C", "N"), "types": ("C", "N", "O")},
            "no neutral type of three or more bonds is left",
        ),
        (
            {"forbidden": ("[O-]",), "charge": -1, "types": ("C", "O", "O-")},
            "no atom type of that charge",
        ),
    ],
)
def test_refused_before_sampling(asked: dict, reason: str):
    with pytest.raises(ConfigError, match=reason):
        sample(rollouts.untrained(0), 4, Constraints(**asked))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"scaffold": "c1ccccc"}, "no valid SMILES"),
        ({"scaffold": "*"}, "0 heavy atoms"),
        ({"scaffold": "CC.O"}, "several components"),
        ({"scaffold": "[CH2]C"}, "radical"),
        ({"forbidden": ("C(",)}, "no valid SMILES"),
        ({"forbidden": ("[Pt]",)}, "table does not hold"),
    ],
)
def test_smiles_that_cannot_be_read(asked: dict, reason: str):
    with pytest.raises(DataError, match=reason):
        sample(rollouts.untrained(0), 4, Constraints(**asked))


@pytest.mark.parametrize(
    "wrong",
    [
        {"atoms": (0, 4)},
        {"atoms": (5, 4)},
        {"atoms": (1, 65)},
        {"rings": (2, 1)},
        {"ring_sizes": (2, 8)},
    ],
)
def test_nonsense_is_no_constraint(wrong: dict):
    with pytest.raises(ConfigError, match="give the"):
        Constraints(**wrong)


def test_hydrogens_do_not_count_in_forbidden_parts():
    (pattern,) = patterns_of(("O[N+]",))
    assert len(pattern.graph) == 2 and len(patterns_of(("c1ccccc1",))) == 2


def test_the_same_seed_draws_the_same_and_another_does_not():
    model, asked = rollouts.untrained(1), Constraints(atoms=(4, 12))
    once, twice = (
        sample(model, 40, asked, Sampling(parallel=16, seed=3)).smiles() for _ in range(2)
    )
    assert once == twice != sample(model, 40, asked, Sampling(parallel=16, seed=4)).smiles()
    assert (
        sample(model, 16, asked, Sampling(parallel=16, seed=3)).smiles() == once[:16]
    )  # a batch does not see the next


def test_order_and_scores_survive_the_compaction(monkeypatch: pytest.MonkeyPatch):
    model, asked = rollouts.untrained(1), Constraints(atoms=(1, 12))
    monkeypatch.setattr(sampler, "CHECK_EVERY", 10_000)
    whole = sample(model, 1, asked, Sampling(parallel=1, seed=3))
    monkeypatch.setattr(sampler, "CHECK_EVERY", 1)
    again = sample(model, 1, asked, Sampling(parallel=1, seed=3))
    assert whole.smiles() == again.smiles() and whole.log_likelihood == pytest.approx(
        again.log_likelihood
    )


def test_temperature_and_top_p_come_after_the_mask():
    logits = torch.tensor([[9.0, 2.0, 1.0, 0.0, -torch.inf]]).expand(4000, -1)
    may = torch.tensor([[False, True, True, True, False]]).expand(4000, -1)
    rng = torch.Generator().manual_seed(0)
    action, log_p = choose(logits, may, Sampling(temperature=2.0), rng)
    expected = torch.tensor([2.0, 1.0, 0.0]).div(2).softmax(0)
    assert torch.bincount(action, minlength=5)[1:4] / 4000 == pytest.approx(expected, abs=0.03)
    assert log_p[action == 1][0] == pytest.approx(float(expected[0].log()), abs=1e-5)
    action, log_p = choose(logits, may, Sampling(top_p=0.6), rng)
    assert set(action.tolist()) == {1} and not log_p.any()  # of the legal ones the first has 0.67
    action, _ = choose(logits, may, Sampling(top_p=0.7), rng)
    assert set(action.tolist()) == {1, 2}


def test_what_the_mask_takes_does_not_depend_on_the_room():
    model = rollouts.untrained(1)
    shares = [
        sample(model, 64, Constraints(atoms=(1, n)), Sampling(parallel=64)).removed for n in (4, 4)
    ]
    assert shares[0] == shares[1] and sum(shares[0].values()) < 1
