"""A pool of zygotes that judges programs, several at a time."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from rewards.sandbox.classify import classify
from rewards.sandbox.directories import remove_tree
from rewards.sandbox.program import Kind, Program, ProgramResult
from rewards.sandbox.slot import Slot, ZygoteDiedError

_ATTEMPTS = 2


class Sandbox:
    """Runs programs in processes of their own. Every method may be called from any thread.

    Zygotes start in the background: the constructor returns at once. Close it, or use it as a context manager.

    Args:
        slots: programs that run at the same time.
    """

    def __init__(self, slots: int = 2) -> None:
        if slots < 1:
            raise ValueError(f"slots={slots}: a sandbox needs at least one")
        self._directory = Path(tempfile.mkdtemp(prefix="keel-sandbox-"))
        self._directory.chmod(0o711)
        self._slots = [Slot(self._directory, index) for index in range(slots)]
        self._lock = threading.Lock()
        self._closed = False
        # Makes every zygote, and lives as long as the pool: see Slot.start.
        self._starter = ThreadPoolExecutor(1, "sandbox-starter")
        self._callers = ThreadPoolExecutor(slots, "sandbox-caller")
        self._idle: SimpleQueue[Slot] = SimpleQueue()
        for slot in self._slots:
            self._starter.submit(slot.start).result()
            self._idle.put(slot)

    def run(self, program: Program) -> ProgramResult:
        """Run one program, waiting for a free slot first.

        A zygote that dies is replaced and its program tried once more, then it is a sandbox fault.

        Raises:
            RuntimeError: the sandbox is closed.
        """
        if self._closed:
            raise RuntimeError("the sandbox is closed")
        slot = self._idle.get()
        try:
            return self._run_in(slot, program)
        finally:
            self._idle.put(slot)

    def run_many(self, programs: Sequence[Program]) -> list[ProgramResult]:
        """Run programs in all free slots; results in the order of `programs`. Raises RuntimeError when closed."""
        if self._closed:
            raise RuntimeError("the sandbox is closed")
        return list(self._callers.map(self.run, programs))

    def close(self) -> None:
        """End every process and remove every directory. Programs still running become sandbox faults."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for slot in self._slots:
                slot.interrupt()
        # Whoever runs a program gives its slot back, now that its zygote is gone.
        for slot in [self._idle.get() for _ in self._slots]:
            slot.stop()
            self._idle.put(slot)  # lets a caller that still waits for a slot find out
        self._callers.shutdown()
        self._starter.shutdown()
        remove_tree(self._directory)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def zygote_pids(self) -> list[int]:
        """Process ids of the zygotes, for diagnosis."""
        return [slot.pid for slot in self._slots if slot.pid is not None]

    def _run_in(self, slot: Slot, program: Program) -> ProgramResult:
        cause = ""
        for _ in range(_ATTEMPTS):
            try:
                return classify(program, slot.run(program))
            except ZygoteDiedError as error:
                cause = f"zygote died: {error}"
            with self._lock:
                if self._closed:
                    cause = "the sandbox was closed"
                    break
                slot.stop()
                try:
                    self._starter.submit(slot.start).result()
                except OSError as error:
                    cause = f"no new zygote: {error}"
        return ProgramResult(kind=Kind.SANDBOX_FAULT, num_tests=len(program.tests), message=cause)
