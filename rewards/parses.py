"""Reward term `parses`: is there a program at all? Cheap, and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.base import Attempt, Verdict
from rewards.extraction import extract_code, first_name
from rewards.syntax import defines, has_method, parse


class Parses:
    """1.0 if the extracted code is Python and defines the entry point, else 0.0.

    A task without ``reference["entry_point"]`` asks for any one statement.
    """

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One valid verdict for each attempt; the reason is "syntax_error", "no_entry_point" or empty."""
        return [_judge(attempt) for attempt in attempts]

    def close(self) -> None:
        """Nothing to release."""


def _judge(attempt: Attempt) -> Verdict:
    entry_point = attempt.reference.get("entry_point")
    name = entry_point if isinstance(entry_point, str) else None
    tree = parse(extract_code(attempt.answer, name, reads_stdin=attempt.reference.get("form") == "stdin"))
    if tree is None:
        return Verdict.valid(0.0, reason="syntax_error")
    found = defines(tree, first_name(name)) or has_method(tree, "Solution", name) if name else bool(tree.body)
    return Verdict.valid(1.0) if found else Verdict.valid(0.0, reason="no_entry_point")
