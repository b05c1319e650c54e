"""Sentence ends against hand-labelled cases; `|` marks each true border."""

import re

import numpy as np
import pytest

from sciforge.text.data.sentences import sentence_offsets, split_sentences

CASES = [
    line
    for line in """
It rained. |We stayed in.
Who is it? |Nobody knows. |Wait!
Stop! |Thief!
Mr. Darcy bowed. |Mrs. Bennet did not.
Dr. and Mrs. Grant came at six.
I met Prof. Higgs in Edinburgh. |He was kind.
Capt. Wentworth wrote to Lt. Benwick.
The Rev. Mr. Collins is here.
She lives in St. Ives.
They moved to St. Louis in 1904. |It was hot.
J. R. R. Tolkien wrote it. |C. S. Lewis read it.
John F. Kennedy was elected in 1960.
It was signed by W. Smith and D.H. Lawrence.
Pi is about 3.14. |It is not 3.15.
The room cost $199.99 a night. |We left.
Version 2.7.1 is out. |Version 3.0 is not.
It weighs 4.5 kg. |That is a lot.
See Fig. 3 and Eq. 2.
As shown in Fig. 4, it grows.
Compare vol. 3, pp. 12-15 and ch. 2.
Bring pens, paper, etc. |The exam is long.
Bring pens, paper, etc. to the exam.
He works for Acme Inc. |The firm is old.
He works for Acme Inc. in Boston.
Smith & Co. bought Jones Ltd. last year.
The U.S. economy grew. |So did others.
He came back to the U.S. |He was tired.
The U.S. Senate voted.
We met at 5 p.m. |It was dark.
We met at 5 p.m. on Monday.
It opened at 9 a.m. Monday.
She has a Ph.D. in physics.
He took his Ph.D. |Then he left.
Use a salt, e.g. NaCl, or i.e. the common one.
Some animals (e.g. cats) sleep a lot. |Others do not.
Smith et al. |The others disagreed.
Smith et al. Reported it first.
Well... maybe not.
I waited... |Nothing came.
He paused… |Then he spoke.
Wait... what?
"Why?" he asked.
"Stop!" she cried. |He did not.
"It is late." |She rose.
He said, "It is late." |She rose.
“Come in.” |“Thank you.”
‘No.’ |He turned away.
"Are you sure?" |"Quite sure."
(It rained all day.) |We stayed in.
We stayed in (it rained). |Then it stopped.
The hotel (a Hilton!) was full.
The hotel [sic.] was full.
Was it he (or she?) who wrote?
He lost no. 7 and found No. 8.
I said no. |The answer stood.
That is I. |You are you.
He was born c. 1450 and died in Feb. 1503.
It happened in Sept. 1939.
1. Read the paper. |2. Write the review.
The rules: a. Be kind. |b. Be brief.
He was in World War I. |It ended in 1918.
What?! |You cannot mean it.
No way!!! |I will never come back!!!
Visit www.example.com. |It is free.
Send it to a.b@example.org today.
The file is data.txt. |Open it.
He wrote "etc." and left.
They won 3-0. |Everyone cheered.
In 1999. |In 2000.
Yahoo! is a company.
The Hon. Mr. Knightley owns Donwell Abbey.
My stay was o.k. |The staff was rude.
The bed was hard. |the room was small.
Elizabeth (who is twenty.) smiled.
Gov. Brown met Sen. Green vs. Rep. White.
Sammy Davis Jr. |He sang.
Sammy Davis Jr. sang.
It ended thus: he died. |Nobody wept.
I stayed at the Allegro on Nov. 3. |Never again.
Chapter 1

|It is a truth universally acknowledged.
""".strip("\n")
    .replace("\n\n|", "\\n\\n|")
    .splitlines()
    if line
]


def accuracy(split) -> tuple[int, list[str]]:
    """Return how many cases are wholly right, and which are not."""
    wrong = []
    for case in CASES:
        case = case.replace("\\n", "\n")
        wanted = [part.strip() for part in case.split("|")]
        if split(case.replace("|", "")) != wanted:
            wrong.append(case)
    return len(CASES) - len(wrong), wrong


def naive(text: str) -> list[str]:
    """Split at every stop before a space: what is usually written first."""
    return [part.strip() for part in re.split(r"(?<=[.!?…])\s+", text)]


def test_hand_labelled_cases():
    right, wrong = accuracy(split_sentences)
    plain, _ = accuracy(naive)
    assert len(CASES) >= 60
    assert right >= 0.95 * len(CASES), wrong
    assert plain < 0.6 * len(CASES)


@pytest.mark.parametrize("case", CASES)
def test_sentences_joined_are_the_text(case: str):
    text = case.replace("\\n", "\n").replace("|", "")
    offsets = sentence_offsets(text).tolist()
    assert offsets[0] == 0 and offsets[-1] == len(text) and offsets == sorted(set(offsets))


@pytest.mark.parametrize(
    "text", ["", ".", "...", "\n\n", "?! ", "a", "  .  ", "\ud800. A", "。", ".\n\n."]
)
def test_odd_texts_have_offsets(text: str):
    offsets = sentence_offsets(text)
    assert offsets.dtype == np.int32 and offsets[0] == 0 and offsets[-1] == len(text)


@pytest.mark.parametrize(
    "text",
    [
        "." * 200_000,
        "." * 200_000 + "a",
        "a." * 100_000,
        '."' * 100_000,
        "a " * 100_000,
        "( . " * 50_000,
    ],
)
def test_long_odd_texts_take_linear_time(text: str):
    assert sentence_offsets(text)[-1] == len(text)  # quadratic rules would need minutes


def test_paragraphs_end_sentences():
    assert split_sentences("Chapter 1\n\nIt was late") == ["Chapter 1", "It was late"]
