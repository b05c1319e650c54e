"""Does a generator that learnt nothing keep every promise? RDKit judges molecules drawn from random
weights.

    python benchmarks/molecules_rollouts.py --num 1000000 [--workers 8]

Weights are drawn anew for each batch and sharpened, so that each batch has preferences of its own;
the requests go round: none, sizes, charges, rings, formulas, types, forbidden parts, scaffolds. A
molecule fails if RDKit does not sanitise it, finds a radical or two pieces, or if it breaks the
request; nothing is rejected or drawn again. Prints failures of each request, what the mask took and
the rate.
"""

import argparse
import contextlib
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import torch
from rdkit import Chem
from tqdm import tqdm

from sciforge.molecules.chemistry.forbidden_substructures import patterns_of
from sciforge.molecules.chemistry.graph import Graph, graph_of_mol, mol_of_graph, mol_of_smiles
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.generation.constraints import Constraints, parse_formula
from sciforge.molecules.generation.sampler import Drawn, Sampling, sample
from sciforge.molecules.model.molecule_transformer import MoleculeNet, MoleculeNetConfig
from sciforge.molecules.objectives.generation import Grow

NAMES = {(t.symbol, t.charge): t.name for t in TYPES}
NITRO, PEROXIDE, AZO = "[O-][N+]=O", "OO", "N=N"
REQUESTS = {
    "none": Constraints(),
    "eight atoms": Constraints(atoms=(1, 8)),
    "twelve to twelve atoms": Constraints(atoms=(12, 12)),
    "charge +1": Constraints(charge=1, atoms=(1, 12)),
    "charge -2": Constraints(charge=-2, atoms=(4, 14)),
    "two or three rings of 5 or 6": Constraints(rings=(2, 3), ring_sizes=(5, 6), atoms=(10, 20)),
    "no ring": Constraints(rings=(0, 0), atoms=(5, 15)),
    "rings of 4 to 6, charge -1": Constraints(
        rings=(1, 2), ring_sizes=(4, 6), atoms=(6, 12), charge=-1
    ),
    "aspirin's formula": Constraints(formula="C9H8O4"),
    "aspirin's formula, one ring of 5 or 6": Constraints(
        formula="C9H8O4", rings=(1, 1), ring_sizes=(5, 6)
    ),
    "a sulfonamide's formula": Constraints(formula="C8H11NO2S"),
    "a cation's formula": Constraints(formula="C7H13N2O", charge=1),
    "an anion's formula": Constraints(formula="C6H8NO4", charge=-1, rings=(0, 2)),
    "halogens and phosphorus": Constraints(formula="C6H10ClFNO2P"),
    "C N O only": Constraints(types=("C", "N", "O"), atoms=(5, 20)),
    "no nitro, no peroxide, no azo": Constraints(forbidden=(NITRO, PEROXIDE, AZO), atoms=(5, 15)),
    "no nitro, a ring, charge -1": Constraints(
        forbidden=(NITRO, PEROXIDE), rings=(1, 3), charge=-1, atoms=(5, 11)
    ),
    "no cyclopropane": Constraints(forbidden=("C1CC1",), atoms=(1, 15)),
    "piperazine scaffold": Constraints(scaffold="C1CN(*)CCN1*", atoms=(8, 16)),
    "indole scaffold, formula": Constraints(scaffold="c1ccc2[nH]ccc2c1", formula="C12H14N2O"),
    "scaffold, rings, charge, no nitro": Constraints(
        scaffold="O=C1CCCN1", rings=(2, 2), charge=1, atoms=(9, 16), forbidden=(NITRO,)
    ),
}


def untrained(
    seed: int, width: int = 8, sharpness: float = 3.0, alphabet: tuple[str, ...] = ()
) -> MoleculeNet:
    """Return a net with random weights and a policy that prefers some actions strongly."""
    torch.manual_seed(seed)
    config = MoleculeNetConfig(
        width=width, depth=1, heads=1, **({"alphabet": alphabet} if alphabet else {})
    )
    model = config.build(None)
    Grow().attach(model)
    with torch.no_grad():
        for name, weight in model.heads["policy"].named_parameters():
            if name.startswith(("act", "size", "query")):
                weight.normal_(0, sharpness * weight.shape[-1] ** -0.5)
    return model.eval()


def faults(drawn: Drawn, asked: Constraints) -> list[str]:
    """Return one line for each molecule that breaks valence or the request, as RDKit sees it."""
    scaffold = [_query(_scaffold_of(asked.scaffold), orders=False)] if asked.scaffold else []
    forbidden = [_query(pattern.graph, orders=True) for pattern in patterns_of(asked.forbidden)]
    found = []
    for graph in drawn.graphs:
        try:
            mol = mol_of_smiles(Chem.MolToSmiles(mol_of_graph(graph)))
        except Exception as error:  # whatever it is, the promise is broken
            found.append(f"not a molecule: {error}")
            continue
        wrong = broken(mol, asked)
        drawn_mol = as_drawn(graph)
        wrong += ["scaffold"] * any(not drawn_mol.HasSubstructMatch(query) for query in scaffold)
        wrong += ["forbidden"] * any(drawn_mol.HasSubstructMatch(query) for query in forbidden)
        found += [f"{Chem.MolToSmiles(mol)}: {', '.join(wrong)}"] * bool(wrong)
    return found


def broken(mol: Chem.Mol, asked: Constraints) -> list[str]:
    """Return what of the request, scaffold and forbidden parts aside, a molecule does not keep."""
    atoms, rings = list(mol.GetAtoms()), mol.GetNumBonds() - mol.GetNumAtoms() + 1
    sizes = [len(ring) for ring in mol.GetRingInfo().AtomRings()]
    types = {NAMES.get((a.GetSymbol(), a.GetFormalCharge())) for a in atoms}
    counts = Counter(a.GetSymbol() for a in atoms) + Counter(
        H=sum(a.GetTotalNumHs() for a in atoms)
    )
    wanted = Counter()
    if asked.formula:
        heavy, hydrogens = parse_formula(asked.formula)
        wanted = Counter(heavy) + Counter(H=hydrogens)
    kept = {
        "radical": not any(a.GetNumRadicalElectrons() for a in atoms),
        "pieces": len(Chem.GetMolFrags(mol)) == 1,
        "charge": Chem.GetFormalCharge(mol) == asked.charge,
        "atoms": bool(asked.formula) or asked.atoms[0] <= len(atoms) <= asked.atoms[1],
        "rings": asked.rings[0] <= rings <= asked.rings[1],
        "ring sizes": (
            not sizes or (asked.ring_sizes[0] <= min(sizes) and max(sizes) <= asked.ring_sizes[1])
        ),
        "formula": not asked.formula or counts == wanted,
        "types": (
            None not in types
            and (bool(asked.scaffold) or not asked.types or types <= set(asked.types))
        ),
    }
    return [name for name, good in kept.items() if not good]


def as_drawn(graph: Graph) -> Chem.Mol:
    """Return the kekulised molecule as it grew, aromaticity not perceived."""
    mol = Chem.RWMol()
    for kind in graph.atom_N.tolist():
        atom = Chem.Atom(TYPES[kind].symbol)
        atom.SetFormalCharge(TYPES[kind].charge)
        mol.AddAtom(atom)
    for (i, j), order in zip(graph.pair_M2.tolist(), graph.order_M.tolist(), strict=True):
        mol.AddBond(i, j, Chem.BondType.values[order])
    mol.UpdatePropertyCache(strict=False)
    return mol.GetMol()


def _scaffold_of(smiles: str) -> Graph:
    mol = Chem.RWMol(mol_of_smiles(smiles))
    for place in sorted(
        (a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() == 0), reverse=True
    ):
        mol.RemoveAtom(place)
    Chem.SanitizeMol(mol)
    return graph_of_mol(mol.GetMol())


def _query(graph: Graph, orders: bool) -> Chem.Mol:
    """Return a query for a kekulised graph: atoms by element and charge, bonds by order, or any."""
    query = Chem.RWMol()
    for kind in graph.atom_N.tolist():
        number = Chem.Atom(TYPES[kind].symbol).GetAtomicNum()
        query.AddAtom(Chem.AtomFromSmarts(f"[#{number};{TYPES[kind].charge:+d}]"))
    for (i, j), order in zip(graph.pair_M2.tolist(), graph.order_M.tolist(), strict=True):
        query.AddBond(i, j, Chem.BondType.values[order])
        query.ReplaceBond(
            query.GetNumBonds() - 1, Chem.BondFromSmarts(" -=#"[order] if orders else "~")
        )
    return query.GetMol()


@dataclass
class Count:
    """What came out of one request."""

    drawn: int = 0
    wrong: list[str] = field(default_factory=list)
    removed: Counter = field(default_factory=Counter)
    batches: int = 0
    seconds: float = 0.0


def roll(seed: int, name: str, num: int) -> tuple[str, Count]:
    """Draw one batch of one request from a net of its own and judge it."""
    torch.set_num_threads(1)
    model = untrained(seed, sharpness=(0.0, 1.0, 4.0)[seed % 3])
    start = time.perf_counter()
    drawn = sample(model, num, REQUESTS[name], Sampling(parallel=num, seed=seed))
    spent = time.perf_counter() - start
    wrong = faults(drawn, REQUESTS[name]) + ["missing molecules"] * (len(drawn.graphs) != num)
    return name, Count(num, wrong, Counter(drawn.removed), 1, spent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names, start = list(REQUESTS), time.perf_counter()
    jobs = [
        (args.seed + i, names[i % len(names)], args.batch)
        for i in range(-(-args.num // args.batch))
    ]
    counts = {name: Count() for name in names}
    with contextlib.ExitStack() as stack:
        run = map
        if args.workers > 1:
            run = stack.enter_context(ProcessPoolExecutor(args.workers, get_context("spawn"))).map
        for name, one in tqdm(
            run(roll, *zip(*jobs, strict=True)), total=len(jobs), unit="batch", disable=None
        ):
            all_of = counts[name]
            all_of.drawn, all_of.batches = all_of.drawn + one.drawn, all_of.batches + 1
            all_of.wrong, all_of.seconds = all_of.wrong + one.wrong, all_of.seconds + one.seconds
            all_of.removed += one.removed
    print(
        f"{'request':40} {'drawn':>8} {'failed':>6} {'mol/s':>6}  mean probability of a step that"
        " the mask took from"
    )
    for name, count in counts.items():
        if count.batches:
            lost = "  ".join(
                f"{sort} {value / count.batches:.3f}" for sort, value in count.removed.items()
            )
            print(
                f"{name:40} {count.drawn:8d} {len(count.wrong):6d}"
                f" {count.drawn / count.seconds:6.0f}  {lost}"
            )
            for line in count.wrong[:3]:
                print("    ", line)
    drawn, failed = (
        sum(c.drawn for c in counts.values()),
        sum(len(c.wrong) for c in counts.values()),
    )
    spent = time.perf_counter() - start
    print(
        f"{drawn} molecules, {failed} failures, 0 rejections; {drawn / spent:.0f} a second with"
        f" {args.workers} workers"
    )


if __name__ == "__main__":
    main()
