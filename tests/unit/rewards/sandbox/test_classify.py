"""From facts to results, without a process."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from rewards.sandbox.classify import all_cases, classify
from rewards.sandbox.program import Form, Kind, Limits, Program, ProgramResult

PROGRAM = Program(source="", tests=("a", "b", "c"), limits=Limits(cpu_time_s=2.0))
Events = list[list[Any]]
READY: Events = [["ready", 0, ""], ["total", 3, ""]]
ALL: Events = [*READY, *(["pass", index, ""] for index in range(3)), ["done", 0, ""]]
GONE = ["gone", 0, "it left"]


def facts(guest: int = signal.SIGKILL, judge: int = 0, **changes: Any) -> dict[str, Any]:
    """Of a program that ran through: its judge leaves first, then the guest is killed."""
    usual = {"guest_status": guest, "judge_status": judge, "killed_for": "", "outlived_judge": True}
    return {**usual, "cpu_s": 0.1, "wall_s": 1.0, "output": "said", **changes}


@pytest.mark.parametrize(
    ("given", "events", "kind"),
    [
        (facts(), ALL, Kind.PASSED),
        (facts(), [*READY, ["pass", 0, ""], ["fail", 1, "no"], ["pass", 2, ""], ["done", 0, ""]], Kind.FAILED),
        (facts(), [*ALL[:-1], ["fail", 2, "at the end"], ALL[-1]], Kind.FAILED),
        (facts(), ALL[:-2] + ALL[-1:], Kind.FAILED),
        (facts(), [["ready", 0, ""], ["total", 0, ""], ["done", 0, ""]], Kind.FAILED),
        (facts(), ALL[:-1], Kind.ERROR),
        (facts(judge=1 << 8), ALL, Kind.ERROR),
        (facts(judge=signal.SIGKILL), ALL[:-1], Kind.ERROR),
        (facts(), [*READY, ["raised", 0, "KeyError: 1"], ["done", 0, ""]], Kind.ERROR),
        (facts(0, outlived_judge=False), [*READY, GONE, ["done", 0, ""]], Kind.ERROR),
        (facts(signal.SIGSEGV, outlived_judge=False), [*READY, GONE, ["done", 0, ""]], Kind.ERROR),
        (facts(signal.SIGKILL, outlived_judge=True), [*READY, GONE, ["done", 0, ""]], Kind.ERROR),
        (facts(signal.SIGKILL, outlived_judge=False), [*READY, GONE, ["done", 0, ""]], Kind.OUT_OF_MEMORY),
        (facts(), [*READY, ["memory", 0, ""], ["done", 0, ""]], Kind.OUT_OF_MEMORY),
        (facts(cpu_s=2.5), [*READY, GONE, ["done", 0, ""]], Kind.TIMEOUT),
        (facts(signal.SIGXCPU), [*READY, GONE, ["done", 0, ""]], Kind.TIMEOUT),
        (facts(judge=signal.SIGXCPU), ALL[:-1], Kind.TIMEOUT),
        (facts(killed_for="wall"), ALL[:3], Kind.TIMEOUT),
        (facts(killed_for="judge cpu"), ALL[:3], Kind.TIMEOUT),
        (facts(killed_for="temporary files"), ALL[:3], Kind.ERROR),
        (facts(), [], Kind.SANDBOX_FAULT),
        (facts(judge=97 << 8), [], Kind.SANDBOX_FAULT),
        (facts(), [*READY, ["fault", 0, "SyntaxError"], ["done", 0, ""]], Kind.SANDBOX_FAULT),
    ],
)
def test_kind(given: dict[str, Any], events: Events, kind: Kind) -> None:
    assert classify(PROGRAM, given, events).kind is kind


def test_tests_that_passed_before_the_end_count() -> None:
    result = classify(PROGRAM, facts(killed_for="cpu"), ALL[:3])
    assert (result.kind, result.num_passed, result.num_tests) == (Kind.TIMEOUT, 1, 3)
    assert (result.message, result.output) == ("cpu time", "said")


def test_the_first_failure_is_the_message_and_flags_are_kept() -> None:
    events = [*READY, ["fail", 0, "first"], ["fail", 1, "second"], ["flag", 0, "delegated"], ["done", 0, ""]]
    result = classify(PROGRAM, facts(), events)
    assert (result.message, result.flags) == ("first", frozenset({"delegated"}))


def test_the_last_total_counts() -> None:
    events = [["ready", 0, ""], ["total", 9, ""], ["total", 2, ""], ["pass", 0, ""], ["pass", 5, ""], ["done", 0, ""]]
    result = classify(Program(source="", form=Form.TEST_FILE), facts(), events)
    assert (result.kind, result.num_passed, result.num_tests) == (Kind.PASSED, 2, 2)


def test_no_death_after_ready_is_a_sandbox_fault() -> None:
    statuses = [0, 1 << 8, 97 << 8, *(number for number in range(1, 32))]
    for guest in statuses:
        for judge in statuses:
            for events in (READY, ALL, [*READY, GONE]):
                assert classify(PROGRAM, facts(guest, judge), events).kind is not Kind.SANDBOX_FAULT


def test_cases_of_a_script_add_up() -> None:
    passed = ProgramResult(kind=Kind.PASSED, num_passed=1, num_tests=1, cpu_s=0.5, flags=frozenset({"a"}))
    late = ProgramResult(kind=Kind.TIMEOUT, num_tests=1, message="cpu time", cpu_s=2.0, flags=frozenset({"b"}))
    result = all_cases([passed, late], 4)
    assert (result.kind, result.num_passed, result.num_tests, result.message) == (Kind.TIMEOUT, 1, 4, "cpu time")
    assert (result.cpu_s, result.flags) == (2.5, frozenset({"a", "b"}))
