"""Whether two mathematical expressions are the same, by math-verify. Meant to run in a `rewards.child.Child`.

math-verify (https://github.com/huggingface/Math-Verify) limits its own time with SIGALRM, which only works in a main
thread, and which can't stop a big power that sympy computes in one go. So its limits are off here: the child is killed.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any, cast

_LIBRARY = cast("Any", importlib.import_module("math_verify"))
_TAIL = 2000  # characters; enough for a final answer

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its limits are off


def equivalent(known: str, answer: str, is_marked: bool) -> bool | None:
    """Whether `answer` states what `known` does; None if `known` can't be read.

    Args:
        known: an expression, in LaTeX or plain.
        answer: likewise if `is_marked`; else a text in which math-verify looks for one, the last first.
    """
    gold = _parsed(rf"\boxed{{{known}}}")
    if not gold:
        return None
    given = _parsed(rf"\boxed{{{answer}}}" if is_marked else answer[-_TAIL:])
    return bool(_LIBRARY.verify(gold, given, timeout_seconds=None))


def _parsed(text: str) -> list[Any]:
    # Fifty percent are 50 here, as they are for the numeric mode: which is meant, depends on the question.
    return _LIBRARY.parse(text.replace("\\%", "").replace("%", ""), parsing_timeout=None)
