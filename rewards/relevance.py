"""Whether a prompt concerns someone who can fare well or badly: the gate of the term `compassion`.

A lexicon and three rules, in plain sight. It reads the prompt alone. A gate that read the answer would let the policy
choose whether it is judged: leaving every being out of the answer would switch the term off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rewards.relevance_lexicon import FIGURES_OF_SPEECH, STAKES_IN_CODE, TOPICS

_MAX_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Relevance:
    """What the gate found.

    Attributes:
        is_relevant: someone's welfare may be at stake.
        reason: the topic, ``words`` for one of the user's own, or why there is none: "code" or "nobody".
        evidence: the words that decided, as they stand in the prompt in lower case; empty where there are none.
    """

    is_relevant: bool
    reason: str
    evidence: str = ""


def relevance(prompt: Sequence[tuple[str, str]], words: Iterable[str] = ()) -> Relevance:
    """Judge a prompt by what its user says; system and assistant messages don't count.

    1. Figures of speech and names of software ("mouse button", "kill the process", "bear market") are blanked out.
    2. A programming task counts only if it has one of `STAKES_IN_CODE` or of `words`: code is full of animals' names.
    3. Anything else counts if it has a word of one of the `TOPICS`, or of `words`.

    Args:
        prompt: chat messages as (role, content) pairs.
        words: more words that make a prompt relevant, e.g. of one's own field.
    """
    said = "\n".join(content for role, content in prompt if role == "user")[:_MAX_CHARACTERS].lower()
    own = [re.escape(word.lower()) for word in words]
    if own and (found := _pattern(own).search(said)):
        return Relevance(is_relevant=True, reason="words", evidence=found[0])
    said = _FIGURES.sub(" ", said)
    if _CODE.search(said):
        stake = _STAKES.search(said)
        return Relevance(is_relevant=stake is not None, reason="code", evidence=stake[0] if stake else "")
    for topic, pattern in _TOPICS.items():
        if found := pattern.search(said):
            return Relevance(is_relevant=True, reason=topic, evidence=found[0])
    return Relevance(is_relevant=False, reason="nobody")


def _pattern(expressions: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(expressions)})(?:e?s)?\b")


_TOPICS = {topic: _pattern(expressions) for topic, expressions in TOPICS.items()}
_FIGURES, _STAKES = _pattern(FIGURES_OF_SPEECH), _pattern(STAKES_IN_CODE)
_CODE = re.compile(
    r"```|\bdef \w+\(|\bassert \w|\b(?:python|javascript|typescript|java|rust|c\+\+|go|sql|bash|shell|regular expression|"
    r"regex)\b.{0,40}\b(?:function|script|program|query|class|one-liner|code)\b|"
    r"\b(?:function|method|class) `|\bwrite (?:a|an|the) (?:\w+ ){0,3}(?:function|unit tests?|query|script|program|method)\b|"
    r"\b(?:docstring|unit tests?|code review|sql query|code comments?|variable name|git commit|dockerfile)\b"
)
