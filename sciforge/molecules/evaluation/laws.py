"""Laws of molecules that any model must keep, run in float64 on the very model that a user holds.

A model without a policy keeps the laws of generation trivially.
"""

from collections.abc import Callable

import numpy as np
import torch

from sciforge.core.domain import Batch
from sciforge.molecules.chemistry.graph import (
    Graph,
    canonical,
    graph_of_mol,
    mol_of_graph,
    mol_of_smiles,
    smiles_of_graph,
)
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.data.codec import PAD, MoleculeCodec, flags_of
from sciforge.molecules.generation.action_mask import legal
from sciforge.molecules.generation.constraints import Constraints
from sciforge.molecules.generation.feasibility import Feasibility
from sciforge.molecules.generation.partial_graph import RING_ORDERS
from sciforge.molecules.generation.policy import Reader, actions_of, read_history
from sciforge.molecules.generation.sampler import Sampling, graphs_of, sample
from sciforge.molecules.generation.trajectories import Target, trajectory
from sciforge.molecules.model.molecule_transformer import MoleculeNet
from sciforge.molecules.objectives.generation import lesson

# Charges, a sulfone, fused rings, a bridge, a spiro centre, triple bonds, one atom alone.
SMILES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "O=[N+]([O-])c1ccc2[nH]ccc2c1",
    "CS(=O)(=O)N1CCC2(CC1)CC2",
    "C1CC2CCC1O2",
    "N#CC#CC",
    "C",
    "C[N+](C)(C)CC(=O)[O-]",
)
EXACT = 1e-9


def examples(codec: MoleculeCodec, rng: np.random.Generator | None) -> list[dict]:
    """Return SMILES as examples, their atoms in a random order if `rng` is given, with it as
    `order`.
    """
    examples_ = []
    for smiles in SMILES:
        mol = canonical(mol_of_smiles(smiles))[1]
        order = np.arange(mol.GetNumAtoms()) if rng is None else rng.permutation(mol.GetNumAtoms())
        graph, (hydrogens, flags) = graph_of_mol(mol), flags_of(mol)
        place = np.argsort(order)  # where each atom goes; the Kekule structure stays
        bond = np.concatenate(
            [np.sort(place[graph.pair_M2.astype(int)], 1), graph.order_M[:, None]], 1
        )
        record = {
            "atom": graph.atom_N[order],
            "bond": bond,
            "hydrogens": hydrogens[order],
            "flags": flags[order],
        }
        examples_.append({**codec.encode(record), "order": torch.from_numpy(order)})
    return examples_


def _states(model: MoleculeNet, codec: MoleculeCodec, batch: list[dict]) -> torch.Tensor:
    """Return the molecules' states and those of their atoms in the order of the canonical
    SMILES, one behind the other.
    """
    plain = [
        {name: value for name, value in example.items() if name != "order"} for example in batch
    ]
    x_BLD = model(_on(codec.collate(plain), model))
    parts = []
    for row, example in enumerate(batch):
        parts += [
            x_BLD[row, :1],
            x_BLD[row, 1 : 1 + len(example["order"])][torch.argsort(example["order"])],
        ]
    return torch.cat(parts)


def _on(batch: Batch, model: MoleculeNet) -> Batch:
    return {name: value.to(model.relation.weight.device) for name, value in batch.items()}


@torch.no_grad()
def permutation(
    model: MoleculeNet, codec: MoleculeCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """The order in which atoms are listed changes nothing that the encoder says."""
    a, b = (_states(model, codec, examples(codec, order)) for order in (None, rng))
    return float((a - b).abs().max() / a.abs().max().clamp(min=1)), EXACT


@torch.no_grad()
def padding(
    model: MoleculeNet, codec: MoleculeCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """A molecule has the same states alone and in a batch with larger ones."""
    batch = examples(codec, None)
    alone = torch.cat([_states(model, codec, [example]) for example in batch])
    together = _states(model, codec, batch)
    return float((alone - together).abs().max() / alone.abs().max().clamp(min=1)), EXACT


def validity(
    model: MoleculeNet, codec: MoleculeCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """Each of 64 molecules drawn is one that RDKit accepts: in one piece, without radicals, of
    the charge and size asked for.
    """
    if "policy" not in model.heads:
        return 0.0, 0.0
    asked = Constraints(atoms=(1, 24))
    drawn = sample(model, 64, asked, Sampling(parallel=64, seed=int(rng.integers(2**31))))
    return float(np.mean([not _sound(graph, asked) for graph in drawn.graphs])), 0.0


def _sound(graph: Graph, asked: Constraints) -> bool:
    from rdkit import Chem

    try:
        mol = mol_of_smiles(Chem.MolToSmiles(mol_of_graph(graph)))
    except Exception:  # whatever it is, the molecule is not sound
        return False
    radicals = any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    whole = len(Chem.GetMolFrags(mol)) == 1 and Chem.GetFormalCharge(mol) == asked.charge
    return not radicals and whole and asked.atoms[0] <= mol.GetNumAtoms() <= asked.atoms[1]


def _walks(
    model: MoleculeNet, codec: MoleculeCodec, rng: np.random.Generator
) -> tuple[list[str], Target, Feasibility]:
    """Return molecules that the model's alphabet can build, how to walk them from random roots,
    and the rules of their charges.
    """
    known = torch.tensor([PAD, *model.alphabet])
    lessons = [{k: v for k, v in e.items() if k != "order"} for e in examples(codec, None)]
    kept = [
        row for row, example in enumerate(lessons) if bool(torch.isin(example["atom"], known).all())
    ]
    batch = _on(codec.collate([lessons[row] for row in kept]), model)
    kind = batch["atom"]
    rank = torch.from_numpy(np.stack([rng.permutation(kind.shape[1]) for _ in kept])).to(
        kind.device
    )
    charges = torch.tensor([t.charge for t in TYPES], device=kind.device)
    charge = (charges[kind.clamp(min=0)] * (kind >= 0)).sum(1)
    target = Target(kind, batch["bond"], rank, torch.zeros_like(kind, dtype=torch.bool))
    return [SMILES[row] for row in kept], target, Feasibility((1, 64), charge)


@torch.no_grad()
def reading(
    model: MoleculeNet, codec: MoleculeCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """Reading a growth step by step, as sampling does, gives the logits of reading its whole
    history, as training does.
    """
    if "policy" not in model.heads:
        return 0.0, EXACT
    _, target, rules = _walks(model, codec, rng)
    actions, rows = actions_of(model), len(target.kind)
    style = torch.zeros(rows, dtype=torch.long, device=target.kind.device)
    whole = read_history(model, lesson(target, actions, rules).history, style, None)
    reader, worst = Reader(model, rows, target.kind.shape[1], 0, None), 0.0
    for at, step in enumerate(trajectory(target, actions)):
        away = (reader.read(step.partial_graph) - whole[:, at]).abs()
        # the logit of a ring to an atom to come may be anything, for it is never legal
        there = step.partial_graph.kind >= 0
        away[:, actions.first_ring :] *= there.repeat_interleave(RING_ORDERS, 1)
        worst = max(worst, float((away * ~step.partial_graph.done[:, None]).max()))
    return worst, EXACT


@torch.no_grad()
def probabilities(
    model: MoleculeNet, codec: MoleculeCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """At every step of a walk some action is legal, and the probabilities of the legal ones add
    up to 1.
    """
    if "policy" not in model.heads:
        return 0.0, EXACT
    _, target, rules = _walks(model, codec, rng)
    actions, worst = actions_of(model), 0.0
    reader = Reader(model, len(target.kind), target.kind.shape[1], 0, None)
    for step in trajectory(target, actions):
        may = legal(step.partial_graph, actions, rules)
        p_BA = reader.read(step.partial_graph).masked_fill(~may, -torch.inf).softmax(-1)
        away = torch.where(may, p_BA, 0).sum(-1) - 1
        worst = max(worst, float(away.nan_to_num(nan=torch.inf).abs().max()))
    return worst, EXACT


def rebuilding(
    model: MoleculeNet, codec: MoleculeCodec, rng: np.random.Generator
) -> tuple[float, float]:
    """Walks of a molecule from any root and with any turns rebuild that molecule."""
    wrong = 0
    for _ in range(3):
        smiles, target, _ = _walks(model, codec, rng)
        *_, last = trajectory(target, actions_of(model))
        rebuilt = [smiles_of_graph(graph) for graph in graphs_of(last.partial_graph)]
        wrong += sum(
            canonical(mol_of_smiles(a))[0] != b for a, b in zip(smiles, rebuilt, strict=True)
        )
    return float(wrong), 0.0


LAWS: dict[str, Callable[..., tuple[float, float]]] = {
    "permutation": permutation,
    "padding": padding,
    "validity": validity,
    "reading": reading,
    "probabilities": probabilities,
    "rebuilding": rebuilding,
}
