"""Reward kind `unit_tests`: run the answer's program against the task's tests."""

from __future__ import annotations

import ast
import asyncio
import logging
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum

from rewards.base import Attempt, RewardError, Verdict
from rewards.code_reference import MalformedReferenceError, read_tests
from rewards.extraction import extract_code, first_name
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.program import Form, Kind, Limits, Program, ProgramResult
from rewards.syntax import defines, has_method, parse
from rewards.thought import after_thought

_LOG = logging.getLogger(__name__)


class Scoring(StrEnum):
    """What a program's tests are worth."""

    FRACTION = "fraction"  #: the share that passed
    ALL = "all"  #: 1 if all passed, else 0


class UnitTests:
    """Share of the task's tests that pass, or 1 only if all do. From 0 to 1.

    What the task brings under `reference` is described in `rewards.code_reference.read_tests`; a task without tests
    makes the term absent. A program that crashes, hangs or runs out of memory gets what it had earned by then under
    "fraction" and 0 under "all"; one that is no Python gets 0. Only a fault of the sandbox or of the task's own code is
    a failed verdict.
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """What `reward.terms.<name>.settings` holds."""

        scoring: Scoring = Scoring.FRACTION
        cpu_time_s: float = 2.0  #: of one program, all its tests together
        wall_time_s: float = 10.0  #: likewise; generous, since a loaded machine must not fail a correct program
        memory_mib: int = 256  #: beyond the bare interpreter's
        output_kib: int = 64  #: stdout and stderr that are kept
        tmp_mib: int = 16  #: what a program may write
        float_tolerance: float = 0.0  #: how far numbers may be off, absolutely or relatively; forms "stdin" and "calls"
        slots: int = 2  #: programs that one reward worker runs at the same time
        allow_unsafe: bool = False  #: run programs even where this machine can't isolate them

        def __post_init__(self) -> None:
            for name in ("cpu_time_s", "wall_time_s", "memory_mib", "output_kib", "tmp_mib", "slots"):
                if not getattr(self, name) > 0:
                    raise RewardError(f"{name}={getattr(self, name)!r}: set a positive number.")
            if not 0 <= self.float_tolerance < 1:
                raise RewardError(f"float_tolerance={self.float_tolerance}: set 0, or a small number such as 1e-6.")

        def limits(self) -> Limits:
            """What one program may use."""
            return Limits(
                cpu_time_s=self.cpu_time_s,
                wall_time_s=self.wall_time_s,
                memory_bytes=self.memory_mib << 20,
                output_bytes=self.output_kib << 10,
                tmp_bytes=self.tmp_mib << 20,
            )

    def __init__(self, settings: Settings) -> None:
        self._needs_all = settings.scoring is Scoring.ALL
        self._limits, self._float_tolerance = settings.limits(), settings.float_tolerance
        self._sandbox = _sandbox(settings, settings.slots)
        self._threads = ThreadPoolExecutor(settings.slots, "unit-tests")

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise RewardError if this machine can't isolate a program. Takes about a second."""
        _sandbox(settings, 1).close()

    async def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict for each attempt, in order; several groups share the slots.

        The reason is "syntax_error", "failed", "error", "timeout", "out_of_memory" or empty; "no_tests" where absent;
        "malformed_reference" or "sandbox_fault" where failed. Details are `tests_passed`, `tests_total` and a 1 for
        each `rewards.sandbox.program.Flag`.
        """
        loop = asyncio.get_running_loop()
        return list(
            await asyncio.gather(*(loop.run_in_executor(self._threads, self._judge, each) for each in attempts))
        )

    def close(self) -> None:
        """End the sandbox's processes; programs under way become faults."""
        self._sandbox.close()
        self._threads.shutdown(cancel_futures=True)

    def _judge(self, attempt: Attempt) -> Verdict:
        try:
            task = read_tests(attempt.reference)
        except MalformedReferenceError as error:
            _LOG.warning("malformed reference of a task in domain %r: %s", attempt.domain, error)
            return Verdict.failed("malformed_reference")
        if task is None:
            return Verdict.absent("no_tests")
        source = _source(task, attempt.answer)
        if parse(source) is None:
            return Verdict.valid(0.0, {"tests_passed": 0, "tests_total": task.num_tests}, "syntax_error")
        program = replace(
            task,
            source=source,
            entry_point=_entry_point(task, source),
            float_tolerance=self._float_tolerance,
            limits=self._limits,
        )
        return self._verdict(self._sandbox.run(program))

    def _verdict(self, result: ProgramResult) -> Verdict:
        if result.kind is Kind.SANDBOX_FAULT:
            _LOG.warning("sandbox fault: %s", result.message)
            return Verdict.failed("sandbox_fault")
        details = {"tests_passed": result.num_passed, "tests_total": result.num_tests} | dict.fromkeys(result.flags, 1)
        if result.kind is Kind.PASSED:
            return Verdict.valid(1.0, details)
        value = 0.0 if self._needs_all or not result.num_tests else result.num_passed / result.num_tests
        # A few errors only show when the tree is compiled, such as a `return` outside a function.
        is_syntax = result.kind is Kind.ERROR and result.message.startswith("SyntaxError")
        return Verdict.valid(value, details, "syntax_error" if is_syntax else result.kind.value)


def _sandbox(settings: UnitTests.Settings, slots: int) -> Sandbox:
    return Sandbox(slots, tmp_bytes=settings.tmp_mib << 20, allow_unsafe=settings.allow_unsafe)


def _source(task: Program, answer: str) -> str:
    """The program; where the answer is only the body of a function that the preamble began, both (HumanEval)."""
    source = extract_code(answer, task.entry_point, reads_stdin=task.form is Form.STDIN)
    tree = parse(source)
    if not task.preamble or not task.entry_point or (tree and defines(tree, first_name(task.entry_point))):
        return source
    bodies = [source, after_thought(answer)]
    if tree and any(isinstance(statement, ast.Return) for statement in tree.body):
        bodies.append(textwrap.indent(source, "    "))  # a block loses what all its lines are indented by
    for body in bodies:
        joined = f"{task.preamble.rstrip()}\n{body}"
        if body.lstrip("\n")[:1].isspace() and parse(joined) is not None:
            return joined
    return source


def _entry_point(task: Program, source: str) -> str | None:
    """The task's own, or where the answer has it as a method of a class `Solution`, that method of an instance."""
    name, tree = task.entry_point, parse(source)
    if name is None or tree is None or task.form not in (Form.CHECK, Form.CALLS):
        return name
    is_method = not defines(tree, name) and has_method(tree, "Solution", name)
    return f"Solution().{name}" if is_method else name
