"""Installs a seccomp filter."""

from __future__ import annotations

import ctypes
import struct

from rewards.sandbox.kernel.bpf import Policy, assemble, packed
from rewards.sandbox.kernel.libc import syscall
from rewards.sandbox.kernel.policy import OWN_PID
from rewards.sandbox.kernel.syscalls import architecture

_SET_MODE_FILTER = 1


def filter_of(policy: Policy) -> bytes:
    """The filter for this machine, with `OWN_PID` still in it. Raises OSError on an unknown machine."""
    machine = architecture()
    if machine is None:
        raise OSError(38, "no table of system calls for this machine")
    return packed(assemble(policy, machine))


def with_pid(program: bytes, pid: int) -> bytes:
    """`program` for the process `pid`."""
    return program.replace(struct.pack("=I", OWN_PID), struct.pack("=I", pid))


def install(program: bytes) -> None:
    """Put this thread, and all it starts, under `program` for good. Needs no_new_privs. Raises OSError."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))  # struct sock_fprog
    syscall("seccomp", _SET_MODE_FILTER, 0, ctypes.create_string_buffer(header, len(header)))
