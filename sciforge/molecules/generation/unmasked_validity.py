"""What the policy would do without the mask: how much of its validity is learnt, and how much is
law.
"""

import torch
from torch import Tensor

from sciforge.errors import DataError
from sciforge.molecules.chemistry.graph import mol_of_graph
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


def possible(growth: PartialGraph, actions: Actions) -> Tensor:
    """Return which actions can be written down at all [B, A]: room for an atom, two atoms
    without a bond; valence is not asked.
    """
    focus, room = growth.focus, growth.kind.shape[1]
    begun = growth.num > 0
    may = torch.ones(len(growth), actions.count(room), dtype=torch.bool, device=growth.device)
    may[:, STOP] = begun
    may[:, NEXT] = begun & (growth.open.sum(1) > 1)
    may[:, FIRST_ADD : actions.first_ring] = ((growth.num < room) & ((focus >= 0) | ~begun))[
        :, None
    ]
    others = growth.open & (growth.at(growth.bond, focus) == 0)
    others = others & (torch.arange(room, device=focus.device) != focus[:, None])
    may[:, actions.first_ring :] = others.repeat_interleave(RING_ORDERS, 1)
    may[growth.done] = False
    may[growth.done, STOP] = True
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
        growth = PartialGraph.empty(count, room, device)
        for _ in range(5 * room):  # without the mask nothing promises an end
            action, _ = choose(reader.read(growth), possible(growth, actions), sampling, rng)
            growth.act(actions, action)
            if bool(growth.done.all()):
                break
        valid += sum(
            _accepted(graph)
            for graph, done in zip(graphs_of(growth), growth.done.tolist(), strict=True)
            if done
        )
    return valid / num


def _accepted(graph) -> bool:
    try:
        mol = mol_of_graph(graph)
    except DataError:
        return False
    return not any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
