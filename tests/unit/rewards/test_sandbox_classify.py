"""From facts to results, without a process."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from rewards.sandbox.classify import classify
from rewards.sandbox.program import Kind, Limits, Program

PROGRAM = Program(source="", tests=("a", "b", "c"), limits=Limits(cpu_time_s=2.0))
READY = ["ready", "0", ""]
ALL = [READY, *(["pass", str(index), ""] for index in range(3)), ["done", "0", ""]]


def facts(events: list[list[str]], status: int = 0, killed_for: str = "", cpu_s: float = 0.1) -> dict[str, Any]:
    return {
        "status": status,
        "killed_for": killed_for,
        "cpu_s": cpu_s,
        "wall_s": 1.0,
        "output": "said",
        "events": events,
    }


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (facts(ALL), Kind.PASSED),
        (facts([*ALL[:2], ["fail", "1", "AssertionError: "], *ALL[3:]]), Kind.FAILED),
        (facts(ALL[:-1]), Kind.FAILED),
        (facts(ALL, status=7 << 8), Kind.FAILED),
        (facts([READY]), Kind.FAILED),
        (facts([READY, ["raised", "0", "KeyError: 1"]]), Kind.ERROR),
        (facts(ALL, status=signal.SIGSEGV), Kind.ERROR),
        (facts(ALL, status=signal.SIGKILL), Kind.ERROR),
        (facts(ALL, status=signal.SIGKILL, cpu_s=2.5), Kind.TIMEOUT),
        (facts(ALL, status=signal.SIGXCPU), Kind.TIMEOUT),
        (facts(ALL[:2], status=signal.SIGKILL, killed_for="wall"), Kind.TIMEOUT),
        (facts([READY, ["memory", "0", ""], ["raised", "0", "MemoryError"]]), Kind.OUT_OF_MEMORY),
        (facts([]), Kind.SANDBOX_FAULT),
        (facts([], status=signal.SIGKILL), Kind.SANDBOX_FAULT),
        (facts([["bad_task", "0", "SyntaxError"]]), Kind.SANDBOX_FAULT),
    ],
)
def test_kind(given: dict[str, Any], kind: Kind) -> None:
    assert classify(PROGRAM, given).kind is kind


def test_tests_that_passed_before_the_end_count() -> None:
    result = classify(PROGRAM, facts(ALL[:2], status=signal.SIGKILL, killed_for="cpu"))
    assert (result.kind, result.num_passed, result.num_tests) == (Kind.TIMEOUT, 1, 3)
    assert (result.message, result.output) == ("cpu time", "said")


def test_the_first_failure_is_the_message() -> None:
    events = [READY, ["fail", "0", "first"], ["fail", "1", "second"], ["done", "0", ""]]
    assert classify(PROGRAM, facts(events)).message == "first"
