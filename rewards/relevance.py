"""Whether a prompt concerns someone who can fare well or badly: a gate of the term `compassion` without a model.

A lexicon (relevance_lexicon.txt) and three rules, in plain sight. It reads the prompt alone. A gate that read the
answer would let the policy choose whether it is judged: leaving every being out would switch the term off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_MAX_CHARACTERS = 20_000
_FIGURES, _NAMES, _STAKES = "figures of speech", "names and symbols", "stakes in code"
_CODE = re.compile(
    r"```|\bdef \w+\(|\bassert \w"
    r"|\b(?:python|javascript|typescript|java|rust|c\+\+|go|sql|bash|shell|regular expression|regex)\b"
    r".{0,40}\b(?:function|script|program|query|class|one-liner|code)\b"
    r"|\b(?:function|method|class) `"
    r"|\bwrite (?:a|an|the) (?:\w+ ){0,3}(?:function|unit tests?|query|script|program|method)\b"
    r"|\b(?:docstring|unit tests?|code review|sql query|code comments?|variable name|git commit|dockerfile)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relevance:
    """What the gate found.

    Attributes:
        is_relevant: someone's welfare may be at stake.
        reason: the lexicon's topic; "words" for one of the user's own; "code", or "nobody".
        evidence: the words that decided, as they stand in the prompt in lower case; empty where there are none.
    """

    is_relevant: bool
    reason: str
    evidence: str = ""


def relevance(prompt: Sequence[tuple[str, str]], words: Iterable[str] = ()) -> Relevance:
    """Judge a prompt by what its user says; system and assistant messages don't count.

    1. Figures of speech and names of software ("mouse button", "kill the process", "bear market") are blanked out.
    2. A programming task counts only if it has one of the "stakes in code": code is full of animals' names.
    3. Anything else counts if it has a word of one of the topics.

    Args:
        prompt: chat messages as (role, content) pairs.
        words: more words that make a prompt relevant, whatever it is about, e.g. of one's own field.
    """
    said = _said(prompt)
    if evidence := _own_word(said, words):
        return Relevance(is_relevant=True, reason="words", evidence=evidence)
    patterns = dict(_lexicon())
    is_code = _CODE.search(said) is not None
    said = patterns.pop(_FIGURES).sub(" ", said)
    names, stakes = patterns.pop(_NAMES), patterns.pop(_STAKES)
    if is_code or names.search(said):
        stake = stakes.search(said)
        reason = "code" if is_code else "names"
        return Relevance(is_relevant=stake is not None, reason=reason, evidence=stake[0] if stake else "")
    for topic, pattern in patterns.items():
        if found := pattern.search(said):
            return Relevance(is_relevant=True, reason=topic, evidence=found[0])
    return Relevance(is_relevant=False, reason="nobody")


def has_words(prompt: Sequence[tuple[str, str]], words: Iterable[str]) -> bool:
    """Whether the user says one of `words`."""
    return bool(_own_word(_said(prompt), words))


def _said(prompt: Sequence[tuple[str, str]]) -> str:
    return "\n".join(content for role, content in prompt if role == "user")[:_MAX_CHARACTERS].lower()


def _own_word(said: str, words: Iterable[str]) -> str:
    own = [re.escape(word.lower().strip()) for word in words]
    found = _pattern(own).search(said) if own else None
    return found[0] if found else ""


@cache
def _lexicon() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """(section, pattern) in the file's order."""
    sections: dict[str, list[str]] = {}
    lines = Path(__file__).with_name("relevance_lexicon.txt").read_text(encoding="utf-8").splitlines()
    for line in filter(None, (line.strip() for line in lines if not line.startswith("#"))):
        if line.startswith("["):
            sections[line.strip("[]")] = []
        else:
            sections[next(reversed(sections))].append(line)
    return tuple((name, _pattern(expressions)) for name, expressions in sections.items())


def _pattern(expressions: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(expressions)})(?:e?s)?\b")
