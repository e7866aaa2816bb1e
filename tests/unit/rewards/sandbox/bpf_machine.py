"""An interpreter of classic BPF, for the part that seccomp filters use. Source: Linux networking/filter.rst."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from rewards.sandbox.kernel.bpf import Instruction


def run(program: Sequence[Instruction], number: int, audit: int, args: Sequence[int] = ()) -> int:
    """The value that the filter returns for one system call."""
    padded = [value & 0xFFFFFFFFFFFFFFFF for value in (*args, 0, 0, 0, 0, 0, 0)[:6]]
    packet = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, audit, 0, *padded)  # struct seccomp_data
    accumulator, at = 0, 0
    for _ in range(len(program) + 1):
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", packet, value)
        elif code == 0x06:
            return value
        elif code == 0x05:
            at += value
        elif code in (0x15, 0x35, 0x45):
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += if_true if holds else if_false
        else:
            raise AssertionError(f"instruction {code:#x}")
    raise AssertionError("no end")
