"""Classical rivals of a DnaBert in every label-efficiency curve: each is tuned inside the few
labels it is given.

Every function takes (objective, train records, test records, seed) and returns {"probability": [N,
C]}. Where the objective says that strands do not matter, training sees both strands and predictions
average both, as the net does.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sciforge.core.domain import Record
from sciforge.genomes.data.features import gc_content, kmer_roots, one_hot, reading_frames
from sciforge.genomes.data.sequences import reverse_complement

Outputs = dict[str, np.ndarray]
Features = Callable[[Sequence[np.ndarray]], np.ndarray]

# the C of logistic regression, on blocks of unit variance
STRENGTHS = 10.0 ** np.arange(-1, 4.1, 0.75)
MAX_FOLDS = 5
FEW_FOLDS_FROM = 2000  # labels from which fewer folds do


def gc_only(objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int) -> Outputs:
    """Logistic regression on GC content alone: chance on a task whose negatives are matched in
    GC.
    """
    return _logistic(objective, train, test, seed, (gc_content,))


def kmer_lr(objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int) -> Outputs:
    """Logistic regression on the square roots of k-mer counts, k = 1 to 4."""
    return _logistic(objective, train, test, seed, (kmer_roots,))


def kmer_onehot_lr(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Logistic regression on k-mer counts and the base at every place; k-mers alone where
    lengths differ.
    """
    return _logistic(objective, train, test, seed, (kmer_roots, *_placed(train, test)))


def frames_lr(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """As `kmer_onehot_lr`, with hand-made features of open reading frames."""
    return _logistic(
        objective, train, test, seed, (kmer_roots, *_placed(train, test), reading_frames)
    )


def gradient_boosting(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Boosted trees on k-mer counts and the base at every place (k-mers alone where lengths
    differ).
    """
    return _boosted(objective, train, test, seed, (kmer_roots, *_placed(train, test)))


def frames_boosting(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """As `gradient_boosting`, with hand-made features of open reading frames: the strongest
    classical rival.
    """
    return _boosted(
        objective, train, test, seed, (kmer_roots, *_placed(train, test), reading_frames)
    )


BASELINES: Mapping[str, Callable[..., Outputs]] = {
    "gc_only": gc_only,
    "kmer_lr": kmer_lr,
    "kmer_onehot_lr": kmer_onehot_lr,
    "frames_lr": frames_lr,
    "gradient_boosting": gradient_boosting,
    "frames_boosting": frames_boosting,
}


def _placed(train: Sequence[Record], test: Sequence[Record]) -> tuple[Features, ...]:
    """Return the positional features, if all sequences have one length."""
    return (
        (one_hot,)
        if len({len(record["bases"]) for part in (train, test) for record in part}) == 1
        else ()
    )


def _strands(records: Sequence[Record], objective: Any) -> list[list[np.ndarray]]:
    forward = [np.asarray(record["bases"]) & 7 for record in records]
    return (
        [forward, [reverse_complement(b) for b in forward]] if objective.strand_free else [forward]
    )


def _targets(objective: Any, records: Sequence[Record]) -> np.ndarray:
    return np.array([objective.classes.index(record["label"]) for record in records])


def _all_classes(probability_NC: np.ndarray, known_classes: np.ndarray, objective: Any) -> Outputs:
    """Give a classifier's columns their places among all classes; one never seen has probability
    0.
    """
    full = np.zeros((len(probability_NC), len(objective.classes)), np.float32)
    full[:, known_classes] = probability_NC
    return {"probability": full}


def _logistic(
    objective: Any,
    train: Sequence[Record],
    test: Sequence[Record],
    seed: int,
    features: Sequence[Features],
) -> Outputs:
    """Fit on centred blocks of unit total variance, so that no block drowns another; C by
    cross-validation.
    """
    target_N = _targets(objective, train)
    if len(np.unique(target_N)) == 1:
        return _all_classes(np.ones((len(test), 1)), np.unique(target_N), objective)
    train_X, test_X = [], []
    strands_train, strands_test = _strands(train, objective), _strands(test, objective)
    for block in features:
        rows = np.concatenate([block(strand) for strand in strands_train])
        mean, scale = rows.mean(axis=0), np.sqrt(rows.var(axis=0).sum()) or 1.0
        train_X.append((rows - mean) / scale)
        test_X.append([(block(strand) - mean) / scale for strand in strands_test])
    x = np.concatenate(train_X, axis=1)
    if x.shape[0] < x.shape[1]:  # the solution lies in the span of the rows
        _, _, axes = np.linalg.svd(x, full_matrices=False)
    else:
        axes = np.eye(x.shape[1], dtype=x.dtype)
    copies = len(strands_train)
    model = _fit_logistic(x @ axes.T, target_N, copies, seed)
    parts = [
        np.concatenate([block[strand] for block in test_X], axis=1) @ axes.T
        for strand in range(copies)
    ]
    return _all_classes(
        np.mean([model.predict_proba(part) for part in parts], axis=0), model.classes_, objective
    )


def _fit_logistic(x: np.ndarray, target_N: np.ndarray, copies: int, seed: int) -> Any:
    """Choose C by the log-loss of folds that keep both strands of a sequence together, and refit
    on everything.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    every = np.arange(len(target_N) * copies).reshape(copies, -1)
    folds = min(
        MAX_FOLDS if len(target_N) < FEW_FOLDS_FROM else 2,
        np.unique(target_N, return_counts=True)[1].min(),
    )
    labels = np.tile(target_N, copies)
    chosen = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if folds > 1:
            losses = np.zeros(len(STRENGTHS))
            for fit, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(
                target_N, target_N
            ):
                inside, outside = every[:, fit].ravel(), every[:, held].ravel()
                model = LogisticRegression(max_iter=300, warm_start=True)
                for place, strength in enumerate(STRENGTHS):
                    model.set_params(C=strength).fit(x[inside], labels[inside])
                    guess = model.predict_proba(x[outside])
                    losses[place] += log_loss(labels[outside], guess, labels=model.classes_)
            chosen = STRENGTHS[losses.argmin()]
        return LogisticRegression(C=chosen, max_iter=1000).fit(x, labels)


def _boosted(
    objective: Any,
    train: Sequence[Record],
    test: Sequence[Record],
    seed: int,
    features: Sequence[Features],
) -> Outputs:
    from sklearn.ensemble import HistGradientBoostingClassifier

    target_N = _targets(objective, train)
    if len(np.unique(target_N)) == 1:
        return _all_classes(np.ones((len(test), 1)), np.unique(target_N), objective)
    strands_train, strands_test = _strands(train, objective), _strands(test, objective)

    def table(strand: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([block(strand) for block in features], axis=1)

    x, labels = (
        np.concatenate([table(s) for s in strands_train]),
        np.tile(target_N, len(strands_train)),
    )
    model = HistGradientBoostingClassifier(
        **boosting_options(len(target_N)), random_state=seed
    ).fit(x, labels)
    guesses = [model.predict_proba(table(strand)) for strand in strands_test]
    return _all_classes(np.mean(guesses, axis=0), model.classes_, objective)


def boosting_options(labels: int) -> dict[str, Any]:
    """Return the options of the trees for a number of labels, chosen on the training and
    development chromosomes.

    Small leaves and a third of the columns a split, or few labels give no tree at all.
    """
    return {
        "max_iter": 120,
        "learning_rate": 0.1,
        "max_features": 0.3,
        "min_samples_leaf": min(20, max(3, labels // 10)),
        "early_stopping": False,
    }
