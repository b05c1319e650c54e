"""Where sentences end, by rules of English: a stop ends one unless what stands around it says
otherwise.

The rules are those that a copy editor would give (compare Grefenstette and Tapanainen, What is a
word, what is a sentence?, 1994): abbreviations, initials, numbers, dots in a row, quotes and
brackets. No model, no training.
"""

import re

import numpy as np

# Followed by a name or a number, or in the middle of a sentence: a stop after one never ends a
# sentence.
NEVER_LAST = frozenset(
    "mr mrs ms messrs mmes dr prof rev hon st sr sra capt col gen lt maj sgt cpl cmdr adm gov sen"
    " rep pres supt insp det fr bro mt ft vs v cf e.g i.e viz approx ca c fig figs eq eqs sec secs"
    " ch chap vol vols pp p para nos eds trans ed sept oct nov dec jan feb aug univ dept".split()
)
# May stand last: a stop after one ends a sentence where a capital word that begins sentences
# follows.
MAY_BE_LAST = frozenset(
    "etc inc ltd co corp bros jr sr esq no art al ave blvd rd sq ext tel min max hrs hr lb lbs oz"
    " ft in cm mm km kg am pm a.m p.m u.s u.k u.n e.u d.c ph.d m.d b.a m.a b.c a.d b.c.e op mon tue"
    " wed thu fri sat sun".split()
)
# Words that begin sentences far more often than they follow an abbreviation with a capital.
OPENERS = frozenset(
    "a after all although an and another are as at because before both but by can did do does"
    " during each even for from he her here hers his how however i if in is it it's its last later"
    " many most my next no nobody nor not now on once one only or other our perhaps she since so"
    " some still such that that's the their then there there's these they this those though thus to"
    " under until was we were what when where whether which while who why will with would yes yet"
    " you your".split()
)
CLOSERS = "\"'”’»)]}"
OPENING = "\"'“‘«([{"
# A candidate: paragraph break, or stops with what closes behind them, up to a space.
CANDIDATE = re.compile(
    rf"\n\n|(?<![.!?…])(?P<stop>[.!?…]++)(?P<close>[{re.escape(CLOSERS)}]*+)(?=\s|$)|[。！？]"
)
WORD_BEFORE = re.compile(r"[^\s(\[{\"“‘«—–/]*$")
WORD_AFTER = re.compile(rf"[\s{re.escape(OPENING)}]*([^\s{re.escape(CLOSERS + OPENING)},;:.!?…]*)")
INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
ENUMERATION = re.compile(r"(?:\d{1,3}|[a-zA-Z]|[ivxlIVX]{1,5})")
LONGEST_WORD = 64


def sentence_offsets(text: str) -> np.ndarray:
    """Return where sentences begin, and the end of the text last: int32 [S + 1], offsets of
    letters.

    Sentence s is text[offsets[s] : offsets[s + 1]] with the spaces behind it; joined they are the
    text again.

    >>> sentence_offsets('Dr. Grant paid $3.50. "Why?" he asked.').tolist()
    [0, 22, 38]
    """
    starts = [0]
    for match in CANDIDATE.finditer(text):
        end = match.end()
        if match["stop"] is None or _ends(text, match):
            while end < len(text) and text[end].isspace():
                end += 1
            if end > starts[-1]:
                starts.append(end)
    if starts[-1] < len(text):
        starts.append(len(text))
    return np.array(starts, np.int32)


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, the spaces between them taken off.

    >>> split_sentences("J. S. Bach died in 1750. He was 65... or so.")
    ['J. S. Bach died in 1750.', 'He was 65... or so.']
    """
    offsets = sentence_offsets(text).tolist()
    return [text[start:stop].strip() for start, stop in zip(offsets, offsets[1:], strict=False)]


def _ends(text: str, match: re.Match) -> bool:
    """Whether the stop of a candidate ends its sentence."""
    stop, close = match["stop"], match["close"]
    after = WORD_AFTER.match(text, match.end(), match.end() + LONGEST_WORD)[1]
    if not after:  # the end of the text, or a dash, comma or stop follows
        return (
            not text[match.end() :].strip()[:1]
            or text[match.end() :].lstrip()[:1] not in ",;:.!?…—–-)"
        )
    # "Why?" he asked; an i.e. clause; a name of lower case is taken for the same
    if after[0].islower():
        return False
    if "!" in stop or "?" in stop:
        return not (close.startswith((")", "]")) and not _opens(after))
    before = WORD_BEFORE.search(text, max(0, match.start() - LONGEST_WORD), match.start())[0]
    if len(stop) > 1 or "…" in stop:
        return not after[0].isdigit()
    return _full_stop_ends(text, match, before, after)


def _full_stop_ends(text: str, match: re.Match, before: str, after: str) -> bool:
    word = before.lower()
    if match["close"] and not match["close"].startswith((")", "]")):
        return True  # a closing quote behind the stop
    if word in NEVER_LAST:
        return False
    at_line_start = not text[
        max(0, match.start() - len(before) - 1) : match.start() - len(before)
    ].strip(" ")
    if (
        ENUMERATION.fullmatch(before)
        and at_line_start
        and _starts_here(text, match.start() - len(before))
    ):
        return False  # "1. First", "b. Second"
    if word in MAY_BE_LAST:
        return _opens(after) and not (word == "no" and after[0].isdigit())
    if INITIALS.fullmatch(before) and before != "I":
        return "." in before and _opens(after)
    return True


def _starts_here(text: str, place: int) -> bool:
    """Whether a sentence could begin at this place: nothing, or a stop or colon but no
    abbreviation, stands before it.
    """
    before = text[max(0, place - 12) : place].rstrip(" ")
    word = WORD_BEFORE.search(before.rstrip("."))[0].lower()
    return not before or (before[-1] in ".!?:;\n" and word not in NEVER_LAST)


def _opens(word: str) -> bool:
    return word.lower() in OPENERS and (word[0].isupper() or word == "I")
