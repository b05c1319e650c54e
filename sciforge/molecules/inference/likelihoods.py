"""How likely a molecule is under the generator: of one walk exactly, of the molecule from below."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sciforge.core.domain import widened
from sciforge.core.files.output_files import cell, provenance, whole_files
from sciforge.core.training.model import Model
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.chemistry.graph import Graph, canonical, graph_of_mol
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.data.readers import parts_of, read_part
from sciforge.molecules.generation.feasibility import Rules
from sciforge.molecules.generation.partial_graph import STOP
from sciforge.molecules.generation.policy import actions_of, read_history
from sciforge.molecules.generation.trajectories import Target
from sciforge.molecules.inference.generation import condition_for, need_policy, wishes_of
from sciforge.molecules.model.molecule_transformer import MoleculeNet
from sciforge.molecules.objectives.generation import CANONICAL, lesson

MOST_ATOMS = 64
IMPOSSIBLE = -torch.inf


@torch.inference_mode()
def log_likelihoods(
    model: MoleculeNet, graph: Graph, walks: int, seed: int, condition: Tensor | None = None
) -> tuple[float, float, int]:
    """Return the log-likelihood of the canonical walk, a lower bound of the molecule's, and how many walks it counts.

    A molecule can grow along many walks and its probability is the sum over all; the sum over any set of different ones is a lower
    bound (walks that take the same actions count once).

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
    rank = torch.stack([torch.arange(size), *(torch.randperm(size, generator=rng) for _ in range(walks - 1))])
    kind = torch.from_numpy(graph.atom_N.astype("int64")).expand(walks, -1).contiguous()
    bond = torch.zeros(walks, size, size, dtype=torch.long)
    i, j = (torch.from_numpy(x.astype("int64")) for x in graph.pair_M2.T)
    bond[:, i, j] = bond[:, j, i] = torch.from_numpy(graph.order_M.astype("int64"))
    target = Target(*(x.to(device) for x in (kind, bond, rank, torch.zeros_like(kind, dtype=torch.bool))))
    charge = torch.full((walks,), sum(TYPES[k].charge for k in graph.atom_N), device=device)
    made = lesson(target, actions_of(model), Rules((1, MOST_ATOMS), charge))
    style = torch.full((walks,), CANONICAL, device=device)
    told = None if condition is None else condition.to(device).expand(walks, -1)
    logits = widened(read_history(model, made.history, style, told)).masked_fill(~made.legal, -torch.inf)
    chosen = logits.log_softmax(-1).gather(-1, made.action.clamp(min=0)[..., None])[..., 0]
    log_p = torch.where(made.counts, chosen, 0).sum(1).double()
    log_p = torch.where(made.counts.any(1), log_p, IMPOSSIBLE).cpu()
    first = _first_of_each(made.action.cpu())
    return float(log_p[0]), float(log_p[first].logsumexp(0)), int(torch.isfinite(log_p[first]).sum())


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


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """How likely given molecules are under the generator, as a table (TSV): exact for one walk, a bound for the molecule.

    Args:
        files: SMILES lists, tables or SDF.
        out: the table to write: name, smiles, atoms, log_p_walk, log_p_bound (nats), walks, reason where there is no figure.
        smiles_column: its name in tables.
        walks: different ways of growing to sum over.
        want: properties that the net is told, as NAME=VALUE.
        seed: of the ways.
    """

    files: tuple[Path, ...]
    out: Path
    smiles_column: str = "smiles"
    walks: int = 16
    want: tuple[str, ...] = ()
    seed: int = 0

    def write(self, model: Model) -> Path:
        """Write the table and return its path; a molecule that cannot be read or grown keeps its row, with the reason."""
        need_policy(model)
        if self.walks < 1:
            raise ConfigError(f"walks is {self.walks}; give at least 1")
        condition = condition_for(model, wishes_of(self.want))
        model.network.eval()
        with whole_files(self.out, sources=self.files) as (table,):
            table.write(f"# {provenance(self, model)}\n")
            table.write("name\tsmiles\tatoms\tlog_p_walk\tlog_p_bound\twalks\treason\n")
            for entry in tqdm(self._entries(), "likelihoods", unit="mol", disable=None, leave=False):
                table.write("\t".join(self._row(model, entry, condition)) + "\n")
        return Path(self.out)

    def _entries(self):
        for file in self.files:
            for part in parts_of(file):
                yield from read_part(part, self.smiles_column, ())

    def _row(self, model: Model, entry, condition: Tensor | None) -> Sequence[str]:
        try:
            smiles, mol = canonical(entry.mol())
            graph = graph_of_mol(mol)
            walk, bound, walks = log_likelihoods(model.network, graph, self.walks, self.seed, condition)
        except DataError as error:
            return cell(entry.name), cell(entry.text[:200]), "", "", "", "", cell(str(error))
        reason = "" if walks else "the rules of growth forbid it (an atom type, a ring size, a charge with hydrogens)"
        return cell(entry.name), smiles, str(len(graph)), f"{walk:.4f}", f"{bound:.4f}", str(walks), reason
