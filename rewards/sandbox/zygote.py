"""A clean, single-threaded interpreter that forks one child for each program.

`slot.Slot` starts it with an empty environment and its own session. It speaks `wire` over one socket: "ready" once,
then for each job "started" (with the child's process id) and the facts of its death, which `classify` reads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import importlib
import os
import resource
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rewards.sandbox import confine, privileges, wire
from rewards.sandbox.candidate import Reporter, run_candidate
from rewards.sandbox.directories import remove_tree
from rewards.sandbox.program import Limits
from rewards.sandbox.supervise import REPORT_BYTES, ControlClosedError, Sink, kill_leftovers, supervise

_PRELOADED = """\
abc array asyncio base64 bisect calendar cmath collections contextlib copy dataclasses datetime decimal enum fractions
functools hashlib heapq inspect io itertools json logging math numbers operator pickle queue random re secrets
statistics string struct tempfile textwrap threading time timeit traceback types typing unicodedata unittest uuid
_strptime encodings.idna
"""


def main() -> None:
    """Serve jobs until the pool closes its end of the socket.

    Arguments (sys.argv): package root, descriptor of the control socket, the pool's process id, directory.
    """
    root, control_fd, parent, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    control = socket.socket(fileno=fcntl.fcntl(control_fd, fcntl.F_DUPFD_CLOEXEC, 3))
    os.close(control_fd)  # its number may be high: children would not close it
    _settle(root, parent, control)
    uid = privileges.candidate_uid()
    try:
        wire.send(control, {"ready": True})
        while True:
            wire.send(control, _run_job(wire.receive(control), control, directory, uid))
    except (EOFError, ConnectionError, ControlClosedError):
        pass  # the pool closed, or its process is gone
    finally:
        kill_leftovers()
        remove_tree(directory)
        with contextlib.suppress(OSError):
            directory.parent.rmdir()  # the last zygote out, should the pool not have lived to do it


def _settle(root: str, parent: int, control: socket.socket) -> None:
    sys.path[:] = [path for path in sys.path if path != root]
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def close_control(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        with contextlib.suppress(OSError):
            control.shutdown(socket.SHUT_RDWR)

    # Every way to end goes through the end of the control socket, and so through main's clean-up, once.
    signal.signal(signal.SIGTERM, close_control)
    privileges.prctl(privileges.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        close_control(signal.SIGTERM, None)
    privileges.name_process(b"keel-zygote")
    privileges.prctl(privileges.PR_SET_CHILD_SUBREAPER, 1)
    privileges.prctl(privileges.PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (confine.ZYGOTE_DESCRIPTORS, confine.ZYGOTE_DESCRIPTORS))
    for name in _PRELOADED.split():
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _run_job(job: dict[str, Any], control: socket.socket, directory: Path, uid: int | None) -> dict[str, Any]:
    limits = Limits(**job["limits"])
    nonce = os.urandom(16).hex()
    home = Path(tempfile.mkdtemp(prefix="program-", dir=directory))
    output_read, output_write = os.pipe()
    report_read, report_write = os.pipe()
    num_tasks = privileges.user_tasks() if uid is None else 0
    try:
        if uid is not None:
            os.chown(home, uid, uid)
        pid = os.fork()
        if pid == 0:
            _be_candidate(job, nonce, lambda: confine.confine(limits, home, output_write, report_write, uid, num_tasks))
        os.close(output_write)
        os.close(report_write)
        wire.send(control, {"started": pid})
        sinks = Sink(output_read, limits.output_bytes), Sink(report_read, REPORT_BYTES)
        death = supervise(pid, sinks, control.fileno(), limits)
    finally:
        os.close(output_read)
        os.close(report_read)
        remove_tree(home)
    output, report = (bytes(sink.data).decode("utf-8", "replace") for sink in sinks)
    lines = [line.split(" ", 3) for line in report.split("\n")[:-1]]
    events = [line[1:] for line in lines if len(line) == 4 and line[0] == nonce]
    return {**dataclasses.asdict(death), "output": output, "events": events}


def _be_candidate(job: dict[str, Any], nonce: str, confine_self: Callable[[], None]) -> NoReturn:
    """The child's whole life."""
    try:
        confine_self()
    except BaseException:  # noqa: BLE001 - whatever it is, no candidate may run
        traceback.print_exc()  # to the log, or into the output if that is in place already: then the verdict shows it
        sys.stderr.flush()
        os._exit(70)
    try:
        run_candidate(job, Reporter(nonce))
    finally:
        os._exit(71)
