"""What goes into the sandbox and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Form(StrEnum):
    """How a task tests a program."""

    ASSERTS = "asserts"  #: `tests`: statements, each counted by itself
    CHECK = "check"  #: `test` defines ``check(candidate)``, called with what `entry_point` evaluates to; one test
    TEST_FILE = "test_file"  #: `test` is a pytest- or unittest-style file that imports the program as `module`
    STDIN = "stdin"  #: `cases`: the program runs as __main__ for each ``input``, and its stdout is held to ``output``
    CALLS = "calls"  #: `cases`: `entry_point` is called with ``args``, and its value is held to ``expected``


class Kind(StrEnum):
    """How a program ended."""

    PASSED = "passed"  #: every test passed
    FAILED = "failed"  #: it ran, and a test did not pass
    ERROR = "error"  #: its source does not compile or raised, it left early, or a signal killed it
    TIMEOUT = "timeout"  #: out of CPU or wall time
    OUT_OF_MEMORY = "out_of_memory"  #: a MemoryError, in the source or in a test
    SANDBOX_FAULT = "sandbox_fault"  #: the sandbox or the task's own code broke; says nothing about the program


class Flag(StrEnum):
    """What a reader should know of a verdict."""

    DELEGATED = "delegated"  #: a test asked an object of the program's own class for the truth
    FLOAT_TOLERANCE = "float_tolerance"  #: a line of output matched as numbers, not as text
    RETRIED = "retried"  #: the second try; the first lost its zygote or waited more than it computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run of a program may use: all its tests together, but each case of form "stdin" by itself.

    CPU time decides; wall time only catches sleepers.

    Attributes:
        cpu_time_s: CPU seconds of the program, all its threads.
        wall_time_s: seconds; generous, since a loaded machine must not fail a correct program.
        memory_bytes: address space beyond what the bare interpreter maps.
        output_bytes: stdout and stderr that are kept; the rest is read and dropped.
        tmp_bytes: what the program may write to its temporary directory, and the size of any one file.
        num_threads: threads of the program.
    """

    cpu_time_s: float = 2.0
    wall_time_s: float = 10.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 64 << 10
    tmp_bytes: int = 16 << 20
    num_threads: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Model-written source and the tests to hold it against. Of the fields below `source`, a form reads its own.

    Attributes:
        source: the model's program.
        preamble: the task's code that runs before the source, in its namespace (imports, helper classes).
        setup: the task's code that runs before the tests, where they run. The program does not see it, unless it is
            nothing but imports.
        form: which of the following holds the tests.
        tests: "asserts": statements.
        test: "check": source that defines ``check(candidate)``. "test_file": the file.
        entry_point: the function that the tests are about; "check" and "calls": may be an expression such as
            ``Solution().twoSum``.
        module: "test_file": the name by which the file imports the program.
        cases: "stdin": ``{"input": str, "output": str}``; "calls": ``{"args": list, "expected": value}``.
        float_tolerance: "stdin" and "calls": how far finite numbers may be apart, absolutely or relatively.
    """

    source: str
    preamble: str = ""
    setup: str = ""
    form: Form = Form.ASSERTS
    tests: tuple[str, ...] = ()
    test: str = ""
    entry_point: str | None = None
    module: str = "solution"
    cases: tuple[Mapping[str, object], ...] = ()
    float_tolerance: float = 0.0
    limits: Limits = field(default_factory=Limits)

    @property
    def num_tests(self) -> int:
        """Tests as far as they are known without running anything: 0 for a test file."""
        sizes = {Form.ASSERTS: len(self.tests), Form.CHECK: 1, Form.TEST_FILE: 0}
        return sizes.get(self.form, len(self.cases))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramResult:
    """What became of a program.

    Attributes:
        num_passed: tests that passed before the program ended, however it ended.
        num_tests: tests in all; 0 only where a test file could not be read.
        message: short cause of anything but a pass, in part in the program's own words (untrusted text).
        output: stdout and stderr, cut at `Limits.output_bytes`.
        flags: what a reader should know, see `Flag`.
        cpu_s: CPU seconds of the program.
        wall_s: seconds from fork to death.
    """

    kind: Kind
    num_passed: int = 0
    num_tests: int = 0
    message: str = ""
    output: str = ""
    flags: frozenset[str] = frozenset()
    cpu_s: float = 0.0
    wall_s: float = 0.0
