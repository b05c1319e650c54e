"""Is any action that training teaches masked? All molecules of MOSES, walked in canonical and in
random order.

    python benchmarks/molecules_moses_walks.py ../shared/data/molecules/moses/*.csv.gz [--every 100]
    [--workers 8]

Counts walks with an illegal step (around a cage of fused rings a walk may have to close a ring of
more than eight atoms first), molecules that a walk does not rebuild, and molecules whose graph does
not give back their SMILES.
"""

import argparse
import contextlib
import csv
import gzip
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice, repeat
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from sciforge.errors import DataError
from sciforge.molecules.chemistry.graph import (
    canonical,
    graph_of_mol,
    mol_of_smiles,
    smiles_of_graph,
)
from sciforge.molecules.chemistry.valence import ORGANIC, TYPES, indices_of
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.generation.action_mask import legal
from sciforge.molecules.generation.feasibility import Feasibility
from sciforge.molecules.generation.partial_graph import Actions
from sciforge.molecules.generation.sampler import graphs_of
from sciforge.molecules.generation.trajectories import Target, trajectory
from sciforge.molecules.objectives.generation import legal_lesson

ACTIONS = Actions(indices_of(ORGANIC))
CHARGES = torch.tensor([t.charge for t in TYPES])
AT_ONCE = 512


def judge(smiles: list[str], random: bool, seed: int = 0) -> Counter:
    """Walk molecules in canonical or random order and count what goes wrong."""
    torch.set_num_threads(1)
    counts, texts, examples, codec = Counter(), [], [], MoleculeCodec()
    for text in smiles:
        try:
            name, mol = canonical(mol_of_smiles(text))
            graph = graph_of_mol(mol)
        except DataError:
            counts["not in the table"] += 1
            continue
        counts["SMILES lost"] += smiles_of_graph(graph) != name
        texts.append(name)
        examples.append(codec.encode_graph(graph, mol))
    batch = codec.collate(examples)
    kind = batch["atom"]
    rank = torch.arange(kind.shape[1]).expand(len(kind), -1)
    if random:
        rank = torch.rand(kind.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    target = Target(kind, batch["bond"], rank, torch.zeros_like(kind, dtype=torch.bool))
    rules = Feasibility((1, 64), (CHARGES[kind.clamp(min=0)] * (kind >= 0)).sum(1))
    illegal = torch.zeros(len(kind), dtype=torch.bool)
    for step in trajectory(target, ACTIONS):  # the mask is asked before each step
        live = ~step.partial_graph.done
        may = legal(step.partial_graph, ACTIONS, rules).gather(
            1, step.action.clamp(min=0)[:, None]
        )[:, 0] & (step.action >= 0)
        illegal |= live & ~may
        counts["steps"] += int(live.sum())
    counts["molecules"] += len(texts)
    counts["illegal walks"] += int(illegal.sum())
    if bool(illegal.any()):
        cages = Target(*(x[illegal] for x in (target.kind, target.bond, target.rank, target.seed)))
        some = replace(rules, charge=rules.charge[illegal])
        counts["illegal from all places tried"] += int(
            (legal_lesson(cages, ACTIONS, some).illegal > 0).sum()
        )
    counts["not rebuilt"] += sum(
        smiles_of_graph(g) != text
        for g, text in zip(graphs_of(step.partial_graph), texts, strict=True)
    )
    return counts


def both(smiles: tuple[str, ...], seed: int, random: bool) -> tuple[Counter, Counter]:
    """Judge canonical and, if asked for, random walks."""
    return judge(list(smiles), random=False), (
        judge(list(smiles), random=True, seed=seed) if random else Counter()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=1, help="one molecule in so many")
    parser.add_argument("--canonical", action="store_true", help="leave the random walks out")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    start, totals = time.perf_counter(), (Counter(), Counter())
    smiles = []
    for path in args.files:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as text:
            smiles += [row["SMILES"] for row in islice(csv.DictReader(text), 0, None, args.every)]
    jobs = [tuple(smiles[i : i + AT_ONCE]) for i in range(0, len(smiles), AT_ONCE)]
    with contextlib.ExitStack() as stack:
        run = map
        if args.workers > 1:
            run = stack.enter_context(ProcessPoolExecutor(args.workers, get_context("spawn"))).map
        for found in tqdm(
            run(both, jobs, range(len(jobs)), repeat(not args.canonical)),
            total=len(jobs),
            unit="batch",
            disable=None,
        ):
            for total, one in zip(totals, found, strict=True):
                total.update(one)
    for order, total in zip(("canonical", "random"), totals, strict=True):
        share = 100 * total["illegal walks"] / max(total["molecules"], 1)
        print(
            f"{order:9}",
            ", ".join(f"{name} {count}" for name, count in total.items()),
            f"({share:.3f} % meet an illegal step)",
        )
    print(
        f"{len(smiles)} molecules in {time.perf_counter() - start:.0f} s with {args.workers}"
        " workers"
    )


if __name__ == "__main__":
    main()
