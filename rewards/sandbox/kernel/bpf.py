"""Classic BPF for seccomp: from rules about system calls to a program. Pure.

A rule is a list of alternatives, each a list of conditions on the arguments: the call is allowed if all conditions of
any alternative hold. The program checks the architecture first, then finds the call by binary search, because the
kernel runs every number through a new filter once (and a filter is installed for every program judged).

Sources: Linux Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/{filter,seccomp}.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rewards.sandbox.kernel.syscalls import Architecture

LD_W_ABS, JEQ_K, JGE_K, JSET_K, JA, RET_K = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16  # struct seccomp_data
_LONGEST_JUMP = 255


class Instruction(NamedTuple):
    """struct sock_filter: jumps count instructions to skip."""

    code: int
    if_true: int
    if_false: int
    value: int


@dataclass(frozen=True, slots=True)
class OneOf:
    """The low 32 bits of an argument are one of `values`."""

    argument: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NoneOf:
    """The low 32 bits of an argument are none of `values`."""

    argument: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnyBit:
    """At least one bit of `mask` is set in the low 32 bits of an argument."""

    argument: int
    mask: int


@dataclass(frozen=True, slots=True)
class NoBit:
    """No bit of `mask` is set in the low 32 bits of an argument."""

    argument: int
    mask: int


@dataclass(frozen=True, slots=True)
class Null:
    """All 64 bits of an argument are 0."""

    argument: int


Condition = OneOf | NoneOf | AnyBit | NoBit | Null


@dataclass(frozen=True, slots=True)
class Rule:
    """Allowed if every condition of any alternative holds, else refused with `errno`."""

    alternatives: tuple[tuple[Condition, ...], ...]
    errno: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a filter decides, by name of the system call.

    Attributes:
        allowed: always allowed.
        ruled: allowed if the rule holds.
        refused: name -> errno.
        otherwise: errno of every other call; None allows them.
    """

    allowed: frozenset[str]
    ruled: Mapping[str, Rule]
    refused: Mapping[str, int]
    otherwise: int | None


def assemble(policy: Policy, machine: Architecture) -> list[Instruction]:
    """The filter of `policy` on `machine`. Names that the machine lacks are left out."""
    bodies: dict[int, list[Instruction]] = {}
    for name, number in machine.numbers.items():
        if name in policy.ruled:
            bodies[number] = _rule(policy.ruled[name])
        elif name in policy.allowed:
            bodies[number] = [_allow()]
        elif name in policy.refused:
            bodies[number] = [_refuse(policy.refused[name])]
    rest = [_allow()] if policy.otherwise is None else [_refuse(policy.otherwise)]
    kill = Instruction(RET_K, 0, 0, RET_KILL_PROCESS)
    head = [Instruction(LD_W_ABS, 0, 0, _ARCHITECTURE_OFFSET), Instruction(JEQ_K, 1, 0, machine.audit), kill]
    head.append(Instruction(LD_W_ABS, 0, 0, _NUMBER_OFFSET))
    if machine.x32_bit:
        head += [Instruction(JGE_K, 0, 1, machine.x32_bit), kill]
    return head + _search(_segments(bodies, rest))


def packed(program: Sequence[Instruction]) -> bytes:
    """As the kernel reads it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _allow() -> Instruction:
    return Instruction(RET_K, 0, 0, RET_ALLOW)


def _refuse(errno: int) -> Instruction:
    return Instruction(RET_K, 0, 0, RET_ERRNO | errno)


def _segments(bodies: Mapping[int, list[Instruction]], rest: list[Instruction]) -> list[tuple[int, list[Instruction]]]:
    """(first number, what to do from there on), ascending, neighbours merged where they agree."""
    segments: list[tuple[int, list[Instruction]]] = [(0, rest)]
    for number in sorted(bodies):
        for start, body in ((number, bodies[number]), (number + 1, bodies.get(number + 1, rest))):
            if segments[-1][0] == start:
                segments[-1] = (start, body)
            elif segments[-1][1] != body:
                segments.append((start, body))
    return segments


def _search(segments: Sequence[tuple[int, list[Instruction]]]) -> list[Instruction]:
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _search(segments[:middle]), _search(segments[middle:])
    first = segments[middle][0]
    if len(below) <= _LONGEST_JUMP:
        return [Instruction(JGE_K, len(below), 0, first), *below, *above]
    return [Instruction(JGE_K, 0, 1, first), Instruction(JA, 0, 0, len(below)), *below, *above]


def _rule(rule: Rule) -> list[Instruction]:
    """Each alternative falls through to the next where a condition fails."""
    body: list[Instruction] = []
    for alternative in rule.alternatives:
        tests = [_condition(condition) for condition in alternative]
        block = [_allow()]
        for test in reversed(tests):
            block = test(len(block)) + block
        body += block
    return [*body, _refuse(rule.errno)]


class _condition:
    """Instructions of a condition: they fall through if it holds, else skip `rest` more instructions."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition

    def __call__(self, rest: int) -> list[Instruction]:
        condition = self._condition
        load = Instruction(LD_W_ABS, 0, 0, _ARGUMENTS_OFFSET + 8 * condition.argument)
        match condition:
            case AnyBit(mask=mask):
                return [load, Instruction(JSET_K, 0, rest, mask)]
            case NoBit(mask=mask):
                return [load, Instruction(JSET_K, rest, 0, mask)]
            case Null():
                high = load._replace(value=load.value + 4)  # both architectures are little-endian
                return [load, Instruction(JEQ_K, 0, rest + 2, 0), high, Instruction(JEQ_K, 0, rest, 0)]
            case NoneOf(values=values):
                count = len(values)
                return [
                    load,
                    *(Instruction(JEQ_K, rest + count - 1 - index, 0, value) for index, value in enumerate(values)),
                ]
            case OneOf(values=values):
                count = len(values)
                hits = [Instruction(JEQ_K, count - 1 - index, 0, value) for index, value in enumerate(values[:-1])]
                return [load, *hits, Instruction(JEQ_K, 0, rest, values[-1])]
