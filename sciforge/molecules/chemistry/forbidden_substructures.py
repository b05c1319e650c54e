"""Substructures that must not appear: looked for in the growing graphs themselves, on the device.

A bond or atom that is there stays, so a molecule never loses a forbidden part again: an action that
completes one is masked when it is met, and what is left of the policy is exactly the policy under
that constraint. The plan that proves completability (rules.py) attaches fillers, mostly carbons, by
single bonds; where a pattern could forbid that, what may be owed is restricted (`restrict`).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciforge.errors import ConfigError
from sciforge.molecules.chemistry.graph import Graph, graph_of_mol, mol_of_smiles
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.generation.feasibility import Feasibility, charges_of
from sciforge.molecules.generation.partial_graph import PartialGraph

if TYPE_CHECKING:
    from rdkit import Chem

MAX_FORMS = 64  # Kekule structures of one pattern


@dataclass(frozen=True)
class Pattern:
    """A kekulised substructure; its atoms match by element and charge, its bonds by order,
    hydrogens do not count.

    Args:
        smiles: as the user wrote it.
        graph: one Kekule structure, its atoms ordered so that each is bonded to an earlier one.
    """

    smiles: str
    graph: Graph

    def bonds(self) -> dict[tuple[int, int], int]:
        """Return the order of each bond, the later atom first."""
        pairs = zip(self.graph.pair_M2.tolist(), self.graph.order_M.tolist(), strict=True)
        return {(max(pair), min(pair)): order for pair, order in pairs}

    def found(self, partial_graph: PartialGraph) -> Tensor:
        """Return which molecules hold the pattern [B]."""
        kinds, bonds = self.graph.atom_N.tolist(), self.bonds()
        row, first = (partial_graph.kind == kinds[0]).nonzero(as_tuple=True)
        chosen = first[:, None]
        for atom in range(1, len(kinds)):
            fits = partial_graph.kind[row] == kinds[atom]
            fits.scatter_(1, chosen, False)
            for (later, earlier), order in bonds.items():
                if later == atom:
                    fits &= partial_graph.bond[row, chosen[:, earlier]] == order
            which, place = fits.nonzero(as_tuple=True)
            row, chosen = row[which], torch.cat([chosen[which], place[:, None]], 1)
        present = torch.zeros(len(partial_graph), dtype=torch.bool, device=partial_graph.device)
        present[row] = True
        return present


def patterns_of(smiles: tuple[str, ...]) -> tuple[Pattern, ...]:
    """Return every Kekule structure of every forbidden substructure; raises DataError for SMILES
    that cannot be read.

    >>> len(patterns_of(("Cc1ccccc1C",)))
    2
    """
    from rdkit import Chem

    patterns = []
    for text in smiles:
        forms = {}
        for form in Chem.ResonanceMolSupplier(mol_of_smiles(text), Chem.KEKULE_ALL, MAX_FORMS):
            for part in (*form.GetAtoms(), *form.GetBonds()):
                # else it would be kekulised anew, always into the same form
                part.SetIsAromatic(False)
            for atom in form.GetAtoms():
                # [O-] stands for any such oxygen: hydrogens do not count
                atom.SetNumRadicalElectrons(0)
            graph = graph_of_mol(Chem.RenumberAtoms(form, _connected_order(form)))
            forms[graph.order_M.tobytes() + graph.pair_M2.tobytes()] = graph
        patterns += [Pattern(text, graph) for graph in forms.values()]
    return tuple(patterns)


def _connected_order(mol: "Chem.Mol") -> list[int]:
    """Return the atoms so that each but the first has a neighbour before it; the rarest element
    first, to fail early.
    """
    order = [min(range(mol.GetNumAtoms()), key=lambda i: mol.GetAtomWithIdx(i).GetAtomicNum() == 6)]
    while len(order) < mol.GetNumAtoms():
        near = (n.GetIdx() for i in order for n in mol.GetAtomWithIdx(i).GetNeighbors())
        order.append(next(i for i in near if i not in order))
    return order


def restrict(
    patterns: tuple[Pattern, ...],
    rules: Feasibility,
    alphabet: tuple[int, ...],
    partial_graph: PartialGraph,
) -> tuple[tuple[int, ...], Feasibility]:
    """Return the types that may be used beside forbidden patterns without a dead end, and the rules
    of a plan that avoids them.

    Args:
        patterns: of the user.
        rules: all other constraints.
        alphabet: the types that may be used otherwise.
        partial_graph: one molecule as sampling will find it: empty, or the scaffold.

    Raises:
        ConfigError: what must be reached (a formula, a charge, rings, a size) might need what is
            forbidden.
    """
    if not patterns:
        return alphabet, rules
    if rules.formula is not None:
        raise ConfigError(
            "forbidden substructures beside an exact formula cannot be promised; leave one of"
            " them out"
        )
    single_atoms = {int(pattern.graph.atom_N[0]) for pattern in patterns if len(pattern.graph) == 1}
    kept = tuple(kind for kind in alphabet if kind not in single_atoms)
    fillers = [kind for kind in kept if not TYPES[kind].charge and TYPES[kind].valences[0] >= 3]
    if not fillers:
        raise ConfigError(
            "no neutral type of three or more bonds is left by what is forbidden; allow C or N"
        )
    loose = {
        kind: [pattern for pattern in patterns if any(_single(pattern, kind))] for kind in fillers
    }
    filler = min(fillers, key=lambda kind: len(loose[kind]))
    for pattern in loose[filler]:
        touched = _touched(pattern, filler, rules, partial_graph)
        # A filler that completes an atom stands on it; nothing else is owed without charges.
        kept = tuple(
            k
            for k in kept
            if not TYPES[k].charge and not (k in touched and len(TYPES[k].valences) > 1)
        )
    anion, cation = charges_of(kept)
    return kept, replace(rules, filler=filler, anion=anion, cation=cation)


def _touched(
    pattern: Pattern, filler: int, rules: Feasibility, partial_graph: PartialGraph
) -> set[int]:
    """Return the types that a filler may complete to a forbidden pattern; raises ConfigError where
    the request cannot be promised beside it.
    """
    if rules.atoms[0] > 1 or rules.rings[0] or int(rules.charge):
        what = "a least number of atoms or rings, or a charge,"
        raise ConfigError(
            f"{what} beside the forbidden {pattern.smiles!r} cannot be promised; leave one of"
            " them out"
        )
    single = _single(pattern, filler)
    touching = {i for pair in pattern.bonds() for i in pair if single[pair[0]] or single[pair[1]]}
    touched = {int(pattern.graph.atom_N[i]) for i in touching if not single[i]}
    for kind in partial_graph.kind[partial_graph.open].tolist():
        if kind in touched and (TYPES[kind].bonds_only or len(TYPES[kind].valences) > 1):
            what = f"the scaffold's {TYPES[kind].name}"
            raise ConfigError(
                f"{what} beside the forbidden {pattern.smiles!r} cannot be promised; close it"
                " with a dummy"
            )
    return touched


def _single(pattern: Pattern, kind: int) -> list[bool]:
    """Return which atoms of a pattern are of a type and have single bonds only."""
    bonds = pattern.bonds().items()
    kinds = pattern.graph.atom_N.tolist()
    return [
        k == kind and all(order == 1 for pair, order in bonds if i in pair)
        for i, k in enumerate(kinds)
    ]
