"""Where a model's thinking ends and its answer begins."""

from __future__ import annotations

import re

# Not within quotes or a code span: a program, or a remark on it, may name the tag.
_END = re.compile(r"(?<![\"'])(?<![^`]`)</(?:think|thinking|thought|reasoning)>(?![\"'])", re.IGNORECASE)


def after_thought(text: str) -> str:
    """What follows the last ``</think>`` (or thinking, thought, reasoning); all of it if no thought ends in it."""
    ends = [match.end() for match in _END.finditer(text)]
    return text[ends[-1] :] if ends else text
