"""From the facts of a candidate's death to a `ProgramResult`. Pure."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.sandbox.program import Kind, Program, ProgramResult


def classify(program: Program, facts: Mapping[str, Any]) -> ProgramResult:
    """Read the zygote's account of `program`.

    Args:
        facts: status (wait status), killed_for, cpu_s, wall_s, output, and events: [event, index, message] each,
            in the order the candidate reported them.
    """
    events: Sequence[Sequence[str]] = facts["events"]
    passed = {int(index) for event, index, _ in events if event == "pass"}
    tests = tuple(index in passed for index in range(len(program.tests)))
    kind, message = _kind(program, facts, events, all(tests))
    return ProgramResult(
        kind=kind,
        num_passed=sum(tests),
        num_tests=len(tests),
        message=message,
        cpu_s=facts["cpu_s"],
        wall_s=facts["wall_s"],
        output=facts["output"],
    )


def _kind(
    program: Program, facts: Mapping[str, Any], events: Sequence[Sequence[str]], all_passed: bool
) -> tuple[Kind, str]:
    said = {event: message for event, _, message in reversed(events)}  # the first of each event
    exit_code = os.waitstatus_to_exitcode(facts["status"])
    if "bad_task" in said:
        return Kind.SANDBOX_FAULT, f"setup or test of the task: {said['bad_task']}"
    if "ready" not in said:
        # Nothing of the model's has run yet.
        return Kind.SANDBOX_FAULT, f"exit code {exit_code} before the source ran: {facts['output'][-300:]}"
    if _out_of_time(program, facts, exit_code):
        return Kind.TIMEOUT, f"{facts['killed_for'] or 'cpu'} time"
    if "memory" in said:
        return Kind.OUT_OF_MEMORY, "MemoryError"
    if exit_code < 0:
        # SIGKILL too: a program that could pass its own for a fault would dodge a low reward.
        return Kind.ERROR, f"killed by {signal.Signals(-exit_code).name}"
    if "raised" in said:
        return Kind.ERROR, said["raised"]
    if "done" not in said or exit_code != 0:
        return Kind.FAILED, f"left with exit code {exit_code} before its tests were done"
    return (Kind.PASSED, "") if all_passed else (Kind.FAILED, said.get("fail", ""))


def _out_of_time(program: Program, facts: Mapping[str, Any], exit_code: int) -> bool:
    if facts["killed_for"] or exit_code == -signal.SIGXCPU:
        return True
    return exit_code == -signal.SIGKILL and facts["cpu_s"] >= program.limits.cpu_time_s
