"""What fine-tuning has cost: the metrics of the old task before and after, on the old data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.data.store import Store
from sciforge.core.domain import LabelledRecords, Objective, Records
from sciforge.core.files.tables import Table
from sciforge.core.heads import weights_under
from sciforge.core.methods.finetuning import merged_state
from sciforge.core.methods.method import Method
from sciforge.core.methods.regularization import EWC
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.run import Run
from sciforge.errors import ConfigError

if TYPE_CHECKING:
    from sciforge.core.training.training_state import TrainingState

# evaluated; the standard error of a mean over them is 4 % of the standard deviation
MAX_RECORDS = 512


@dataclass(frozen=True)
class Retention(Method):
    """Evaluates the parent's own task with its weights and with the finished ones.

    Args:
        parent: the checkpoint that was fine-tuned.
        data: a store of what it had learnt.
    """

    name: ClassVar[str] = "retention"

    parent: Checkpoint
    data: Path

    def summary(self, state: "TrainingState", *, final: bool) -> dict[str, Any]:
        """Return the metrics of the old task before and after."""
        if not final:
            return {}
        with state.evaluated_weights():
            weights = merged_state(state.model, state.engine.full_state(state.model))
        if any(task.scope for task in state.tasks):
            old = [t.scope for t in state.tasks if t.objective == self.parent.objectives[0]]
            # where no task goes on with what was learnt, the backbone is seen under the old heads
            weights = weights_under(weights, old[0] if old else "")
        return {"retained": retained(self.parent, weights, self.data, state.engine)}


def evenly(num: int, max_n: int) -> np.ndarray:
    """Return the places of at most `max_n` of `num` records, evenly spaced: neighbours in a file
    are alike.

    >>> evenly(5, 3).tolist(), evenly(2, 3).tolist()
    ([0, 2, 4], [0, 1])
    """
    return np.linspace(0, num - 1, min(max_n, num)).astype(int)


def old_data(run: Run) -> Path | None:
    """Return the store on which a run's forgetting can be seen, if it names one."""
    of_fisher = run.regularization.data if isinstance(run.regularization, EWC) else None
    return run.retention or (run.replay.data if run.replay else None) or of_fisher


def old_split(objective: Objective, data: Path) -> tuple[str, Records]:
    """Return the name and the records of the split to see forgetting on: validation, or test where
    there is none.

    Raises:
        ConfigError: `data` has neither validation nor test records.
    """
    store = Store.open(data)
    splits = {split: objective.examples(store, split) for split in ("validation", "test")}
    split = next((name for name, records in splits.items() if len(records)), None)
    if split is None:
        raise ConfigError(
            f"{data} has no validation or test records to see forgetting on; prepare it with a"
            " validation split"
        )
    return split, splits[split]


def under_old_heads(
    parent: Checkpoint, weights: Mapping[str, Tensor], device: torch.device
) -> nn.Module:
    """Return the parent's model with new weights; heads that these lack, or have in another
    shape, are the parent's.
    """
    model = parent.build().to(device)
    state = model.state_dict()
    same = {k: v.to(device) for k, v in weights.items() if k in state and v.shape == state[k].shape}
    model.load_state_dict({**state, **same})
    return model


def retained(
    parent: Checkpoint, weights: Mapping[str, Tensor], data: Path, engine: Engine
) -> dict[str, Any]:
    """Return the metrics of the parent's own objective on its own validation data, with its weights
    and with new ones.

    Heads that the new weights lack are the parent's: what is evaluated is the backbone under the
    old head.

    Raises:
        ConfigError: `data` has neither validation nor test records.
    """
    objective = parent.objectives[0]
    split, records = old_split(objective, data)
    if isinstance(records, LabelledRecords) and len(records) > MAX_RECORDS:
        records = records.take(evenly(len(records), MAX_RECORDS))
    alone = Engine(engine.device, "float32")
    before, after = (
        evaluate(
            under_old_heads(parent, state, engine.device), objective, parent.codec, records, alone
        )
        for state in ({}, weights)
    )
    return {"split": split, "records": len(records), "before": before, "after": after}


def forgetting_table(retention: Mapping[str, Any]) -> Table:
    """Return the metrics before and after as a table."""
    rows = []
    for name, before in retention["before"].items():
        after = retention["after"][name]
        change = f"{after / before:.2f}" if before > 0 else ""
        rows.append((name, f"{before:.5g}", f"{after:.5g}", change))
    note = f"The old task on {retention['records']} {retention['split']} records of the old data."
    return Table(("retained", "before", "after", "ratio"), tuple(rows), note)
