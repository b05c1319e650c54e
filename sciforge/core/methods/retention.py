"""What fine-tuning has cost: the metrics of the old task before and after, on the old data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sciforge.core.data.store import Store
from sciforge.core.domain import Objective, Record
from sciforge.core.files.tables import Table
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.core.training.distributed import Engine
from sciforge.core.training.evaluation import evaluate
from sciforge.core.training.run import EWC, Run
from sciforge.errors import ConfigError

MOST = 512  # records judged; the standard error of a mean over them is 4 % of the spread


def evenly(num: int, most: int) -> np.ndarray:
    """Return the places of at most so many of some records, evenly spaced: neighbours in a file are alike.

    >>> evenly(5, 3).tolist(), evenly(2, 3).tolist()
    ([0, 2, 4], [0, 1])
    """
    return np.linspace(0, num - 1, min(most, num)).astype(int)


def old_data(run: Run) -> Path | None:
    """Return the store on which a run's forgetting can be seen, if it names one."""
    anchored = run.regularization.data if isinstance(run.regularization, EWC) else None
    return run.retention or (run.replay.data if run.replay else None) or anchored


def old_split(objective: Objective, data: Path) -> tuple[str, Sequence[Record]]:
    """Return the name and the records of the split to see forgetting on: validation, or test where there is no dev.

    Raises:
        ConfigError: `data` has neither development nor test records.
    """
    store = Store.open(data)
    splits = {split: objective.examples(store, split) for split in ("validation", "test")}
    split = next((name for name, records in splits.items() if len(records)), None)
    if split is None:
        raise ConfigError(
            f"{data} has no validation or test records to see forgetting on; prepare it with a validation split"
        )
    return split, splits[split]


def under_old_heads(parent: Checkpoint, weights: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """Return the parent's model with new weights; heads that these lack, or have in another shape, are the parent's."""
    model = parent.build().to(device)
    state = model.state_dict()
    same = {k: v.to(device) for k, v in weights.items() if k in state and v.shape == state[k].shape}
    model.load_state_dict({**state, **same})
    return model


def retained(parent: Checkpoint, weights: Mapping[str, Tensor], data: Path, engine: Engine) -> dict[str, Any]:
    """Return the metrics of the parent's own objective on its own development data, with its weights and with new ones.

    Heads that the new weights lack are the parent's: what is judged is the trunk under the old head.

    Raises:
        ConfigError: `data` has neither development nor test records.
    """
    objective = parent.objectives[0]
    split, records = old_split(objective, data)
    if hasattr(records, "take") and len(records) > MOST:
        records = records.take(evenly(len(records), MOST))
    alone = Engine(engine.device, "float32")
    before, after = (
        evaluate(under_old_heads(parent, state, engine.device), objective, parent.codec, records, alone)
        for state in ({}, weights)
    )
    return {"split": split, "records": len(records), "before": before, "after": after}


def forgetting_table(found: Mapping[str, Any]) -> Table:
    """Return the metrics before and after as a table."""
    rows = []
    for name, before in found["before"].items():
        after = found["after"][name]
        change = f"{after / before:.2f}" if before > 0 else ""
        rows.append((name, f"{before:.5g}", f"{after:.5g}", change))
    note = f"The old task on {found['records']} {found['split']} records of the old data."
    return Table(("retained", "before", "after", "ratio"), tuple(rows), note)
