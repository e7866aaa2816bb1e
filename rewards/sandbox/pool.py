"""A pool of zygotes that judges programs, several at a time."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from rewards.base import RewardError
from rewards.sandbox.canaries import Outcome, try_canaries
from rewards.sandbox.classify import all_cases, classify
from rewards.sandbox.program import Flag, Form, Kind, Program, ProgramResult
from rewards.sandbox.slot import Slot, ZygoteDiedError
from rewards.sandbox.survey import Layer, Survey

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 2
_IDLE_SHARE = 0.5  #: a program that used less of its CPU limit when the wall limit came may have waited for a core


class SandboxError(RewardError):
    """Programs can't be run safely here; the message says which layer is missing or which attack succeeded."""


class Sandbox:
    """Runs programs in processes of their own. Every method may be called from any thread.

    The constructor waits until every zygote has isolated itself and has withstood the canaries. Close it, or use it as
    a context manager.

    Args:
        slots: programs that run at the same time.
        tmp_bytes: size of a slot's temporary directory, where it can have one of fixed size.
        allow_unsafe: work even though layers are missing or canaries succeed, for machines that hold nothing of value.
        without: layers to leave out. For tests and measurements.

    Raises:
        SandboxError: the machine does not allow what isolation needs.
    """

    def __init__(
        self,
        slots: int = 2,
        *,
        tmp_bytes: int = 64 << 20,
        allow_unsafe: bool = False,
        without: Collection[Layer] = (),
    ) -> None:
        if slots < 1:
            raise SandboxError(f"slots={slots}: a sandbox needs at least one.")
        if not sys.platform.startswith("linux"):
            raise SandboxError(f"sandbox: it needs Linux, and this is {sys.platform}.")
        self._directory = Path(tempfile.mkdtemp(prefix="keel-sandbox-"))
        self._directory.chmod(0o711)
        self._slots = [Slot(self._directory, index, tmp_bytes, without) for index in range(slots)]
        self._lock = threading.Lock()
        self._closed = False
        # Makes every zygote, and lives as long as the pool: see Slot.start.
        self._starter = ThreadPoolExecutor(1, "sandbox-starter")
        self._callers = ThreadPoolExecutor(slots, "sandbox-caller")
        self._idle: SimpleQueue[Slot] = SimpleQueue()
        for slot in self._slots:
            self._idle.put(slot)
        try:
            self.survey = self._start(allow_unsafe)
        except BaseException:
            self.close()
            raise

    def run(self, program: Program) -> ProgramResult:
        """Run one program, waiting for a free slot first.

        A zygote that dies is replaced and its program tried once more, then it is a sandbox fault. A program that
        reached the wall limit having computed little is tried once more too.

        Raises:
            RuntimeError: the sandbox is closed.
        """
        if self._closed:
            raise RuntimeError("the sandbox is closed")
        slot = self._idle.get()
        try:
            if program.form is Form.STDIN:
                return self._run_cases(slot, program)
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
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def zygote_pids(self) -> list[int]:
        """Process ids of the zygotes, for diagnosis."""
        return [slot.pid for slot in self._slots if slot.pid is not None]

    def _start(self, allow_unsafe: bool) -> Survey:
        """Start all zygotes and find out what holds. Raises SandboxError."""
        for slot in self._slots:
            self._starter.submit(slot.start).result()
        first = self._slots[0]
        try:
            for slot in self._slots:
                slot.wait_ready()
            layers = Survey(layers=first.layers)
            if not layers.missing() or allow_unsafe:
                layers = replace(
                    layers, canaries=try_canaries(lambda program: self._canary(first, program), self._directory)
                )
        except (ZygoteDiedError, OSError) as error:
            raise SandboxError(f"sandbox: it does not start: {error}") from error
        missing = layers.missing()
        _LOG.info("sandbox layers:\n%s", layers.table())
        if missing and not allow_unsafe:
            raise SandboxError(
                f"sandbox: programs can't be run safely on this machine ({'; '.join(missing)}). Run where the "
                "layers are allowed (docs/sandbox.md lists them), or set allow_unsafe=true if nothing here is worth "
                "protecting."
            )
        if missing:
            _LOG.error("UNSAFE: programs run without protection: %s", "; ".join(missing))
        return layers

    def _canary(self, slot: Slot, program: Program) -> Outcome:
        return Outcome(result=self._run_in(slot, program), leftovers=slot.leftovers)

    def _run_cases(self, slot: Slot, program: Program) -> ProgramResult:
        """A process for each case; none after one that was out of time."""
        results: list[ProgramResult] = []
        for case in program.cases:
            results.append(self._run_in(slot, replace(program, cases=(case,))))
            if results[-1].kind in (Kind.TIMEOUT, Kind.SANDBOX_FAULT):
                break
        if not results:
            return ProgramResult(kind=Kind.SANDBOX_FAULT, message="the task's own code: it has no cases")
        return all_cases(results, program.num_tests)

    def _run_in(self, slot: Slot, program: Program) -> ProgramResult:
        cause, flags = "", frozenset[str]()
        for attempt in range(_ATTEMPTS):
            try:
                facts, events = slot.run(program)
                result = classify(program, facts, events)
                if attempt == 0 and facts["killed_for"] == "wall" and _may_have_starved(facts, program):
                    flags = frozenset({Flag.RETRIED.value})
                    continue
                return replace(result, flags=result.flags | flags)
            except ZygoteDiedError as error:
                cause, flags = f"zygote died: {error}", frozenset({Flag.RETRIED.value})
            with self._lock:
                if self._closed:
                    cause = "the sandbox was closed"
                    break
                slot.stop()
                try:
                    self._starter.submit(slot.start).result()
                except OSError as error:
                    cause = f"no new zygote: {error}"
        return ProgramResult(kind=Kind.SANDBOX_FAULT, num_tests=program.num_tests, message=cause)


def _may_have_starved(facts: Mapping[str, Any], program: Program) -> bool:
    return facts["cpu_s"] + facts["judge_cpu_s"] < _IDLE_SHARE * program.limits.cpu_time_s
