"""Learning to generate: the likelihood of walks that rebuild known molecules, under the same mask
that sampling obeys.

Legend of shape letters: B batch, N atoms, L steps, A actions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciforge.core.domain import (
    Batch,
    Categorical,
    Example,
    Likelihood,
    Loss,
    Objective,
    Record,
    widened,
)
from sciforge.core.transfers import constant
from sciforge.errors import ConfigError, did_you_mean
from sciforge.molecules.chemistry.valence import TYPES
from sciforge.molecules.data.codec import MoleculeCodec
from sciforge.molecules.generation.action_mask import legal
from sciforge.molecules.generation.feasibility import Feasibility
from sciforge.molecules.generation.partial_graph import (
    FIRST_ADD,
    NEXT,
    RING_ORDERS,
    STOP,
    UNREACHED,
    Actions,
    PartialGraph,
)
from sciforge.molecules.generation.policy import (
    STYLES,
    History,
    actions_of,
    features,
    new_policy,
    read_history,
)
from sciforge.molecules.generation.trajectories import OUTSIDE, Target, trajectory

CANONICAL, RANDOM, SEEDED = range(len(STYLES))
MAX_ATOMS = 64
TURNS = 4  # places to start a walk from before a molecule is left out


@dataclass(frozen=True)
class Lesson:
    """Walks as tensors: what was read, what was done, what could have been done.

    Args:
        history: of all steps.
        action, legal: [B, L] and [B, L, A].
        counts: [B, L] steps that are to be learnt: not of a seed, not after the end, and legal.
        illegal: [B] steps that the mask forbids (a walk around fused rings may meet one, or the
            alphabet lacks an atom's type); a molecule with one is not learnt from.
    """

    history: History
    action: Tensor
    legal: Tensor
    counts: Tensor
    illegal: Tensor


@torch.no_grad()
def lesson(target: Target, actions: Actions, rules: Feasibility) -> Lesson:
    """Walk through targets and look at every step; all on the device, the mask of all steps at
    once.

    Args:
        target: molecules to build.
        actions: how they are numbered.
        rules: their charge [B], one for each target.
    """
    states, taken, seeded = [], [], []
    look = 1 if target.kind.device.type == "cpu" else 8
    for step in trajectory(target, actions, look):
        states.append(step.partial_graph.copy())
        taken.append(step.action)
        seeded.append(step.seeding)
    if look > 1:  # without the steps after the one in which all have stopped
        steps = torch.stack([(action == STOP).all() for action in taken]).tolist().index(True) + 1
        states, taken, seeded = states[:steps], taken[:steps], seeded[:steps]
    steps, batch = len(states), len(target.kind)
    partial_graph = PartialGraph.join(states)
    action_BL, seeding_BL = torch.stack(taken, 1), torch.stack(seeded, 1)
    may_BLA = legal(
        partial_graph, actions, replace(rules, charge=rules.charge.repeat_interleave(steps))
    ).unflatten(0, (batch, steps))
    stop_BL = (action_BL == STOP).long()
    live_BL = stop_BL.cumsum(1) - stop_BL < 1
    may = may_BLA.gather(2, action_BL.clamp(min=0)[..., None])[..., 0] & (action_BL >= 0)
    illegal_B = (live_BL & ~seeding_BL & ~may | (action_BL == OUTSIDE)).sum(1)
    focus = partial_graph.focus
    rows = (
        features(partial_graph),
        focus,
        partial_graph.at(partial_graph.bond, focus),
        partial_graph.at(partial_graph.distance, focus),
    )
    present_BLN = (partial_graph.kind >= 0).unflatten(0, (batch, steps))
    history = History(
        *(x.unflatten(0, (batch, steps)) for x in rows), born=present_BLN.int().argmax(1)
    )
    counts_BL = live_BL & ~seeding_BL & (illegal_B == 0)[:, None]
    return Lesson(history, action_BL, may_BLA, counts_BL, illegal_B)


def legal_lesson(target: Target, actions: Actions, rules: Feasibility) -> Lesson:
    """Return a lesson in which molecules whose walk meets an illegal step are walked from other
    atoms on.

    A few cages (1 of 3,500 molecules of MOSES) can be closed in canonical order only by a ring of
    more than eight atoms that later bonds divide; from another atom they need none. What is illegal
    from all places tried is left out.
    """
    walked, size = lesson(target, actions, rules), (target.kind >= 0).sum(1, keepdim=True)
    for quarter in range(1, TURNS):
        again = (walked.illegal > 0)[:, None]
        if not bool(again.any()):
            break
        turned = (target.rank + quarter * size // TURNS) % size
        walked = lesson(
            replace(target, rank=torch.where(again, turned, target.rank)), actions, rules
        )
        target = replace(
            target, rank=torch.where(again & (walked.illegal == 0)[:, None], turned, target.rank)
        )
    return walked


@dataclass(frozen=True)
class Grow(Objective):
    """Maximum likelihood of depth-first walks that build the training molecules atom by atom.

    Every molecule of a batch is walked anew: in the order of its canonical SMILES, at random, or
    with a seed (its ring systems and their linkers, or any connected part) first, which teaches to
    grow from a scaffold. The loss is in nats per action.

    Args:
        canonical_share, seeded_share: of walks in canonical order and with a seed; the rest starts
            anywhere and turns at random.
        conditions: names of stored properties that the net is told (logp, tpsa, qed, size).
        condition_share: share of the conditions that are told in training, so that it also works
            with some or none of them.
    """

    canonical_share: float = 0.7
    seeded_share: float = 0.2
    conditions: tuple[str, ...] = ()
    condition_share: float = 0.3

    metric: ClassVar[str] = "nats_per_molecule"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            min(self.canonical_share, self.seeded_share) < 0
            or self.canonical_share + self.seeded_share > 1
        ):
            raise ConfigError(
                "objective: canonical_share and seeded_share must be shares that add up to at"
                " most 1"
            )
        if not 0 <= self.condition_share <= 1:
            raise ConfigError(
                f"objective.condition_share is {self.condition_share}; it must lie between 0 and 1"
            )

    def resolve(self, store: Any) -> "Grow":
        """Return itself; raises ConfigError where a condition is not among the stored
        properties.
        """
        stored = [entry["name"] for entry in store.meta.get("properties", [])]
        for name in self.conditions:
            if name not in stored:
                raise ConfigError(
                    f"no stored property {name!r}; {did_you_mean(name, stored)}; prepare with"
                    " --properties"
                )
        return self

    def attach(self, model: nn.Module) -> None:
        """Add the policy."""
        if "policy" not in model.heads:
            model.heads["policy"] = new_policy(model, len(self.conditions))

    def prepare(
        self, record: Record, codec: MoleculeCodec, rng: np.random.Generator, training: bool
    ) -> Example:
        """Encode a molecule and choose its walk; in evaluation all walks are canonical."""
        example = codec.encode(record)
        size, draw = len(example["atom"]), rng.random() if training else 0.0
        style = CANONICAL if draw < self.canonical_share else SEEDED
        style = RANDOM if draw >= self.canonical_share + self.seeded_share else style
        rank = np.arange(size) if style == CANONICAL else rng.permutation(size)
        seed = (
            choose_seed(example["bond"].numpy(), size, rng)
            if style == SEEDED
            else np.zeros(size, np.int64)
        )
        example |= {
            "rank": torch.from_numpy(rank),
            "seed": torch.from_numpy(seed),
            "style": torch.tensor(style),
        }
        if self.conditions:
            given = rng.random(len(self.conditions)) < (self.condition_share if training else 0)
            example["condition"] = condition_of(self.values(record, codec), given)
        return example

    def values(self, record: Record, codec: MoleculeCodec) -> np.ndarray:
        """Return the conditions of a record [P] in units of their std."""
        places = [codec.properties.index(name) for name in self.conditions]
        mean, std = (np.array(x)[places] for x in (codec.means, codec.stds))
        return (np.asarray(record["property"])[places] - mean) / std

    def lesson(self, model: nn.Module, batch: Batch) -> Lesson:
        """Walk through the molecules of a batch under the rules that sampling obeys, each with
        its own net charge.
        """
        kind = batch["atom"]
        charges = constant([t.charge for t in TYPES], kind.device)
        charge = (charges[kind.clamp(min=0)] * (kind >= 0)).sum(1)
        target = Target(kind, batch["bond"], batch["rank"], batch["seed"] > 0)
        return legal_lesson(target, actions_of(model), Feasibility((1, MAX_ATOMS), charge))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Return nats summed over the actions of the walks; also nats per molecule, and the
        probability that the mask removes.
        """
        walked, logits_BLA = self._read(model, batch)
        log_BLA = widened(logits_BLA).masked_fill(~walked.legal, -torch.inf).log_softmax(-1)
        chosen_BL = log_BLA.gather(-1, walked.action.clamp(min=0)[..., None])[..., 0]
        nats_BL = -torch.where(walked.counts, chosen_BL, 0)
        whole = (batch["style"] != SEEDED) & walked.counts.any(1)
        parts = {"nats_per_molecule": (nats_BL.sum(1)[whole].sum(), whole.sum())}
        parts["illegal_walks"] = ((walked.illegal > 0).sum(), torch.tensor(len(walked.illegal)))
        with torch.no_grad():
            parts |= removed_mass(logits_BLA, walked, actions_of(model))
        return Loss(nats_BL.sum(), walked.counts.sum(), parts)

    def _read(self, model: nn.Module, batch: Batch) -> tuple[Lesson, Tensor]:
        walked = self.lesson(model, batch)
        return walked, read_history(model, walked.history, batch["style"], batch.get("condition"))

    def likelihood(self, model: nn.Module, batch: Batch) -> Likelihood:
        """Return the distribution of every action that counts; illegal ones get a logit that
        rules them out.
        """
        walked, logits_BLA = self._read(model, batch)
        logits_BLA = logits_BLA.masked_fill(~walked.legal, -1e4)
        return Categorical(logits_BLA[walked.counts], walked.action[walked.counts])

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the log-likelihood of each molecule's walk [B]."""
        walked, logits_BLA = self._read(model, batch)
        log_BLA = widened(logits_BLA).masked_fill(~walked.legal, -torch.inf).log_softmax(-1)
        chosen_BL = log_BLA.gather(-1, walked.action.clamp(min=0)[..., None])[..., 0]
        return {"log_likelihood": torch.where(walked.counts, chosen_BL, 0).sum(1)}

    def metrics(
        self, outputs: Mapping[str, np.ndarray], records: Sequence[Record]
    ) -> dict[str, float]:
        """Return nothing: the parts of the loss say it."""
        return {}


def removed_mass(
    logits_BLA: Tensor, walked: Lesson, actions: Actions
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the probability that the mask takes from each sort of action, summed over steps,
    and the number of steps.
    """
    # a ring to an atom to come is no choice, else padding would count
    there_BLN = walked.history.distance < UNREACHED
    there_BLA = F.pad(
        there_BLN.repeat_interleave(RING_ORDERS, -1), (actions.first_ring, 0), value=True
    )
    free_BLA = widened(logits_BLA).masked_fill(~there_BLA, -torch.inf).softmax(-1)
    lost_BLA = free_BLA * ~walked.legal * walked.counts[..., None]
    first, steps = actions.first_ring, walked.counts.sum()
    sorts = {
        "stop": slice(STOP, NEXT),
        "next": slice(NEXT, FIRST_ADD),
        "add": slice(FIRST_ADD, first),
        "ring": slice(first, None),
    }
    return {f"masked_{name}": (lost_BLA[..., part].sum(), steps) for name, part in sorts.items()}


def condition_of(values_P: np.ndarray, given_P: np.ndarray) -> Tensor:
    """Return conditions as the net reads them [2 P]: values, 0 where not told, then 1 where
    told.
    """
    return torch.from_numpy(
        np.concatenate([np.where(given_P, values_P, 0), given_P]).astype(np.float32)
    )


def choose_seed(bond_M3: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return 1 for the atoms of a seed [N]: the ring systems with their linkers, or a connected
    part of random size.
    """
    seed = np.zeros(size, np.int64)
    if size < 2:
        return seed
    near = np.zeros((size, size), bool)
    near[bond_M3[:, 0], bond_M3[:, 1]] = near[bond_M3[:, 1], bond_M3[:, 0]] = True
    if rng.random() < 0.5:
        kept = np.ones(size, bool)
        while (ends := kept & ((near & kept).sum(1) <= 1)).any():
            kept &= ~ends
        if 0 < kept.sum() < size:
            seed[kept] = 1
            return seed
    wanted, start = int(rng.integers(1, size)), int(rng.integers(size))
    seed[start] = 1
    for _ in range(wanted - 1):
        edge = np.flatnonzero(near[seed > 0].any(0) & (seed == 0))
        seed[rng.choice(edge)] = 1
    return seed
