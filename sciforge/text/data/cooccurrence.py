"""What counting a corpus tells before any descent: how frequent each piece is, and which pieces
keep the same company.

A short training spends most of its steps to learn just that. Frequencies are the bias of the
language head; word vectors by factorised mutual information (Levy and Goldberg 2014) are a start of
the embedding.

Legend of shape letters: V vocabulary, E width of the embeddings, T tokens.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

WINDOW = 5  # neighbours on each side, the nearer the more weight
SMOOTHED = 0.75  # exponent of the context's frequency (Levy, Goldberg and Dagan 2015)
MAX_TOKENS = 4_000_000  # counted; more would say the same
# times a piece must come until half of its vector is the new one, in a model that was trained
HALFWAY = 50
VECTOR_STD = 0.05  # standard deviation of the vectors, above that of positions and segments


def counted(rows: Iterable[np.ndarray], tokens: int) -> tuple[np.ndarray, Any]:
    """Return how often each piece comes [V], and a sparse matrix [V, V] of how often two are near,
    as 1 / distance.

    >>> total, near = counted([np.array([0, 1, 1])], 3)
    >>> total.tolist(), near.toarray().tolist()
    ([1, 2, 0], [[0.0, 1.5, 0.0], [1.5, 2.0, 0.0], [0.0, 0.0, 0.0]])
    """
    from scipy import sparse

    parts, num_tokens = [], 0
    for ids in rows:
        parts += [ids.astype(np.int64), np.full(WINDOW, -1)]  # no neighbours across rows
        num_tokens += len(ids)
        if num_tokens >= MAX_TOKENS:
            break
    joined_T = np.concatenate(parts or [np.zeros(0, np.int64)])
    near_VV = sparse.csr_matrix((tokens, tokens))
    for distance in range(1, WINDOW + 1):
        left, right = joined_T[:-distance], joined_T[distance:]
        real = (left >= 0) & (right >= 0)
        weight = np.full(int(real.sum()), 1 / distance)
        near_VV = near_VV + sparse.csr_matrix((weight, (left[real], right[real])), near_VV.shape)
    return np.bincount(joined_T[joined_T >= 0], minlength=tokens), near_VV + near_VV.T


def vectors(near_VV: Any, width: int, seed: int) -> np.ndarray:
    """Return a vector of each piece [V, E] from positive pointwise mutual information; zeros
    where it has no company.
    """
    from scipy import sparse
    from scipy.sparse.linalg import svds

    frequency_V = np.asarray(near_VV.sum(1)).ravel()
    smooth_V = frequency_V**SMOOTHED / (frequency_V**SMOOTHED).sum()
    pair = near_VV.tocoo()
    information = np.log(pair.data / (frequency_V[pair.row] * smooth_V[pair.col]))
    kept = information > 0
    table_VV = sparse.csr_matrix(
        (information[kept], (pair.row[kept], pair.col[kept])), near_VV.shape
    )
    rank = min(width, min(table_VV.shape) - 1)
    left, singular, _ = svds(table_VV, k=rank, rng=np.random.default_rng(seed))
    order = np.argsort(-singular)
    vector_VR = left[:, order] * np.sqrt(singular[order].clip(0))
    return np.pad(vector_VR, ((0, 0), (0, width - rank)))


def aligned(vector_VE: np.ndarray, onto_VE: np.ndarray, weight_V: np.ndarray) -> np.ndarray:
    """Return vectors turned and scaled onto others (orthogonal Procrustes, Schoenemann 1966),
    pieces weighed by `weight_V`.

    >>> turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> x = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]])
    >>> bool(np.allclose(aligned(x @ turn * 4, x, np.ones(3)), x))
    True
    """
    left, singular, right = np.linalg.svd((vector_VE * weight_V[:, None]).T @ onto_VE)
    power = float((weight_V * (vector_VE**2).sum(1)).sum())
    return vector_VE @ (left @ right) * (singular.sum() / power if power else 0.0)


@torch.no_grad()
def start_from_counts(
    model: nn.Module, rows: Iterable[np.ndarray], seed: int, fresh: bool = True
) -> dict[str, float]:
    """Set the language head's bias and the word vectors of a Bert from rows of ids; return what was
    counted.

    A fresh model takes the vectors as they are. One that was trained has them turned onto its own,
    and the more often a piece comes the more of its vector is the new one; pieces that never come
    keep theirs.

    Args:
        model: a Bert.
        rows: ids of the documents to come.
        seed: of the factorisation's start.
        fresh: whether its weights are random.
    """
    word = model.embeddings.word.weight
    total_V, near_VV = counted(rows, len(word))
    if near_VV.nnz:
        vector_VE = vectors(near_VV, word.shape[1], seed)
        # the factorisation leaves 1e-17 where there should be 0
        known_V = np.asarray(near_VV.sum(1)).ravel() > 0
        old_VE = word.double().cpu().numpy()
        if fresh:
            vector_VE *= VECTOR_STD / vector_VE[known_V].std()
            share_V = known_V.astype(float)
        else:
            vector_VE = aligned(vector_VE, old_VE, np.sqrt(total_V) * known_V)
            share_V = known_V * total_V / (total_V + HALFWAY)
        mixed_VE = share_V[:, None] * vector_VE + (1 - share_V[:, None]) * old_VE
        word.copy_(torch.from_numpy(mixed_VE))
    model.words.bias.copy_(torch.from_numpy(np.log((total_V + 1) / (total_V.sum() + len(total_V)))))
    return {"counted_tokens": float(total_V.sum())}
