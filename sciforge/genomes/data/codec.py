"""k-mer tokens as integers: no strings, no vocabulary file, any k and stride from the same bases.

Bases are bytes: A 0, C 1, G 2, T 3, anything ambiguous (N) 4; bit 3 (value 8) marks soft-masked,
that is lower-case, bases and changes no token. A k-mer's id is its base-4 integer, first base most
significant; the specials follow at 4**k: PAD, MASK, UNK (any N), CLS, SEP.

Legend of shape letters: B batch, L bases, T tokens, V vocabulary size.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sciforge.core.files.settings import Settings
from sciforge.errors import ConfigError, DataError

N = 4  # an ambiguous base; also what pads a batch
SPECIALS = ("[PAD]", "[MASK]", "[UNK]", "[CLS]", "[SEP]")  # at 4**k + 0, 1, 2, 3, 4
BLOCK = 1 << 15  # bases at a time: all intermediates of a block stay in the second-level cache
_N_FLAG = 1 << 16  # above any id; shifted left by 2 (k - 1) <= 14 bits it still fits in 31


@dataclass(frozen=True)
class KmerCodec(Settings):
    """Overlapping k-mers of DNA (the codec of the genomes domain; JSON-able).

    Args:
        k: bases of a token, 1 to 8.
        stride: bases from one token to the next, 1 to k.

    Raises:
        ConfigError: k or stride is out of range.

    >>> codec = KmerCodec(k=3)
    >>> batch = codec.collate([codec.encode({"bases": np.array([0, 1, 2, 3], np.uint8)})])
    >>> [codec.kmer(i) for i in batch["ids"][0].tolist()]
    ['ACG', 'CGT']
    """

    k: int = 6
    stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kmer(self.k, self.stride)

    def where(self, name: str) -> str:
        """Return how an error names a field: codec.k."""
        return f"codec.{name}"

    @property
    def size(self) -> int:
        """The size of the vocabulary: 4**k and five specials."""
        return 4**self.k + len(SPECIALS)

    @property
    def pad(self) -> int:
        """The id behind the end of a row."""
        return 4**self.k

    @property
    def mask(self) -> int:
        """The id of a hidden token."""
        return 4**self.k + 1

    @property
    def unknown(self) -> int:
        """The id of a token with any N."""
        return 4**self.k + 2

    def num_tokens(self, length: int) -> int:
        """Return how many tokens a sequence of so many bases has."""
        return max(0, (length - self.k) // self.stride + 1)

    def kmer(self, token: int) -> str:
        """Return the letters of a token; not for the hot path.

        >>> KmerCodec(k=2).kmer(11), KmerCodec(k=2).kmer(17)
        ('GT', '[MASK]')
        """
        if not 0 <= token < self.size:
            raise DataError(
                f"token {token} is outside the vocabulary of {self.size}; was it made with"
                " another k?"
            )
        if token >= 4**self.k:
            return SPECIALS[token - 4**self.k]
        return "".join("ACGT"[token >> 2 * place & 3] for place in reversed(range(self.k)))

    def fit(self, store: object = None) -> Self:
        """Return the codec itself: k-mers have nothing to learn from the data."""
        return self

    def encode(self, record: dict) -> dict[str, Tensor]:
        """Turn a record into tensors.

        Args:
            record: "bases", uint8 codes [L] read 5' to 3', and any other numbers or arrays, passed
                on as tensors. Texts and None (a name, a missing label) are left behind.

        Raises:
            DataError: the bases are missing, of a wrong type or fewer than k.
        """
        bases = record.get("bases")
        if (
            not isinstance(bases, np.ndarray | Tensor)
            or bases.ndim != 1
            or str(bases.dtype).split(".")[-1] != "uint8"
        ):
            raise DataError("a genome record needs 'bases', a one-dimensional array of uint8 codes")
        if len(bases) < self.k:
            raise DataError(
                f"a sequence of {len(bases)} bases has no {self.k}-mer; drop it, or use a smaller k"
            )
        numbers = {
            name: value
            for name, value in record.items()
            if value is not None and not isinstance(value, str)
        }
        return {name: _tensor(value) for name, value in numbers.items()}

    def collate(self, examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Join examples in one batch and make its tokens, all rows at once.

        Args:
            examples: each with "bases" uint8 [L]; optionally "masked", bool [T], the tokens to
                hide; and other fields, equal in all.

        Returns:
            "bases" uint8 [B, L] padded with N, "ids" int64 [B, T] padded with PAD, "lengths" int64
            [B] in tokens, and every other field stacked, its first axis padded with 0, or with -100
            in integer fields named "target...".

        Raises:
            DataError: there is no example, or one has no token or another set of fields.
        """
        if not examples:
            raise DataError("a batch needs at least one example")
        if any(example.keys() != examples[0].keys() for example in examples):
            raise DataError(
                "the examples of a batch must have the same fields; are labelled and unlabelled"
                " ones mixed?"
            )
        batch = {name: _join(name, [example[name] for example in examples]) for name in examples[0]}
        lengths = [self.num_tokens(len(example["bases"])) for example in examples]
        if min(lengths) < 1:
            raise DataError(
                f"example {lengths.index(min(lengths))} has fewer than k = {self.k} bases; drop it"
            )
        ids = torch_kmer_ids(batch["bases"], self.k, self.stride)
        batch["lengths"] = torch.tensor(lengths)
        if "masked" in batch:
            if batch["masked"].shape != ids.shape:
                raise DataError("'masked' must have one entry for each token")
            ids.masked_fill_(batch["masked"], self.mask)
        if min(lengths) < ids.shape[1]:
            ids.masked_fill_(torch.arange(ids.shape[1]) >= batch["lengths"].unsqueeze(1), self.pad)
        return {**batch, "ids": ids}


def check_kmer(k: int, stride: int) -> None:
    """Raise ConfigError where k is not in 1..8 or stride not in 1..k."""
    for name, value, last in (("k", k, 8), ("stride", stride, k)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= last:
            raise ConfigError(f"{name} must be an integer from 1 to {last}, not {value!r}")


def kmer_ids(bases: np.ndarray | Tensor, k: int, stride: int = 1) -> np.ndarray | Tensor:
    """Return the token ids of base codes [..., L]: [..., (L - k) // stride + 1].

    An array gives uint16 for k <= 7 and int32 for k = 8, block by block, for whole genomes; a
    tensor gives int64, for a batch.

    Raises:
        ConfigError: k or stride is out of range.
        DataError: there are fewer than k bases.

    >>> kmer_ids(np.array([0, 0, 1, 8 + 3, 4], np.uint8), k=2).tolist()
    [0, 1, 7, 18]
    """
    check_kmer(k, stride)
    if bases.shape[-1] < k:
        raise DataError(
            f"a sequence of {bases.shape[-1]} bases has no {k}-mer; drop it, or use a smaller k"
        )
    return (
        torch_kmer_ids(bases, k, stride)
        if isinstance(bases, Tensor)
        else numpy_kmer_ids(bases, k, stride)
    )


def torch_kmer_ids(bases: Tensor, k: int, stride: int) -> Tensor:
    """Ids of a batch of base codes, as :func:`kmer_ids`; an N sets a flag that survives every
    shift.
    """
    flat = bases.to(torch.int32)
    ones = torch.where((flat & 4).bool(), _N_FLAG, flat & 3)
    ids = _concatenate_runs(ones, k)[..., ::stride]
    return torch.where(ids >= _N_FLAG, 4**k + SPECIALS.index("[UNK]"), ids).long()


def _concatenate_runs(ones: Any, k: int) -> Any:
    """Ids of runs of k from those of single bases (array or tensor), by doubling: runs of 1, 2,
    4 and what is left.
    """
    runs, done, ids = ones, 0, None
    for bit in range(k.bit_length()):
        width = 1 << bit
        if bit:
            half = width >> 1
            runs = runs[..., :-half] << 2 * half | runs[..., half:]
        if k & width:  # the run of this width stands before the `done` bases already joined
            length = runs.shape[-1] - done
            ids = (
                runs
                if ids is None
                else runs[..., :length] << 2 * done | ids[..., width:][..., :length]
            )
            done += width
    return ids


def numpy_kmer_ids(bases: np.ndarray, k: int, stride: int) -> np.ndarray:
    """Ids of long sequences, as :func:`kmer_ids`, in blocks; only blocks with an N pay for it."""
    length = bases.shape[-1]
    ids = np.empty(
        (*bases.shape[:-1], (length - k) // stride + 1), np.uint16 if k <= 7 else np.int32
    )
    step = max(1, BLOCK // stride)  # tokens at a time
    for start in range(0, ids.shape[-1], step):
        stop = min(start + step, ids.shape[-1])
        block = bases[..., start * stride : (stop - 1) * stride + k]
        if (block & 4).any():
            flags = np.where(block & 4, np.int32(_N_FLAG), block & 3)
            flagged = _concatenate_runs(flags, k)[..., ::stride]
            ids[..., start:stop] = np.where(
                flagged >= _N_FLAG, 4**k + SPECIALS.index("[UNK]"), flagged
            )
        else:
            ids[..., start:stop] = _clean_ids(block & 3, k)[..., ::stride]
    return ids


def _clean_ids(ones: np.ndarray, k: int) -> np.ndarray:
    """Ids of a block without N: runs of up to 4 bases fit in bytes; only the last step touches
    wider integers.
    """
    if k <= 4:
        return _concatenate_runs(ones, k)
    twos = ones[..., :-1] << 2 | ones[..., 1:]
    fours = twos[..., :-2] << 4 | twos[..., 2:]
    tail = {5: ones, 6: twos, 7: twos[..., :-1] << 2 | ones[..., 2:], 8: fours}[k][..., 4:]
    ids = fours[..., : tail.shape[-1]].astype(np.uint16)
    ids <<= 2 * (k - 4)
    ids |= tail
    return ids


@lru_cache
def reverse_complement_ids(k: int) -> np.ndarray:
    """Return the id of each id's reverse complement, specials unchanged: read-only, [V].

    With stride 1, ``kmer_ids(reverse_complement(bases)) ==
    reverse_complement_ids(k)[kmer_ids(bases)][::-1]``.

    >>> reverse_complement_ids(2)[[0, 1, 11]].tolist()  # AA -> TT, AC -> GT, GT -> AC
    [15, 11, 1]
    """
    check_kmer(k, 1)
    forward = np.arange(4**k)
    reverse = np.zeros_like(forward)
    for place in range(k):
        reverse = reverse << 2 | 3 - (forward >> 2 * place & 3)
    table = np.concatenate([reverse, 4**k + np.arange(len(SPECIALS))]).astype(
        np.uint16 if k <= 7 else np.int32
    )
    table.flags.writeable = False
    return table


def dnabert_order(k: int) -> np.ndarray:
    """Return our id for each row of DNABERT's vocabulary [V]: ``ours[dnabert_order(k)] = theirs``
    moves its embeddings.

    DNABERT lists [PAD], [UNK], [CLS], [SEP], [MASK], then ``product("ATCG", repeat=k)``
    (jerryji1993/DNABERT, vocab.txt).

    >>> dnabert_order(1).tolist()  # five specials, then A, T, C, G
    [4, 6, 7, 8, 5, 0, 3, 1, 2]
    """
    check_kmer(k, 1)
    specials = [
        4**k + SPECIALS.index(name) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    ]
    letters = np.array(list(product((0, 3, 1, 2), repeat=k)))
    return np.concatenate([specials, letters @ 4 ** np.arange(k - 1, -1, -1)])


def _tensor(value: object) -> Tensor:
    """A tensor of a number or array; arrays that may not be written to (memory maps) are copied."""
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.copy()
    return torch.as_tensor(value)


def _join(name: str, values: list[Tensor]) -> Tensor:
    """Stack tensors, their first axis padded where it differs."""
    if values[0].ndim == 0 or len({len(value) for value in values}) == 1:
        return torch.stack(values)
    integer = not (values[0].is_floating_point() or values[0].dtype == torch.bool)
    fill = N if name == "bases" else -100 if name.startswith("target") and integer else 0
    joined = values[0].new_full((len(values), max(map(len, values)), *values[0].shape[1:]), fill)
    for row, value in zip(joined, values, strict=True):
        row[: len(value)] = value
    return joined
