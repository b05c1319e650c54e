"""Classical rivals in every label-efficiency curve of molecules: forests and boosting on
fingerprints and descriptors.

Every function takes (objective, train records, test records, seed) and returns {"value": [N, K]}:
numbers in the labels' unit or probabilities of yes, one model a task, on the molecules whose label
is known.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from sciforge.core.domain import Record
from sciforge.molecules.chemistry.descriptors import fingerprint
from sciforge.molecules.objectives.self_supervised import descriptors_of

Outputs = dict[str, np.ndarray]
TREES = 150
LARGEST = 1e30  # forests take float32


def mean_only(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """The mean of the training labels: what knowing nothing of a molecule gives."""
    label_NK = objective.known_labels(train)
    return {"value": np.repeat(np.nan_to_num(np.nanmean(label_NK, 0))[None], len(test), 0)}


def ecfp_forest(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """A random forest on ECFP4 bits (radius 2, 2048)."""
    return _fitted(objective, train, test, _bits, _forest, seed)


def descriptor_forest(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """A random forest on RDKit's descriptors: with few labels the rival that published encoders
    lose to.
    """
    return _fitted(objective, train, test, _table, _forest, seed)


def descriptor_boosting(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Boosted trees on RDKit's descriptors."""
    return _fitted(objective, train, test, _table, _boosting, seed)


BASELINES: Mapping[str, Callable[..., Outputs]] = {
    "mean_only": mean_only,
    "ecfp_forest": ecfp_forest,
    "descriptor_forest": descriptor_forest,
    "descriptor_boosting": descriptor_boosting,
}


@lru_cache(20_000)
def _fingerprint(smiles: str) -> np.ndarray:
    return fingerprint(smiles)


def _bits(records: Sequence[Record]) -> np.ndarray:
    return np.stack([_fingerprint(smiles) for smiles in records.column("smiles")])


def _table(records: Sequence[Record]) -> np.ndarray:
    rows = np.stack([descriptors_of(record) for record in records])
    return np.clip(np.nan_to_num(rows), -LARGEST, LARGEST)


def _forest(yes_no: bool, num: int, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    return (RandomForestClassifier if yes_no else RandomForestRegressor)(TREES, random_state=seed)


def _boosting(yes_no: bool, num: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    leaf = min(20, max(3, num // 10))  # with 20 in a leaf 50 labels give no tree
    options = {
        "max_iter": 120,
        "max_features": 0.3,
        "min_samples_leaf": leaf,
        "early_stopping": False,
    }
    return (HistGradientBoostingClassifier if yes_no else HistGradientBoostingRegressor)(
        random_state=seed, **options
    )


def _fitted(
    objective: Any,
    train: Sequence[Record],
    test: Sequence[Record],
    features: Callable,
    make: Callable,
    seed: int,
) -> Outputs:
    train_NF, test_NF, label_NK = features(train), features(test), objective.known_labels(train)
    value_NK = np.zeros((len(test), label_NK.shape[1]))
    for k, yes_no in enumerate(objective.yes_no):
        known = np.isfinite(label_NK[:, k])
        labels = label_NK[known, k]
        if len(np.unique(labels)) < 2:
            value_NK[:, k] = labels[0] if len(labels) else 0.0
            continue
        model = make(yes_no, int(known.sum()), seed).fit(
            train_NF[known], labels.astype(int) if yes_no else labels
        )
        value_NK[:, k] = model.predict_proba(test_NF)[:, 1] if yes_no else model.predict(test_NF)
    return {"value": value_NK}
