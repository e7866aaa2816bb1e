"""Form "stdin": one run of the program, fed through a pipe, held to the output expected. One test."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass, field
from typing import Any

from rewards.sandbox import frames
from rewards.sandbox.judge.comparing import same_output
from rewards.sandbox.judge.preparation import TaskFault
from rewards.sandbox.judge.tally import Tally
from rewards.sandbox.program import Flag

_FROM_GUEST, _TO_GUEST, _STDIN, _STDOUT = 3, 4, 6, 7
_SLACK_BYTES = 1 << 16  #: of white space and the like that output may have beyond what is expected
_LONGEST_REPLY = 1 << 16


def judge_stdin(task: dict[str, Any], tally: Tally) -> None:
    """Feed the one case in ``task["cases"]``, read, compare."""
    tally.total(1)
    case = task["cases"][0]
    given, expected = case.get("input"), case.get("output")
    if type(given) is not str or type(expected) is not str:
        raise TaskFault("a case is {'input': text, 'output': text}")
    try:
        frames.send(_TO_GUEST, [task["preamble"], task["source"]])
    except OSError:
        tally.gone("it left before it was told what to run")
        return
    exchange = _Exchange(
        given.encode("utf-8", "surrogatepass"), 2 * len(expected.encode("utf-8", "replace")) + _SLACK_BYTES
    )
    exchange.run()
    if exchange.is_too_long:
        tally.failed(0, "far more output than expected")
        return
    actual = exchange.output.decode("utf-8", "replace")
    try:
        kind, code = frames.receive(_FROM_GUEST, _LONGEST_REPLY)
    except (EOFError, frames.FrameError, ValueError, TypeError):
        kind, code = "", 0  # os._exit, or a broken descriptor: only the output counts
    if kind == "MemoryError":
        tally.out_of_memory()
        tally.failed(0, "MemoryError")
    elif kind:
        tally.raised(str(kind))
    elif code != 0:
        tally.raised(f"exit code {code}"[:40])
    else:
        _compare(actual, expected, task["float_tolerance"], tally)


def _compare(actual: str, expected: str, tolerance: float, tally: Tally) -> None:
    is_same, was_close = same_output(actual, expected, tolerance)
    if is_same:
        if was_close:
            tally.flags.add(Flag.FLOAT_TOLERANCE)
        tally.passed(0)
    else:
        tally.failed(0, "wrong output")


@dataclass(slots=True)
class _Exchange:
    """Writes standard input while it reads standard output, so that neither side waits for the other."""

    unwritten: bytes
    limit: int
    output: bytearray = field(default_factory=bytearray)
    is_too_long: bool = False

    def run(self) -> None:
        """Until the program closes its output, at the latest when it ends."""
        poller = select.poll()
        poller.register(_STDOUT, select.POLLIN)
        poller.register(_STDIN, select.POLLOUT)
        os.set_blocking(_STDIN, False)
        is_writing = True
        while True:
            for fd, _ in poller.poll():
                if fd == _STDIN and is_writing:
                    is_writing = self._write()
                    if not is_writing:
                        poller.unregister(_STDIN)
                        os.close(_STDIN)
                elif fd == _STDOUT:
                    piece = os.read(_STDOUT, 1 << 16)
                    if not piece:
                        return
                    self.output += piece
                    if len(self.output) > self.limit:
                        self.is_too_long = True
                        return

    def _write(self) -> bool:
        try:
            self.unwritten = self.unwritten[os.write(_STDIN, self.unwritten[: 1 << 16]) :] if self.unwritten else b""
        except BlockingIOError:
            return True
        except OSError:
            return False  # it does not want to read it all
        return bool(self.unwritten)
