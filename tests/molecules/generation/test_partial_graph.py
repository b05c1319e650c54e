"""Growing graphs against slow and plain counterparts."""

import numpy as np
import pytest
import torch
from every_growth import Game, graphs

from sciforge.molecules.chemistry.graph import mol_of_graph
from sciforge.molecules.generation.constraints import Constraints
from sciforge.molecules.generation.partial_graph import STOP, UNREACHED, Actions, PartialGraph

NAMES = ("C", "N", "O", "S", "N+", "O-")


def wander(rows: int, atoms: int, seed: int) -> list[PartialGraph]:
    """Return the states of random growths."""
    game, rng = Game.of(Constraints(atoms=(3, atoms)), NAMES), torch.Generator().manual_seed(seed)
    partial_graph = PartialGraph.empty(rows, atoms)
    states = [partial_graph.copy()]
    while not bool(partial_graph.done.all()):
        may = game.offered(partial_graph)
        may[:, STOP] |= partial_graph.done
        partial_graph.act(game.actions, torch.multinomial(may.double(), 1, generator=rng)[:, 0])
        states.append(partial_graph.copy())
    return states


def test_distances_rings_and_counts_are_those_of_the_graph():
    for partial_graph in wander(40, 9, seed=0):
        for row in range(0, 40, 7):
            num = int(partial_graph.num[row])
            near = partial_graph.bond[row, :num, :num].numpy()
            assert (near == near.T).all() and (
                near.sum(1) == partial_graph.used[row, :num].numpy()
            ).all()
            far = np.where(near > 0, 1, UNREACHED)
            np.fill_diagonal(far, 0)
            for k in range(num):
                far = np.minimum(far, far[:, k, None] + far[None, k])
            assert (partial_graph.distance[row, :num, :num].numpy() == far).all()
            assert (partial_graph.distance[row, num:] == UNREACHED).all()
            assert int(partial_graph.rings[row]) == (near > 0).sum() // 2 - max(num - 1, 0)
            assert ((near == 2).sum(1) == partial_graph.double[row, :num].numpy()).all()
            assert ((near == 3).sum(1) == partial_graph.triple[row, :num].numpy()).all()


def test_the_hydrogens_that_were_counted_are_rdkits():
    last = wander(60, 8, seed=1)[-1]
    last.leave(last.open.clone())
    counted = last.hydrogens.tolist()
    for graph, hydrogens in zip(graphs(last), counted, strict=True):
        assert sum(atom.GetTotalNumHs() for atom in mol_of_graph(graph).GetAtoms()) == hydrogens


def test_what_was_left_and_what_is_done_never_changes():
    states = wander(50, 8, seed=2)
    for before, after in zip(states[:-1], states[1:], strict=True):
        left = (before.kind >= 0) & ~before.open
        assert bool((after.used == before.used)[left].all()) and not bool((after.open & left).any())
        assert bool((after.bond == before.bond)[before.done].all())


def test_select_and_copy_are_independent():
    partial_graph = PartialGraph.empty(3, 4)
    actions = Actions((0,))
    partial_graph.act(actions, torch.tensor([2, 2, 2]))
    some, copy = partial_graph.select(torch.tensor([2, 0])), partial_graph.copy()
    partial_graph.act(actions, torch.tensor([2, 3, 4]))
    assert (
        some.num.tolist() == [1, 1]
        and copy.num.tolist() == [1, 1, 1]
        and partial_graph.num.tolist() == [2, 2, 2]
    )
    assert partial_graph.bond[:, 0, 1].tolist() == [1, 2, 3]


@pytest.mark.parametrize("alphabet", [(0,), (0, 3, 7)])
def test_numbers_of_actions_do_not_collide(alphabet: tuple[int, ...]):
    actions, atoms = Actions(alphabet), 5
    named = [0, 1, *(actions.add(p, o) for p in range(len(alphabet)) for o in (1, 2, 3))]
    named += [actions.close(a, o) for a in range(atoms) for o in (1, 2)]
    assert named == list(range(actions.count(atoms)))
