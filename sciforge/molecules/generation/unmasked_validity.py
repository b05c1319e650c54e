"""What the policy would do without the mask: how much of its validity is learnt, and how much is
law.
"""

import torch
from torch import Tensor

from sciforge.errors import DataError
from sciforge.molecules.chemistry.graph import Graph, mol_of_graph
from sciforge.molecules.generation.partial_graph import (
    FIRST_ADD,
    NEXT,
    RING_ORDERS,
    STOP,
    Actions,
    PartialGraph,
)
from sciforge.molecules.generation.policy import STYLES, Reader, actions_of
from sciforge.molecules.generation.sampler import Sampling, choose, graphs_of
from sciforge.molecules.model.molecule_transformer import MoleculeNet


def possible(partial_graph: PartialGraph, actions: Actions) -> Tensor:
    """Return which actions can be written down at all [B, A]: room for an atom, two atoms
    without a bond; valence is not asked.
    """
    focus, room = partial_graph.focus, partial_graph.kind.shape[1]
    begun = partial_graph.num > 0
    may = torch.ones(
        len(partial_graph), actions.count(room), dtype=torch.bool, device=partial_graph.device
    )
    may[:, STOP] = begun
    may[:, NEXT] = begun & (partial_graph.open.sum(1) > 1)
    may[:, FIRST_ADD : actions.first_ring] = ((partial_graph.num < room) & ((focus >= 0) | ~begun))[
        :, None
    ]
    others = partial_graph.open & (partial_graph.at(partial_graph.bond, focus) == 0)
    others = others & (torch.arange(room, device=focus.device) != focus[:, None])
    may[:, actions.first_ring :] = others.repeat_interleave(RING_ORDERS, 1)
    may[partial_graph.done] = False
    may[partial_graph.done, STOP] = True
    return may


@torch.inference_mode()
def unmasked_validity(
    model: MoleculeNet,
    num: int,
    sampling: Sampling,
    condition: Tensor | None = None,
    room: int = 40,
) -> float:
    """Return the share of molecules drawn without the mask that RDKit accepts, without radicals.

    Args:
        model: with a policy, in evaluation mode.
        num: how many to draw.
        sampling: as for masked draws.
        condition: [2 P] or None.
        room: most heavy atoms.
    """
    actions, device, valid = actions_of(model), model.relation.weight.device, 0
    for number, start in enumerate(range(0, num, sampling.parallel)):
        count = min(sampling.parallel, num - start)
        rng = torch.Generator(device).manual_seed(sampling.seed * 1_000_003 + number)
        condition_BP = None if condition is None else condition.to(device).expand(count, -1)
        reader = Reader(model, count, room, STYLES.index("canonical"), condition_BP)
        partial_graph = PartialGraph.empty(count, room, device)
        for _ in range(5 * room):  # without the mask nothing promises an end
            action, _ = choose(
                reader.read(partial_graph), possible(partial_graph, actions), sampling, rng
            )
            partial_graph.act(actions, action)
            if bool(partial_graph.done.all()):
                break
        valid += sum(
            _accepted(graph)
            for graph, done in zip(
                graphs_of(partial_graph), partial_graph.done.tolist(), strict=True
            )
            if done
        )
    return valid / num


def _accepted(graph: Graph) -> bool:
    try:
        mol = mol_of_graph(graph)
    except DataError:
        return False
    return not any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
