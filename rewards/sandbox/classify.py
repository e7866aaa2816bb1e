"""From what judge and zygote report to a `ProgramResult`. Pure."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewards.sandbox.program import Kind, Program, ProgramResult

Event = Sequence[Any]  #: [event, index, message], as `judge.tally` writes them


def classify(program: Program, facts: Mapping[str, Any], events: Iterable[Event]) -> ProgramResult:
    """Read the zygote's account of both deaths and the judge's account of the tests.

    Args:
        facts: guest_status and judge_status (wait statuses), killed_for, outlived_judge, cpu_s, wall_s,
            output, leftovers.
        events: in the order the judge sent them.
    """
    listed = list(events)
    failed = {index for event, index, _ in listed if event == "fail"}
    passed = {index for event, index, _ in listed if event == "pass"} - failed
    totals = [index for event, index, _ in listed if event == "total"]
    num_tests = totals[-1] if totals else program.num_tests
    num_passed = min(len(passed), num_tests)
    kind, message = _kind(program, facts, listed, 0 < num_tests == num_passed and not failed)
    return ProgramResult(
        kind=kind,
        num_passed=num_passed,
        num_tests=num_tests,
        message=message,
        output=facts["output"],
        flags=frozenset(message for event, _, message in listed if event == "flag"),
        cpu_s=facts["cpu_s"],
        wall_s=facts["wall_s"],
    )


def _kind(program: Program, facts: Mapping[str, Any], events: Sequence[Event], all_passed: bool) -> tuple[Kind, str]:
    said = {event: message for event, _, message in reversed(events)}  # the first of each event
    guest = os.waitstatus_to_exitcode(facts["guest_status"])
    judge = os.waitstatus_to_exitcode(facts["judge_status"])
    if "ready" not in said:
        # Nothing of the model's has run yet. From here on no death is the sandbox's fault: else a program could
        # choose to be one, and with that dodge a low reward.
        return Kind.SANDBOX_FAULT, f"guest {guest}, judge {judge} before the source ran: {facts['output'][-300:]}"
    if "fault" in said:
        return Kind.SANDBOX_FAULT, f"the task's own code: {said['fault']}"
    if facts["killed_for"] == "temporary files":
        return Kind.ERROR, f"more than {program.limits.tmp_bytes} bytes of temporary files"
    if facts["killed_for"] or _used_up(guest, facts["cpu_s"], program.limits.cpu_time_s) or judge == -signal.SIGXCPU:
        return Kind.TIMEOUT, f"{facts['killed_for'] or 'cpu'} time"
    if "memory" in said:
        return Kind.OUT_OF_MEMORY, "MemoryError"
    if "gone" in said:
        return _gone(guest, facts["outlived_judge"], said["gone"])
    if "raised" in said:
        return Kind.ERROR, said["raised"]
    if "done" not in said or judge != 0:
        return Kind.ERROR, f"its values ended the judge ({judge})"
    return (Kind.PASSED, "") if all_passed else (Kind.FAILED, said.get("fail", "no tests"))


def _gone(guest: int, outlived_judge: bool, reason: str) -> tuple[Kind, str]:
    if outlived_judge:  # which had given it up, for what it said
        return Kind.ERROR, reason
    if guest == -signal.SIGKILL:  # it can't do that itself, and no limit was exceeded: the kernel's OOM killer
        return Kind.OUT_OF_MEMORY, "killed by the kernel"
    if guest < 0:
        return Kind.ERROR, f"killed by {signal.Signals(-guest).name}"
    return Kind.ERROR, reason if guest == 0 else f"left with exit code {guest} before its tests were done"


def _used_up(guest: int, cpu_s: float, cpu_time_s: float) -> bool:
    return guest == -signal.SIGXCPU or (guest == -signal.SIGKILL and cpu_s >= cpu_time_s)


def all_cases(results: Sequence[ProgramResult], num_tests: int) -> ProgramResult:
    """One result of several runs of a script, of which those after the first time-out were not made."""
    bad = next((result for result in results if result.kind is not Kind.PASSED), None)
    fault = next((result for result in results if result.kind is Kind.SANDBOX_FAULT), None)
    worst = fault or bad or results[-1]
    return ProgramResult(
        kind=worst.kind,
        num_passed=sum(result.num_passed for result in results),
        num_tests=num_tests,
        message=worst.message,
        output=worst.output,
        flags=frozenset[str]().union(*(result.flags for result in results)),
        cpu_s=sum(result.cpu_s for result in results),
        wall_s=sum(result.wall_s for result in results),
    )
