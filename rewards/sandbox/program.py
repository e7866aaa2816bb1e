"""What goes into the sandbox and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """How a program ended."""

    PASSED = "passed"  #: every test passed
    FAILED = "failed"  #: it ran, and a test did not pass or it left before its tests were done
    ERROR = "error"  #: its source does not compile or raised, or a signal killed it
    TIMEOUT = "timeout"  #: out of CPU or wall time
    OUT_OF_MEMORY = "out_of_memory"  #: a MemoryError, in the source or in a test
    SANDBOX_FAULT = "sandbox_fault"  #: the sandbox or the task's own setup broke; says nothing about the program


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use. CPU time decides; wall time only catches programs that sleep.

    Attributes:
        cpu_time_s: CPU seconds of the program's main process, all threads.
        wall_time_s: seconds; generous, since a loaded machine must not fail a correct program.
        memory_bytes: address space beyond what the bare interpreter maps.
        output_bytes: stdout and stderr that are kept; the rest is read and dropped.
        file_bytes: size of any one file.
        num_processes: processes and threads.
    """

    cpu_time_s: float = 2.0
    wall_time_s: float = 10.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 64 << 10
    file_bytes: int = 16 << 20
    num_processes: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Model-written source and the tests to hold it against.

    Attributes:
        source: candidate source; runs as the module `solution`, so a ``__main__`` block does not.
        tests: statements, each run by itself in the namespace of the source.
        setup: the task's own code. Runs before the source (so that it can't be blamed for the source) and again
            after it (so that the source can't redefine it).
    """

    source: str
    tests: tuple[str, ...]
    setup: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramResult:
    """What became of a program.

    Attributes:
        tests: whether each test passed; False for tests that were never reached.
        message: short cause of anything but a pass, in the program's own words (untrusted text).
        cpu_s: CPU seconds of the main process and the children it waited for.
        wall_s: seconds from fork to death.
        output: stdout and stderr, cut at `Limits.output_bytes`.
    """

    kind: Kind
    tests: tuple[bool, ...]
    message: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    output: str = ""

    @property
    def num_passed(self) -> int:
        """Tests that passed before the program ended, however it ended."""
        return sum(self.tests)
