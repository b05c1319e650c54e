"""Reading step by step and reading at once are one function; learning to grow keeps the contract
of objectives.
"""

import numpy as np
import pytest
import torch
from test_contract import (  # noqa: F401 - pytest runs them here with the runs below
    finetuned,
    learnt,
    test_a_batch_equals_its_singles,
    test_a_checkpoint_predicts_as_it_did,
    test_evaluation_does_not_depend_on_the_batch,
    test_laws_hold_on_a_fresh_model,
    test_micro_batches_change_nothing,
    test_overfits_eight_examples,
    test_resume_is_bit_equal,
)
from tiny_runs import ROOT, Tiny, load_file

from sciforge.core.training.loop import train
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.evaluation.laws import LAWS, _walks
from sciforge.molecules.generation.action_mask import legal
from sciforge.molecules.generation.partial_graph import RING_ORDERS
from sciforge.molecules.generation.policy import Reader, actions_of, read_history
from sciforge.molecules.generation.trajectories import trajectory
from sciforge.molecules.model.molecule_transformer import MoleculeNet, MoleculeNetConfig
from sciforge.molecules.objectives.generation import Grow, lesson


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    runs = load_file(ROOT / "tests/molecules/generation/growing_runs.py").tiny(
        tmp_path_factory.mktemp("growing")
    )
    return Tiny(*runs, train(runs[1]))


@pytest.fixture
def net() -> MoleculeNet:
    """A net whose every weight matters, relations of pairs among them, which start at zero."""
    torch.manual_seed(0)
    model = MoleculeNetConfig(width=16, depth=2, heads=2).build(None).double()
    Grow().attach(model)
    with torch.no_grad():
        for weight in model.double().parameters():
            weight.copy_(torch.randn(weight.shape, dtype=torch.double) * 0.4)
    return model.eval()


@pytest.mark.parametrize("law", LAWS)
def test_laws_hold_with_weights_that_matter(net: MoleculeNet, law: str):
    violation, tolerance = LAWS[law](net, MoleculeCodec(), np.random.default_rng(0))
    assert violation <= tolerance


def test_laws_of_generation_are_kept_by_a_net_without_a_policy():
    model = MoleculeNetConfig(width=8, depth=1, heads=1).build(None).double().eval()
    for law in LAWS.values():
        violation, tolerance = law(model, MoleculeCodec(), np.random.default_rng(0))
        assert violation <= tolerance


@torch.no_grad()
@pytest.mark.parametrize("room", [1, 400], ids=["room grows", "room enough"])
def test_a_reader_is_exact_after_compaction_and_beyond_its_room(net: MoleculeNet, room: int):
    _, target, rules = _walks(net, MoleculeCodec(), np.random.default_rng(1))
    actions, rows = actions_of(net), torch.arange(len(target.kind))
    made = lesson(target, actions, rules)
    whole = read_history(net, made.history, torch.ones_like(rows), None)
    reader = Reader(net, len(rows), target.kind.shape[1], 1, None)
    reader.anchors = reader.anchors[:, :room]
    reader.kept = [tuple(x[:, :, :room] for x in pair) for pair in reader.kept]
    compared = 0
    for at, step in enumerate(trajectory(target, actions)):
        partial_graph = step.partial_graph.select(rows)
        away = (reader.read(partial_graph) - whole[rows, at]).abs()
        away[:, actions.first_ring :] *= (partial_graph.kind >= 0).repeat_interleave(RING_ORDERS, 1)
        live = ~partial_graph.done
        assert float(away[live].max()) < 1e-10 if bool(live.any()) else True
        compared += int(live.sum())
        if at % 5 == 4:
            rows = rows[live]
            reader.select(live)
        if not len(rows):
            break
    assert compared > 60


@torch.no_grad()
def test_style_and_condition_are_told(net: MoleculeNet):
    _, target, rules = _walks(net, MoleculeCodec(), np.random.default_rng(1))
    history = lesson(target, actions_of(net), rules).history
    styles = [
        read_history(net, history, torch.full((len(target.kind),), style), None)
        for style in (0, 1, 2)
    ]
    assert (
        float((styles[0] - styles[1]).abs().max())
        > 1e-3
        < float((styles[0] - styles[2]).abs().max())
    )


@torch.no_grad()
def test_the_future_is_hidden(net: MoleculeNet):
    _, target, rules = _walks(net, MoleculeCodec(), np.random.default_rng(1))
    history = lesson(target, actions_of(net), rules).history
    style = torch.zeros(len(target.kind), dtype=torch.long)
    before = read_history(net, history, style, None)
    history.features[:, 6:] = 0
    after = read_history(net, history, style, None)
    first = actions_of(net).first_ring
    assert torch.equal(before[:, :6, :first], after[:, :6, :first])
    assert not torch.equal(before[:, 6:, :first], after[:, 6:, :first])


@torch.no_grad()
def test_a_masked_softmax_is_never_nan(net: MoleculeNet):
    _, target, rules = _walks(net, MoleculeCodec(), np.random.default_rng(2))
    actions = actions_of(net)
    made = lesson(target, actions, rules)
    assert bool(made.legal.any(-1).all())
    for step in trajectory(target, actions):
        assert bool(legal(step.partial_graph, actions, rules).any(1).all())
