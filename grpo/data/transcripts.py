"""Dialogues written as text, as in HH-RLHF, and pairs of them."""

from __future__ import annotations

import re

from grpo.data.fields import LeftOut, Messages
from grpo.errors import DataError

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLE = {"Human": "user", "Assistant": "assistant"}
#: Reasons under which pairs are left out.
DIFFERENT_PROMPTS, EMPTY_MESSAGE = "chosen and rejected begin differently", "a message is empty"


def is_transcript(text: str) -> bool:
    """Whether a text begins as a dialogue does."""
    return _TURN.match(text) is not None


def parse_transcript(text: str) -> Messages:
    """Messages of a dialogue written as ``\\n\\nHuman: ... \\n\\nAssistant: ...``; white space around each is cut.

    Raises:
        DataError: the text does not begin with such a mark.
    """
    marks = list(_TURN.finditer(text))
    if not marks or marks[0].start() != 0:
        raise DataError(f"a transcript must begin with 'Human:', found {text[:40]!r}")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return tuple((_ROLE[m[1]], text[m.end() : end].strip()) for m, end in zip(marks, ends, strict=True))


def split_pair(chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages]:
    """What two dialogues share, and the last answer of each.

    Raises:
        DataError: a dialogue does not end with a user's message and its answer.
        LeftOut: they differ earlier, or a message is empty.
    """
    if chosen[:-1] != rejected[:-1]:
        raise LeftOut(DIFFERENT_PROMPTS)
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if len(turns) < 2 or turns[-1][0] != "assistant" or turns[-2][0] != "user":
            raise DataError(f"field {name!r}: expected a dialogue that ends with a user's message and its answer")
        if not all(content for _, content in turns):
            raise LeftOut(EMPTY_MESSAGE)
    return chosen[:-1], chosen[-1:], rejected[-1:]
