"""A clean, single-threaded interpreter that judges one program after another in forks of itself.

`slot.Slot` starts it with an empty environment and its own session. It sends its layers once; then, for each job, it
receives limits along with the judge's socket, and answers with the facts of both deaths, which `classify` reads.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import mmap
import os
import random
import signal
import socket
import sys
from types import FrameType
from typing import Any

from rewards.sandbox import frames
from rewards.sandbox.kernel import libc, seccomp
from rewards.sandbox.kernel.policy import child_policy, zygote_policy
from rewards.sandbox.program import Limits
from rewards.sandbox.survey import Layer
from rewards.sandbox.worker.isolation import Isolation, isolate
from rewards.sandbox.worker.job import Workshop, mapped_bytes, run_job
from rewards.sandbox.worker.limits import limit_for_good
from rewards.sandbox.worker.watch import ControlClosedError

#: What programs use most. Every page more makes every fork dearer, so asyncio, unittest, hashlib and the like are not
#: here: whoever needs them imports them, in 5 to 50 ms.
_PRELOADED = """\
array bisect calendar cmath collections collections.abc contextlib copy dataclasses datetime decimal enum fractions
functools heapq io itertools json math numbers operator queue random re statistics string struct textwrap threading time
typing types _strptime
"""
_RESERVE_BYTES = 16 << 20
_HEADER_BYTES = 1 << 16


def main() -> None:
    """Serve jobs until the pool closes its end of the socket.

    Arguments (sys.argv): package root, descriptor of the control socket, settings as JSON (see `slot.Slot.start`).
    """
    root, settings = sys.argv[1], json.loads(sys.argv[3])
    control = socket.socket(fileno=fcntl.fcntl(int(sys.argv[2]), fcntl.F_DUPFD_CLOEXEC, 3))
    os.close(int(sys.argv[2]))
    _settle(root, settings, control)
    try:
        workshop = _prepare(settings, control)
    except BaseException as error:
        with contextlib.suppress(OSError):
            frames.send(control.fileno(), {"fault": f"{type(error).__name__}: {error}"})
        raise
    layers = [[layer, in_force, reason] for layer, (in_force, reason) in workshop.isolation.layers.items()]
    with contextlib.suppress(EOFError, OSError, ControlClosedError):  # the pool closed, or its process is gone
        frames.send(control.fileno(), {"layers": layers})
        while True:
            message, fds, _, _ = socket.recv_fds(control, _HEADER_BYTES, 1)
            if not message:
                return
            order = json.loads(message)
            job = socket.socket(fileno=fds[0])
            facts = run_job(workshop, job, Limits(**order["limits"]), order["is_script"], order["module"])
            frames.send(control.fileno(), facts)


def _settle(root: str, settings: dict[str, Any], control: socket.socket) -> None:
    # Without `site`, so that no .pth file brings in what is not meant to be seen; real paths, since only those exist
    # in the root that we move to.
    sys.path[:] = [os.path.realpath(path) for path in sys.path if path != root] + settings["packages"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def close_control(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        with contextlib.suppress(OSError):
            control.shutdown(socket.SHUT_RDWR)

    # Every way to end goes through the end of the control socket.
    signal.signal(signal.SIGTERM, close_control)
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != settings["parent"]:
        close_control(signal.SIGTERM, None)
    libc.name_process(b"keel-zygote")
    for name in _PRELOADED.split():
        with contextlib.suppress(ImportError):  # some builds lack some
            importlib.import_module(name)
    ctypes.pythonapi  # noqa: B018 - loads what ctypes loads late


def _prepare(settings: dict[str, Any], control: socket.socket) -> Workshop:
    mapped = mapped_bytes()
    isolation = Isolation(
        base=settings["base"],
        readable=settings["readable"],
        tmp_bytes=settings["tmp_bytes"],
        without=frozenset(settings["without"]),
    )
    isolate(isolation)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    os.environ.clear()
    os.environ.update(
        HOME=isolation.scratch,
        TMPDIR=isolation.scratch,
        PATH="",
        OPENBLAS_NUM_THREADS="1",
        OMP_NUM_THREADS="1",
    )
    os.chdir(isolation.scratch)
    limit_for_good()
    random.seed(0)  # equal programs, equal verdicts
    sys.argv = ["solution.py"]
    isolation.layers[Layer.SEPARATE_JUDGE] = (True, "")
    isolation.attempt(Layer.RESOURCE_LIMITS, lambda: None)
    child_filter = b""

    def try_filter() -> None:
        nonlocal child_filter
        own_filter, child_filter = seccomp.filter_of(zygote_policy()), seccomp.filter_of(child_policy())
        _try_in_child(own_filter, child_filter)
        seccomp.install(own_filter)

    isolation.attempt(Layer.SYSTEM_CALLS, try_filter)
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    workshop = Workshop(
        isolation=isolation,
        control=control,
        child_filter=child_filter,
        mapped_bytes=mapped,
        # Address space only: touched, it would be 4096 more pages for every fork to copy the entries of.
        reserve=[mmap.mmap(-1, _RESERVE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)],
        null_fd=null_fd,
    )
    gc.collect()
    gc.freeze()
    return workshop


def _try_in_child(own_filter: bytes, child_filter: bytes) -> None:
    """Raises OSError if the filters can't be installed or do not refuse a fork."""
    pid = os.fork()
    if pid == 0:
        try:
            seccomp.install(own_filter)
            seccomp.install(seccomp.with_pid(child_filter, os.getpid()))
            try:
                inner = os.fork()
            except PermissionError:
                os._exit(0)
            os._exit(0 if inner == 0 else 1)
        except OSError as error:
            os._exit(error.errno or 255)
        finally:
            os._exit(255)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, f"the filter does not hold: {os.strerror(code)}")
