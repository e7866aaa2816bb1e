"""The reward term `parses`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rewards.base import Attempt, Outcome
from rewards.parses import Parses


@pytest.mark.parametrize(
    ("completion", "value", "reason"),
    [
        ("```python\ndef f(): 0\n```", 1.0, ""),
        ("```python\ndef g(): 0\n```", 0.0, "no_entry_point"),
        ("```python\ndef f(:\n```", 0.0, "syntax_error"),
        ("I can't do that.", 0.0, "syntax_error"),
    ],
)
def test_verdicts(attempt: Callable[..., Attempt], completion: str, value: float, reason: str) -> None:
    (verdict,) = Parses().judge([attempt(completion, entry_point="f")])
    assert (verdict.outcome, verdict.value, verdict.reason) == (Outcome.VALID, value, reason)


def test_without_an_entry_point_any_statement_will_do(attempt: Callable[..., Attempt]) -> None:
    values = [v.value for v in Parses().judge([attempt("x = 1"), attempt(""), attempt("# nothing", entry_point=None)])]
    assert values == [1.0, 0.0, 0.0]


def test_the_prefill_belongs_to_the_answer(attempt: Callable[..., Attempt]) -> None:
    prefilled = attempt("    return 1\n```", prefill="```python\ndef f():\n", entry_point="f")
    assert Parses().judge([prefilled])[0].value == 1.0


@pytest.mark.parametrize(
    ("completion", "reference", "value"),
    [
        ("class Solution:\n    def f(self): 0", {"entry_point": "f"}, 1.0),
        ("class Solution:\n    def f(self): 0", {"entry_point": "Solution().f"}, 1.0),
        ("class Other:\n    def f(self): 0", {"entry_point": "f"}, 0.0),
        ("```python\nprint(input())\n```\n```python\nf(\n```", {"form": "stdin"}, 1.0),
    ],
)
def test_methods_and_programs(
    attempt: Callable[..., Attempt], completion: str, reference: dict[str, str], value: float
) -> None:
    assert Parses().judge([attempt(completion, **reference)])[0].value == value
