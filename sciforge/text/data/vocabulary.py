"""Word pieces: a vocabulary trained on text, and text as pieces of it (package `tokenizers`, extra
[text]).

A vocabulary is one string of JSON, as the package writes it, so that a checkpoint carries it. The
package's own WordPiece trainer breaks ties by the order of a hash table: three runs on the same
text gave three vocabularies. Its trainer of byte pairs does not, so words are trained there with a
mark at their start, and the mark then tells `the` from `##the`.
"""

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from sciforge.errors import ConfigError, DataError, MissingExtra

PAD, UNKNOWN, START, END, MASK = SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORD = "\u2581"  # the mark of a word's start while pieces are trained
ALPHABET = 1000  # letters a WordPiece vocabulary keeps, the most frequent; others are unknown
LONGEST_WORD = 100  # letters; longer words are unknown (the limit of BERT)
CHUNK = 200_000  # letters given to the package at once: a giant line must not be one string of work


def package() -> Any:
    """Return the module `tokenizers`; raises MissingExtra where it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra("tokenizers", "text") from None
    return tokenizers


def train_wordpiece(texts: Iterable[str], size: int, lower: bool, least: int) -> str:
    """Return a WordPiece vocabulary (Schuster and Nakajima 2012, as BERT has it) of at most `size`
    pieces, as JSON.

    Args:
        texts: documents; their order plays no part.
        size: of the vocabulary, special tokens and single letters included.
        lower: fold case and take accents off.
        least: how often two pieces must meet to be joined.

    Raises:
        DataError: there is no word in the texts.
    """
    kit = package()
    words = kit.pre_tokenizers.Sequence([kit.pre_tokenizers.BertPreTokenizer(), _marked(kit)])
    joined = kit.Tokenizer(kit.models.BPE())
    joined.normalizer, joined.pre_tokenizer = kit.normalizers.BertNormalizer(lowercase=lower), words
    texts = sorted(texts)
    letters = len(_pieces_of(joined, texts, 1, least)) - 1
    learnt = _pieces_of(joined, texts, max(1, size - len(SPECIALS) - letters), least)
    if len(learnt) < 2:
        raise DataError("the training texts hold no word; there is no vocabulary to learn")
    alone = sorted(piece for piece in learnt if len(piece) == 1 and piece != WORD)
    longer = [piece for piece in learnt if len(piece) > 1]
    pieces = [piece[1:] if piece.startswith(WORD) else f"##{piece}" for piece in longer]
    table = dict.fromkeys([*SPECIALS, *alone, *(f"##{letter}" for letter in alone), *pieces])
    return wordpiece({piece: number for number, piece in enumerate(table)}, lower)


def _marked(kit: Any) -> Any:
    return kit.pre_tokenizers.Metaspace(replacement=WORD, prepend_scheme="always", split=False)


def _pieces_of(tokenizer: Any, texts: Sequence[str], size: int, least: int) -> list[str]:
    """Return the pieces of a byte-pair training in the order in which they were found; at least
    all letters.
    """
    trainer = package().trainers.BpeTrainer(
        vocab_size=size, min_frequency=least, show_progress=False, limit_alphabet=ALPHABET
    )
    tokenizer.train_from_iterator(_chunks(texts), trainer)
    table = tokenizer.get_vocab()
    return sorted(table, key=table.__getitem__)


def train_bytes(texts: Iterable[str], size: int, lower: bool, least: int) -> str:
    """Return a vocabulary of byte pairs (Sennrich et al. 2016, on bytes as GPT-2 and RoBERTa), as
    JSON; nothing is unknown.

    Takes the arguments of `train_wordpiece`.
    """
    kit = package()
    tokenizer = kit.Tokenizer(kit.models.BPE())
    normal = [kit.normalizers.NFC()] + ([kit.normalizers.Lowercase()] if lower else [])
    tokenizer.normalizer = kit.normalizers.Sequence(normal)
    tokenizer.pre_tokenizer = kit.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = kit.decoders.ByteLevel()
    trainer = kit.trainers.BpeTrainer(
        vocab_size=max(size, len(SPECIALS) + 256),
        min_frequency=least,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(kit.pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_chunks(sorted(texts)), trainer)
    return tokenizer.to_str()


def wordpiece(
    table: dict[str, int],
    lower: bool,
    strip_accents: bool | None = None,
    split_chinese: bool = True,
) -> str:
    """Return BERT's tokenizer over a table of pieces (the lines of a vocab.txt), as JSON.

    Args:
        table: piece -> its id.
        lower: fold case.
        strip_accents: take accents off; None does where case is folded.
        split_chinese: make every Chinese character a word of its own.

    Raises:
        DataError: one of the special tokens is not in the table.
    """
    if missing := [token for token in SPECIALS if token not in table]:
        raise DataError(f"the vocabulary has no {missing[0]}; BERT needs {', '.join(SPECIALS)}")
    kit = package()
    tokenizer = kit.Tokenizer(
        kit.models.WordPiece(table, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD)
    )
    tokenizer.normalizer = kit.normalizers.BertNormalizer(
        lowercase=lower, strip_accents=strip_accents, handle_chinese_chars=split_chinese
    )
    tokenizer.pre_tokenizer = kit.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = kit.decoders.WordPiece(cleanup=False)
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer.to_str()


def _chunks(texts: Iterable[str]) -> Iterable[str]:
    """Yield texts, giant ones in parts."""
    for text in texts:
        yield from (text[at : at + CHUNK] for at in range(0, len(text), CHUNK))


@lru_cache(maxsize=8)
def open_tokenizer(tokenizer: str, specials: bool) -> Any:
    """Return the package's tokenizer; only with `specials` is a "[MASK]" in a text the special
    token.

    Raises:
        ConfigError: it is not what `train_wordpiece` or `train_bytes` write.
    """
    kit = package()
    try:
        opened = kit.Tokenizer.from_str(tokenizer)
    except Exception as error:  # the package raises plain Exception
        raise ConfigError(
            f"codec.tokenizer cannot be read ({error}); fetch the checkpoint again"
        ) from None
    if any(opened.token_to_id(token) is None for token in SPECIALS):
        raise ConfigError(
            f"codec.tokenizer lacks one of {', '.join(SPECIALS)}; fetch the checkpoint again"
        )
    opened.no_padding()
    opened.no_truncation()
    opened.encode_special_tokens = not specials
    return opened


@lru_cache(maxsize=1 << 15)
def pieces(
    tokenizer: str, text: str, specials: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids int32 [n], the number of each piece's word int32 [n], and letters [n, 2] from
    where to where it stands.

    Kept in memory for the texts seen last: pretraining asks for the same text in every epoch.
    """
    encoding = open_tokenizer(tokenizer, specials).encode(text, add_special_tokens=False)
    ids, words = np.array(encoding.ids, np.int32), encoding.word_ids
    words = np.array([-1 if word is None else word for word in words], np.int32)
    arrays = ids, words, np.array(encoding.offsets, np.int32).reshape(len(ids), 2)
    for array in arrays:
        array.setflags(write=False)  # they are shared with whoever asks again
    return arrays


def plain(tokenizer: str, text: str) -> str:
    """Return a text as the vocabulary sees it: normalised, cut into words, one space between
    them.
    """
    opened = open_tokenizer(tokenizer, False)
    normal = opened.normalizer.normalize_str(text)
    words = [word for word, _ in opened.pre_tokenizer.pre_tokenize_str(normal)]
    return normal if is_bytes(tokenizer) else " ".join(words)


@lru_cache(maxsize=8)
def is_bytes(tokenizer: str) -> bool:
    """Return whether the pieces are of bytes (BPE) rather than letters (WordPiece)."""
    return json.loads(tokenizer)["model"]["type"] == "BPE"


def spaces(text: str) -> str:
    r"""Return a text with every run of white space as one space.

    >>> spaces(" a\n b ")
    'a b'
    """
    return re.sub(r"\s+", " ", text).strip()
