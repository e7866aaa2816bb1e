"""The reference solutions of sanitized MBPP pass their own tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewards.sandbox.pool import Sandbox
from rewards.sandbox.program import Kind, Limits, Program

MBPP = Path(__file__).parents[5] / "shared" / "data" / "mbpp" / "sanitized-mbpp.json"


@pytest.mark.slow
@pytest.mark.skipif(not MBPP.exists(), reason=f"{MBPP} is not here")
def test_references_pass(sandbox: Sandbox) -> None:
    rows = json.loads(MBPP.read_text("utf-8"))
    limits = Limits(cpu_time_s=20.0, wall_time_s=120.0)  # task 123 is slow
    programs = [
        Program(source=row["code"], tests=tuple(row["test_list"]), setup="\n".join(row["test_imports"]), limits=limits)
        for row in rows
    ]
    results = sandbox.run_many(programs)
    failures = {
        row["task_id"]: (result.kind.value, result.message)
        for row, result in zip(rows, results, strict=True)
        if result.kind is not Kind.PASSED
    }
    assert failures == {}
    assert len(results) > 400
