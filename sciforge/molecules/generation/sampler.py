"""Drawing molecules from a policy under hard constraints: batched on the device, valid by
construction, nothing rejected.

Legend of shape letters: B batch, N atoms, A actions.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from sciforge.core.files.settings import Settings
from sciforge.core.transfers import to_numbers
from sciforge.errors import ConfigError, DataError
from sciforge.molecules.chemistry.forbidden_substructures import Pattern, patterns_of, restrict
from sciforge.molecules.chemistry.graph import Graph, graph_of_mol, mol_of_smiles, smiles_of_graph
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.generation.action_mask import legal
from sciforge.molecules.generation.constraints import (
    Constraints,
    alphabet_of,
    compile_feasibility,
    require_feasible,
)
from sciforge.molecules.generation.feasibility import Feasibility
from sciforge.molecules.generation.partial_graph import (
    FIRST_ADD,
    NEXT,
    RING_ORDERS,
    STOP,
    Actions,
    PartialGraph,
)
from sciforge.molecules.generation.policy import STYLES, Reader, actions_of
from sciforge.molecules.generation.trajectories import Target, trajectory
from sciforge.molecules.model.molecule_transformer import MoleculeNet

CHECK_EVERY = 8  # steps between two looks at how many molecules are done
# the plan of the rules promises that this never happens
DEAD_END = (
    "a molecule met a dead end, a fault of the rules: please report this request; try another seed"
)
ORDERS = 8  # in which a scaffold is tried
SORTS = ("stop", "next", "add", "ring")


@dataclass(frozen=True, kw_only=True)
class Sampling(Settings):
    """How to draw.

    Args:
        temperature: of the softmax, after the mask.
        top_p: keep the likeliest actions up to that probability, after the mask; 1 keeps all.
        parallel: molecules at once; results depend on it and on the seed, not on the machine's
            load.
        seed: of all draws.
        precision: of the net; bfloat16 is faster on processors and GPUs that calculate in it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    parallel: int = 512
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0 or not 0 < self.top_p <= 1 or self.parallel < 1:
            raise ConfigError(
                "temperature must be above 0, top_p in (0, 1] and parallel at least 1"
            )


@dataclass
class Drawn:
    """Molecules and what the mask did.

    Args:
        graphs: kekulised.
        removed: sort of action -> mean probability that the mask took from it, of a step.
        log_likelihood: of each molecule's path under the policy with mask and temperature.
    """

    graphs: list[Graph] = field(default_factory=list)
    removed: dict[str, float] = field(default_factory=dict)
    log_likelihood: list[float] = field(default_factory=list)

    def smiles(self) -> list[str]:
        """Return canonical SMILES, aromaticity perceived; the only place where RDKit sees them."""
        return [smiles_of_graph(graph) for graph in self.graphs]


def sample(
    model: MoleculeNet,
    num: int,
    constraints: Constraints | None = None,
    sampling: Sampling | None = None,
    condition: Tensor | None = None,
) -> Drawn:
    """Draw molecules that keep every constraint.

    Args:
        model: with a policy; put into evaluation mode by the caller.
        num: how many.
        constraints: hard; the defaults ask for a neutral molecule of at most 40 heavy atoms with
            rings of 3 to 8.
        sampling: temperature, top-p, seed.
        condition: [2 P] as growing.condition_of makes it, None where the net knows none.

    Raises:
        ConfigError: no molecule can meet the constraints; DataError: the scaffold cannot be read.
    """
    constraints, sampling = constraints or Constraints(), sampling or Sampling()
    if sampling.precision == "bfloat16":
        model = deepcopy(model).bfloat16()
    task = _Task.plan(model, constraints, sampling, condition)
    drawn, removed, steps = Drawn(), torch.zeros(len(SORTS), device=task.device), 0
    with tqdm(total=num, desc="generate", unit="mol", disable=None, leave=False) as bar:
        for number, start in enumerate(range(0, num, sampling.parallel)):
            batch = task.draw(min(sampling.parallel, num - start), number)
            drawn.graphs += batch.graphs
            drawn.log_likelihood += batch.log_likelihood
            removed, steps = removed + task.removed, steps + task.steps
            bar.update(len(batch.graphs))
    total = max(int(steps), 1)
    drawn.removed = {
        name: float(x) / total for name, x in zip(SORTS, removed.tolist(), strict=True)
    }
    return drawn


@dataclass
class _Task:
    """One request, compiled."""

    model: MoleculeNet
    actions: Actions
    allowed: Tensor
    rules: Feasibility
    room: int
    scaffold: "_Scaffold | None"
    patterns: tuple[Pattern, ...]
    sampling: Sampling
    condition: Tensor | None
    removed: Tensor | None = None
    steps: int = 0

    @property
    def device(self) -> torch.device:
        return self.model.relation.weight.device

    @classmethod
    def plan(
        cls,
        model: MoleculeNet,
        constraints: Constraints,
        sampling: Sampling,
        condition: Tensor | None,
    ) -> "_Task":
        """Compile a request and refuse one that cannot be met."""
        actions, device = actions_of(model), model.relation.weight.device
        alphabet = alphabet_of(constraints, model.alphabet)
        rules = compile_feasibility(constraints, alphabet, device)
        room = rules.atoms[1]
        scaffold = _Scaffold.read(constraints, room) if constraints.scaffold is not None else None
        patterns = patterns_of(constraints.forbidden)
        partial_graph = (
            scaffold.read_in(1, room, device) if scaffold else PartialGraph.empty(1, room, device)
        )
        alphabet, rules = restrict(patterns, rules, alphabet, partial_graph)
        allowed = torch.tensor([kind in alphabet for kind in model.alphabet], device=device)
        require_feasible(constraints, rules, partial_graph, actions, _only(actions, allowed, room))
        for pattern in patterns:
            if scaffold and bool(pattern.found(partial_graph).any()):
                raise ConfigError(
                    f"the scaffold {constraints.scaffold} holds the forbidden {pattern.smiles}"
                )
        return cls(model, actions, allowed, rules, room, scaffold, patterns, sampling, condition)

    @torch.inference_mode()
    def draw(self, count: int, number: int) -> Drawn:
        """Draw one batch; its randomness is a function of the seed and the batch's number."""
        rng = torch.Generator(self.device).manual_seed(self.sampling.seed * 1_000_003 + number)
        style = STYLES.index("seeded" if self.scaffold else "canonical")
        condition = (
            None if self.condition is None else self.condition.to(self.device).expand(count, -1)
        )
        reader = Reader(self.model, count, self.room, style, condition)
        only = _only(self.actions, self.allowed, self.room)
        partial_graph = PartialGraph.empty(count, self.room, self.device)
        if self.scaffold:
            partial_graph = self.scaffold.read_in(
                count, self.room, self.device, reader, self._order(only, rng)
            )
        place = torch.arange(count, device=self.device)
        score = torch.zeros(count, device=self.device)
        graphs: list[Graph | None] = [None] * count
        self.removed, self.steps, scores = (
            torch.zeros(len(SORTS), device=self.device),
            0,
            [0.0] * count,
        )
        step, stuck = 0, torch.zeros((), dtype=torch.bool, device=self.device)
        while len(partial_graph):
            logits = reader.read(partial_graph)
            may = legal(partial_graph, self.actions, self.rules, only)
            dead_B = ~may.any(1)
            stuck, may = stuck | dead_B.any(), may | dead_B[:, None]
            # a GPU is asked below: the host would wait at every step
            if self.device.type == "cpu" and bool(stuck):
                raise ConfigError(DEAD_END)
            self._count(logits, may, partial_graph)
            action, log_p = self._choose(logits, may, partial_graph, only, rng)
            score += log_p
            partial_graph.act(self.actions, action)
            step += 1
            if step % CHECK_EVERY == 0 or step > 4 * self.room:
                done = partial_graph.done
                num_done, met_dead_end = to_numbers([done.sum(), stuck])
                if met_dead_end:
                    raise ConfigError(DEAD_END)
                if num_done >= max(1, len(partial_graph) // 4):
                    # each mask is looked up once
                    ended, left = done.nonzero()[:, 0], (~done).nonzero()[:, 0]
                    _keep(partial_graph.select(ended), place[ended], score[ended], graphs, scores)
                    partial_graph, place, score = (
                        partial_graph.select(left),
                        place[left],
                        score[left],
                    )
                    reader.select(left)
        return Drawn(graphs, {}, scores)

    def _order(self, only: Tensor, rng: torch.Generator) -> Tensor:
        """Return ranks [N] by which the scaffold is walked: random ones, if from where they end
        the request is known to be met.
        """
        for _ in range(ORDERS):
            rank = torch.randperm(self.room, generator=rng, device=self.device)
            partial_graph = self.scaffold.read_in(1, self.room, self.device, rank=rank)
            if bool(legal(partial_graph, self.actions, self.rules, only).any()):
                return rank
        # the order in which the request was found feasible
        return torch.arange(self.room, device=self.device)

    def _choose(
        self,
        logits: Tensor,
        may: Tensor,
        partial_graph: PartialGraph,
        only: Tensor,
        rng: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Draw an action [B] and its log-probability; one that completes a forbidden pattern is
        taken back and masked.
        """
        action, log_p = choose(logits, may, self.sampling, rng)
        if not self.patterns:
            return action, log_p
        may, banned = may.clone(), torch.zeros_like(may)
        while True:
            after = partial_graph.copy()
            after.act(self.actions, action)
            bad = torch.stack([pattern.found(after) for pattern in self.patterns]).any(0)
            if not bool(bad.any()):
                return action, log_p
            banned[bad.nonzero()[:, 0], action[bad]] = True
            may[bad] = legal(partial_graph.select(bad), self.actions, self.rules, only, banned[bad])
            again, again_p = choose(logits, may, self.sampling, rng)
            action, log_p = torch.where(bad, again, action), torch.where(bad, again_p, log_p)

    def _count(self, logits: Tensor, may: Tensor, partial_graph: PartialGraph) -> None:
        """Add up what the mask takes from each sort of action; a ring to an atom that is not
        there is none.
        """
        first, done = self.actions.first_ring, partial_graph.done
        absent = F.pad(
            (partial_graph.kind < 0).repeat_interleave(RING_ORDERS, 1), (first, 0), value=False
        )
        lost = logits.float().masked_fill(absent, -torch.inf).softmax(-1) * ~may * ~done[:, None]
        sorts = (
            slice(STOP, NEXT),
            slice(NEXT, FIRST_ADD),
            slice(FIRST_ADD, first),
            slice(first, None),
        )
        self.removed += torch.stack([lost[:, part].sum() for part in sorts])
        self.steps = self.steps + (~done).sum()


def choose(
    logits: Tensor, may: Tensor, sampling: Sampling, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw legal actions [B] and return their log-probabilities; temperature and top-p come
    after the mask.
    """
    log_BA = (logits.float() / sampling.temperature).masked_fill(~may, -torch.inf).log_softmax(-1)
    if sampling.top_p < 1:
        ordered, place = log_BA.sort(-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        cut = torch.zeros_like(may).scatter(-1, place, before >= sampling.top_p)
        log_BA = log_BA.masked_fill(cut, -torch.inf).log_softmax(-1)
    action = torch.multinomial(log_BA.exp(), 1, generator=rng)
    return action[:, 0], log_BA.gather(1, action)[:, 0]


def _only(actions: Actions, allowed: Tensor, room: int) -> Tensor:
    """Return which actions add no type that may not be used [A]."""
    only = torch.ones(actions.count(room), dtype=torch.bool, device=allowed.device)
    only[FIRST_ADD : actions.first_ring] = allowed.repeat_interleave(
        (actions.first_ring - FIRST_ADD) // len(allowed)
    )
    return only


def graphs_of(partial_graph: PartialGraph) -> list[Graph]:
    """Return the molecules of a growth as graphs."""
    kind, bond, num = (
        x.cpu().numpy() for x in (partial_graph.kind, partial_graph.bond, partial_graph.num)
    )
    graphs = []
    for row, size in enumerate(num):
        i, j = np.nonzero(np.triu(bond[row, :size, :size]))
        pairs = np.stack([i, j], 1).astype(np.uint8)
        graphs.append(
            Graph(kind[row, :size].astype(np.uint8), pairs, bond[row, i, j].astype(np.uint8))
        )
    return graphs


def _keep(
    partial_graph: PartialGraph, place: Tensor, score: Tensor, graphs: list, scores: list
) -> None:
    """Put finished molecules where they belong."""
    for graph, where, value in zip(
        graphs_of(partial_graph), place.tolist(), score.tolist(), strict=True
    ):
        graphs[where], scores[where] = graph, value


@dataclass(frozen=True)
class _Scaffold:
    """A substructure to grow from.

    Args:
        graph: without dummy atoms.
        open_N: the atoms at which growth may start.
    """

    graph: Graph
    open_N: np.ndarray

    @classmethod
    def read(cls, constraints: Constraints, room: int) -> "_Scaffold":
        """Read a scaffold; dummy atoms mark the places of growth and go away."""
        from rdkit import Chem

        mol = mol_of_smiles(constraints.scaffold)
        dummies = [a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() == 0]
        for neighbour in (n for place in dummies for n in mol.GetAtomWithIdx(place).GetNeighbors()):
            neighbour.SetIntProp("open", 1)
        bare = Chem.RWMol(mol)
        for place in sorted(dummies, reverse=True):
            bare.RemoveAtom(place)
        try:
            Chem.SanitizeMol(bare)
            Chem.RemoveStereochemistry(bare)
            graph = graph_of_mol(bare.GetMol())
        except (DataError, Chem.MolSanitizeException) as error:
            raise DataError(f"scaffold {constraints.scaffold!r}: {error}") from None
        if len(graph) > room:
            raise ConfigError(
                f"the scaffold has {len(graph)} heavy atoms and {room} are allowed; raise atoms"
            )
        for ring in bare.GetRingInfo().AtomRings():
            low, high = constraints.ring_sizes
            if not low <= len(ring) <= high:
                raise ConfigError(
                    f"the scaffold has a ring of {len(ring)} atoms and {low} to {high} are asked;"
                    " widen ring_sizes"
                )
        open_N = [not dummies or bool(a.HasProp("open")) for a in bare.GetAtoms()]
        return cls(graph, np.array(open_N, bool))

    def read_in(
        self,
        count: int,
        room: int,
        device: torch.device,
        reader: Reader | None = None,
        rank: Tensor | None = None,
    ) -> PartialGraph:
        """Return the scaffold as a growth with room for more, built in the order of `rank` [N]
        before the eyes of a reader.
        """
        size, rank = len(self.graph), torch.arange(room, device=device) if rank is None else rank
        kind = torch.full((count, room), -1, device=device)
        kind[:, :size] = torch.from_numpy(self.graph.atom_N.astype(np.int64)).to(device)
        bond = torch.zeros(count, room, room, dtype=torch.long, device=device)
        i, j = (torch.from_numpy(x.astype(np.int64)).to(device) for x in self.graph.pair_M2.T)
        bond[:, i, j] = bond[:, j, i] = torch.from_numpy(self.graph.order_M.astype(np.int64)).to(
            device
        )
        # a scaffold may hold types that the net does not add
        every = Actions(tuple(range(len(TYPES))))
        for step in trajectory(Target(kind, bond, rank.expand(count, -1), kind >= 0), every):
            if not bool(step.seeding.any()):
                break
            if reader is not None:
                reader.read(step.partial_graph)
        partial_graph = step.partial_graph
        place_of = torch.from_numpy(np.pad(self.open_N, (0, room - size))).to(device)
        partial_graph.leave((partial_graph.kind >= 0) & ~place_of[step.whose])
        return partial_graph
