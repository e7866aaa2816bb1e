"""Reward term `unit_tests`: run the answer's program against the task's tests."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeGuard, cast

from rewards.base import Attempt, RewardError, Verdict
from rewards.extraction import extract_code, parse
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.program import Kind, Limits, Program, ProgramResult

_LOG = logging.getLogger(__name__)
_SCORINGS = ("fraction", "all")


class UnitTests:
    """Share of unit tests that pass, or 1.0 only if all do.

    The task brings ``reference = {"tests": [statement, ...], "setup": str, "entry_point": str | None}``, of which only
    `tests` is required. A program that crashes, hangs or runs out of memory gets what it had earned by then under
    "fraction" and 0.0 under "all". Only a fault of the sandbox or of the task's own code is a failed verdict.

    Args:
        scoring: "fraction" or "all".
        cpu_time_s, wall_time_s: seconds for one program, all its tests together.
        memory_mib: memory beyond the bare interpreter's.
        output_kib: stdout and stderr kept of a program.
        slots: programs that run at the same time.

    Raises:
        RewardError: a setting that can't work.
    """

    name: str = "unit_tests"

    def __init__(
        self,
        *,
        scoring: str = "fraction",
        cpu_time_s: float = 2.0,
        wall_time_s: float = 10.0,
        memory_mib: int = 256,
        output_kib: int = 64,
        slots: int = 2,
    ) -> None:
        if scoring not in _SCORINGS:
            raise RewardError(f"reward.unit_tests.scoring={scoring!r}: set one of {', '.join(_SCORINGS)}.")
        for key, value in {
            "cpu_time_s": cpu_time_s,
            "wall_time_s": wall_time_s,
            "memory_mib": memory_mib,
            "output_kib": output_kib,
            "slots": slots,
        }.items():
            if not value > 0:
                raise RewardError(f"reward.unit_tests.{key}={value!r}: set a positive number.")
        self._needs_all = scoring == "all"
        self._limits = Limits(
            cpu_time_s=cpu_time_s,
            wall_time_s=wall_time_s,
            memory_bytes=memory_mib << 20,
            output_bytes=output_kib << 10,
        )
        self._sandbox = Sandbox(slots)

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> UnitTests:
        """Build from ``{"unit_tests": {...}, "slots": n}``, the keys of the constructor. Raises RewardError."""
        own = cast("Mapping[str, Any]", settings.get("unit_tests", {}))
        slots = cast("Mapping[str, Any]", {key: settings[key] for key in ("slots",) if key in settings})
        try:
            return cls(**own, **slots)
        except TypeError as error:
            raise RewardError(f"reward.unit_tests={dict(own)!r}: {error}") from error

    def judge(self, attempts: list[Attempt]) -> list[Verdict]:
        """One verdict for each attempt, in order.

        The reason is "syntax_error", "failed", "error", "timeout", "out_of_memory" or empty; details are
        `tests_passed` and `tests_total`.
        """
        verdicts: list[Verdict | None] = [None] * len(attempts)
        programs: dict[int, Program] = {}
        for index, attempt in enumerate(attempts):
            prepared = self._prepare(attempt)
            if isinstance(prepared, Program):
                programs[index] = prepared
            else:
                verdicts[index] = prepared
        results = self._sandbox.run_many(list(programs.values()))
        for index, result in zip(programs, results, strict=True):
            verdicts[index] = self._verdict(result)
        return [verdict for verdict in verdicts if verdict is not None]

    def close(self) -> None:
        """End the sandbox's processes."""
        self._sandbox.close()

    def _prepare(self, attempt: Attempt) -> Program | Verdict:
        tests = attempt.reference.get("tests")
        if not tests:
            return Verdict.absent("no_tests")
        setup, entry_point = attempt.reference.get("setup") or "", attempt.reference.get("entry_point")
        if not _is_strings(tests) or not isinstance(setup, str) or not isinstance(entry_point, str | None):
            return Verdict.failed("malformed_reference")
        source = extract_code(attempt.answer, entry_point)
        if parse(source) is None:
            return Verdict.valid(0.0, {"tests_passed": 0, "tests_total": len(tests)}, "syntax_error")
        return Program(source=source, tests=tuple(tests), setup=setup, limits=self._limits)

    def _verdict(self, result: ProgramResult) -> Verdict:
        if result.kind is Kind.SANDBOX_FAULT:
            _LOG.warning("sandbox fault: %s", result.message)
            return Verdict.failed("sandbox_fault")
        details = {"tests_passed": result.num_passed, "tests_total": result.num_tests}
        if result.kind is Kind.PASSED:
            return Verdict.valid(1.0, details)
        value = 0.0 if self._needs_all else result.num_passed / result.num_tests
        # A few errors only show when the tree is compiled, such as a `return` outside a function.
        is_syntax = result.kind is Kind.ERROR and result.message.startswith("SyntaxError")
        return Verdict.valid(value, details, "syntax_error" if is_syntax else result.kind.value)


def _is_strings(value: object) -> TypeGuard[list[str] | tuple[str, ...]]:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in cast("list[object]", value))
