"""Known solutions of public sets, told as a model would, get what they deserve from `unit_tests`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rewards.base import Attempt
from rewards.code import UnitTests

DATA = Path(__file__).parents[4] / "shared" / "data"
LIMITS: dict[str, Any] = {"cpu_time_s": 20.0, "wall_time_s": 60.0, "allow_unsafe": True}


def values(attempts: dict[str, Attempt]) -> dict[str, float]:
    reward = UnitTests(UnitTests.Settings(**LIMITS))
    try:
        verdicts = asyncio.run(reward.judge(list(attempts.values())))
    finally:
        reward.close()
    return {name: verdict.value for name, verdict in zip(attempts, verdicts, strict=True)}


def told(code: str) -> str:
    return f"<think>\n```python\nraise SystemExit\n```\n</think>\nHere:\n\n```python\n{code.strip()}\n```\n\nIt works."


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not here")
def test_solutions_of_mbpp_pass_and_swapped_ones_do_not(attempt: Callable[..., Attempt]) -> None:
    rows = json.loads((DATA / "mbpp" / "sanitized-mbpp.json").read_text("utf-8"))
    right, wrong = dict[str, Attempt](), dict[str, Attempt]()
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        reference = {"tests": row["test_list"], "setup": "\n".join(row["test_imports"])}
        right[row["task_id"]] = attempt(told(row["code"]), **reference)
        wrong[row["task_id"]] = attempt(told(other["code"]), **reference)
    assert [name for name, value in values(right).items() if value != 1.0] == []
    assert [name for name, value in values(wrong).items() if value != 0.0] == []


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not here")
def test_solutions_of_exercism_pass(attempt: Callable[..., Attempt]) -> None:
    rows = [json.loads(line) for line in (DATA / "exercism_python" / "practice.jsonl").read_text("utf-8").splitlines()]
    attempts = {
        row["slug"]: attempt(
            told(row["example"]), form="test_file", test=row["test"], module=row["slug"].replace("-", "_")
        )
        for row in rows
        if row["ref_passes"]
    }
    found = values(attempts)
    assert len(found) > 130
    assert {name: value for name, value in found.items() if value != 1.0} == {}
