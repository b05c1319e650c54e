"""How likely a molecule is under the generator: of one walk exactly, of the molecule from below."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from sciforge.core.domain import widened
from sciforge.core.files.output_files import about
from sciforge.core.files.results import TableResult
from sciforge.core.files.settings import Settings
from sciforge.core.training.model import Model
from sciforge.errors import DataError
from sciforge.molecules.chemistry.graph import Graph, canonical, graph_of_mol
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.data.in_memory import smiles_of_input
from sciforge.molecules.data.readers import Entry, parts_of, read_part
from sciforge.molecules.generation.feasibility import Feasibility
from sciforge.molecules.generation.partial_graph import STOP
from sciforge.molecules.generation.policy import actions_of, read_history
from sciforge.molecules.generation.trajectories import Target
from sciforge.molecules.inference.generation import as_words, condition_for, wishes_of
from sciforge.molecules.model.molecule_transformer import MoleculeNet
from sciforge.molecules.objectives.generation import CANONICAL, lesson

if TYPE_CHECKING:
    import pandas as pd

MAX_ATOMS = 64
IMPOSSIBLE = -torch.inf


@torch.inference_mode()
def log_likelihoods(
    model: MoleculeNet, graph: Graph, walks: int, seed: int, condition: Tensor | None = None
) -> tuple[float, float, int]:
    """Return the log-likelihood of the canonical walk, a lower bound of the molecule's, and how
    many walks it counts.

    A molecule can grow along many walks and its probability is the sum over all; the sum over any
    set of different ones is a lower bound (walks that take the same actions count once).

    Args:
        model: with a policy, in evaluation mode.
        graph: in the order of the canonical SMILES.
        walks: how many to try: the canonical one and random ones.
        seed: of the random ones.
        condition: [2 P] or None.

    Returns:
        nats; minus infinity where the mask forbids the walk, or all of them.
    """
    device, size = model.relation.weight.device, len(graph)
    rng = torch.Generator().manual_seed(seed)
    rank = torch.stack(
        [torch.arange(size), *(torch.randperm(size, generator=rng) for _ in range(walks - 1))]
    )
    kind = torch.from_numpy(graph.atom_N.astype("int64")).expand(walks, -1).contiguous()
    bond = torch.zeros(walks, size, size, dtype=torch.long)
    i, j = (torch.from_numpy(x.astype("int64")) for x in graph.pair_M2.T)
    bond[:, i, j] = bond[:, j, i] = torch.from_numpy(graph.order_M.astype("int64"))
    target = Target(
        *(x.to(device) for x in (kind, bond, rank, torch.zeros_like(kind, dtype=torch.bool)))
    )
    charge = torch.full((walks,), sum(TYPES[k].charge for k in graph.atom_N), device=device)
    walked = lesson(target, actions_of(model), Feasibility((1, MAX_ATOMS), charge))
    style = torch.full((walks,), CANONICAL, device=device)
    condition_WP = None if condition is None else condition.to(device).expand(walks, -1)
    logits = widened(read_history(model, walked.history, style, condition_WP)).masked_fill(
        ~walked.legal, -torch.inf
    )
    chosen = logits.log_softmax(-1).gather(-1, walked.action.clamp(min=0)[..., None])[..., 0]
    log_p = torch.where(walked.counts, chosen, 0).sum(1).double()
    log_p = torch.where(walked.counts.any(1), log_p, IMPOSSIBLE).cpu()
    first = _first_of_each(walked.action.cpu())
    return (
        float(log_p[0]),
        float(log_p[first].logsumexp(0)),
        int(torch.isfinite(log_p[first]).sum()),
    )


def _first_of_each(action_WL: Tensor) -> list[int]:
    """Return the first of each set of equal walks.

    >>> _first_of_each(torch.tensor([[2, 1, 0], [3, 1, 0], [2, 1, 0]]))
    [0, 1]
    """
    seen: dict[tuple[int, ...], int] = {}
    for row, actions in enumerate(action_WL.tolist()):
        end = actions.index(STOP) if STOP in actions else len(actions)
        seen.setdefault(tuple(actions[:end]), row)
    return list(seen.values())


COLUMNS = ("name", "smiles", "atoms", "log_p_walk", "log_p_bound", "walks", "reason")


@dataclass(frozen=True, kw_only=True)
class Likelihoods(Settings):
    """How likely given molecules are under the generator, as a table: exact for one walk, a lower
    bound for the molecule.

    Columns: name, smiles, atoms, log_p_walk, log_p_bound (nats), walks, and the reason where there
    is no value.

    Args:
        files: SMILES lists, tables or SDF.
        smiles_column: its name in tables.
        walks: different ways of building a molecule to sum over.
        want: properties that the net is conditioned on, as NAME=VALUE.
        seed: of the ways.
    """

    files: tuple[Path, ...]
    smiles_column: str = "smiles"
    walks: int = 16
    want: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "want", as_words(self.want))
        super().__post_init__()
        self.require(1, math.inf, "walks")

    def run(self, model: Model) -> TableResult:
        """Compute the table; a molecule that cannot be read or built keeps its row, with the
        reason.
        """
        entries = [
            entry
            for file in self.files
            for part in parts_of(file)
            for entry in read_part(part, self.smiles_column, ())
        ]
        return TableResult(
            likelihood_table(model, entries, self.walks, self.want, self.seed), about(self, model)
        )


def likelihoods(
    model: Model,
    inputs: Sequence[Any],
    *,
    walks: int = Likelihoods.walks,
    want: Mapping[str, float] | Sequence[str] = (),
    seed: int = Likelihoods.seed,
) -> "pd.DataFrame":
    """Return how likely molecules are under a generator, one row each; a method,
    `generator.likelihoods(smiles)`.

    Args:
        model: a generator.
        inputs: SMILES or RDKit molecules; the index of a Series is kept.
        walks: different ways of building a molecule to sum over.
        want: properties that the net is conditioned on.
        seed: of the ways.
    """
    texts = []
    for place, value in enumerate(inputs):
        try:
            texts.append(smiles_of_input(value))
        except DataError as error:
            raise DataError(f"input {place}: {error}") from None
    entries = [Entry(place, text, False, "", place) for place, text in enumerate(texts)]
    table = likelihood_table(model, entries, walks, as_words(want), seed).drop(columns="name")
    return (
        table
        if (index := getattr(inputs, "index", None)) is None or callable(index)
        else table.set_index(index)
    )


def likelihood_table(
    model: Model, entries: Sequence[Entry], walks: int, want: Sequence[str], seed: int
) -> "pd.DataFrame":
    """Return the table of `Likelihoods` for entries of files."""
    import pandas as pd

    condition = condition_for(model, wishes_of(want))
    model.network.eval()
    bar = tqdm(entries, "likelihoods", unit="mol", disable=None, leave=False)
    return pd.DataFrame(
        [_row(model, entry, condition, walks, seed) for entry in bar], columns=list(COLUMNS)
    )


def _row(
    model: Model, entry: Entry, condition: Tensor | None, walks: int, seed: int
) -> tuple[Any, ...]:
    try:
        smiles, mol = canonical(entry.mol())
        graph = graph_of_mol(mol)
        if len(graph) > MAX_ATOMS:
            raise DataError(f"{len(graph)} heavy atoms; the generator builds at most {MAX_ATOMS}")
        walk, bound, counted = log_likelihoods(model.network, graph, walks, seed, condition)
    except DataError as error:
        return entry.name, entry.text[:200], None, None, None, None, str(error)
    forbidden = (
        "the valence rules of the generator forbid it (an atom type, a ring size, a charge with"
        " hydrogens)"
    )
    return entry.name, smiles, len(graph), walk, bound, counted, "" if counted else forbidden
