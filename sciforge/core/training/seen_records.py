"""Whether records that a model is judged by are among those that it was trained on."""

import numpy as np

from sciforge.core.data.duplicates import fingerprint_of, is_small, record_digests
from sciforge.core.data.groups import splits_of
from sciforge.core.data.store import SPLITS, Store
from sciforge.core.training.checkpoint import Checkpoint
from sciforge.errors import ConfigError, DataError

TAIL = "metrics on them say nothing of new data"


def seen_in_training(checkpoint: Checkpoint, store: Store, split: str) -> str | None:
    """Return one sentence where records of a split are among the training records of a checkpoint;
    None where none is, or where they cannot be compared.

    Records are compared one by one where the training data are still at hand and of the same kind,
    and not too many.

    Args:
        checkpoint: as it was written.
        store: prepared data.
        split: of the store.
    """
    trained_on = checkpoint.provenance.get("data")
    if trained_on and store.digests() == trained_on and split == "train":
        some = " some of" if checkpoint.run.subset is not None else ""
        return f"the train split is{some} what the checkpoint was trained on; {TAIL}"
    try:
        training = Store.open(checkpoint.run.data, verify=False)
    except (DataError, ConfigError, OSError):
        return None  # the training data have gone
    if training.digests() != trained_on or (training.domain, training.kind) != (
        store.domain,
        store.kind,
    ):
        return None
    fingerprint = fingerprint_of(store)
    if fingerprint is None or fingerprint_of(training) is None:
        return None
    if not all(is_small(one, fingerprint.columns) for one in (training, store)):
        return None
    asked, known = (
        record_digests(one, fingerprint.columns)[splits_of(one) == SPLITS.index(name)]
        for one, name in ((store, split), (training, "train"))
    )
    count = int(np.isin(asked, known).sum())
    if not count:
        return None
    return (
        f"{count} of {len(asked)} records are in the training split that the checkpoint was trained"
        f" on; {TAIL}"
    )
