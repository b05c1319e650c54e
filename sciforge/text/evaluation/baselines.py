"""Classical rivals of a Bert in every label-efficiency curve: words or letters counted, then
something linear.

Every function takes (objective, train records, test records, seed) and returns {"probability": [N,
C]}, or {"value": [N]} of an objective that learns numbers. They see the labelled training documents
alone, the counts' rarity included.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sciforge.core.domain import Record
from sciforge.errors import ConfigError

Outputs = dict[str, np.ndarray]
# Chosen on the validation split of the hotel reviews at 50 to 999 labels, where 1 to 100 differ by
# .01 of AUC at most.
STRENGTH = 10.0  # the C of logistic regression
PENALTY = 1.0  # of ridge regression


def word_tfidf(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Logistic (of numbers: ridge) regression on TF-IDF of words and pairs of words."""
    return _fitted(objective, train, test, _vectoriser(ngram_range=(1, 2)), _linear(objective))


def letter_tfidf(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Logistic (of numbers: ridge) regression on TF-IDF of 2 to 5 letters within words: hard to
    beat with few labels.
    """
    return _fitted(
        objective,
        train,
        test,
        _vectoriser(analyzer="char_wb", ngram_range=(2, 5)),
        _linear(objective),
    )


def naive_bayes(
    objective: Any, train: Sequence[Record], test: Sequence[Record], seed: int
) -> Outputs:
    """Multinomial naive Bayes on counts of words, one added to each; of numbers, the mean of the
    training labels.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    if not hasattr(objective, "classes"):
        return {"value": np.full(len(test), np.mean(_values(train)))}
    return _fitted(
        objective, train, test, CountVectorizer(token_pattern=r"(?u)\w+"), MultinomialNB()
    )


BASELINES: Mapping[str, Callable[..., Outputs]] = {
    "word_tfidf": word_tfidf,
    "letter_tfidf": letter_tfidf,
    "naive_bayes": naive_bayes,
}


def _vectoriser(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = {} if "analyzer" in options else {"token_pattern": r"(?u)\w+"}
    return TfidfVectorizer(sublinear_tf=True, **words, **options)


def _linear(objective: Any) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    if hasattr(objective, "classes"):
        return LogisticRegression(C=STRENGTH, max_iter=1000)
    return Ridge(alpha=PENALTY)


def _fitted(
    objective: Any, train: Sequence[Record], test: Sequence[Record], counts: Any, model: Any
) -> Outputs:
    """Fit on the training documents and return what the model says of the test documents."""
    seen, unseen = _texts(train), _texts(test)
    if not hasattr(objective, "classes"):
        return {
            "value": (
                model.fit(counts.fit_transform(seen), _values(train)).predict(
                    counts.transform(unseen)
                )
            )
        }
    if "label" not in train[0]:
        raise ConfigError(
            f"{type(objective).__name__} has no classical baseline; leave these out of --methods"
        )
    target_N = np.array([objective.classes.index(record["label"]) for record in train])
    probability_NC = np.zeros((len(unseen), len(objective.classes)))
    present = np.unique(target_N)
    if len(present) == 1:
        probability_NC[:, present] = 1.0
    else:
        model.fit(counts.fit_transform(seen), target_N)
        # a class never seen has 0
        probability_NC[:, present] = model.predict_proba(counts.transform(unseen))
    return {"probability": probability_NC}


def _texts(records: Sequence[Record]) -> list[str]:
    return [str(record["text"]) for record in records]


def _values(records: Sequence[Record]) -> np.ndarray:
    return np.array([float(record["value"]) for record in records])
