"""Decisions of the seccomp filter, on both architectures, without a kernel."""

from __future__ import annotations

import errno
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.sandbox.kernel import seccomp
from rewards.sandbox.kernel.bpf import (
    RET_ALLOW,
    RET_ERRNO,
    RET_KILL_PROCESS,
    AnyBit,
    Condition,
    Instruction,
    NoBit,
    NoneOf,
    Null,
    OneOf,
    Policy,
    Rule,
    assemble,
    packed,
)
from rewards.sandbox.kernel.policy import OWN_PID, child_policy, program_policy, zygote_policy
from rewards.sandbox.kernel.syscalls import AARCH64, X86_64, Architecture, architecture

sys.path.insert(0, str(Path(__file__).parent))
from bpf_machine import run

PID = 4711
MACHINES = [X86_64, AARCH64]
EPERM, ENOSYS = RET_ERRNO | errno.EPERM, RET_ERRNO | errno.ENOSYS
WIDE = st.integers(0, 2**64 - 1)


def unpacked(raw: bytes) -> list[Instruction]:
    return [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", raw)]


def program_of(policy: Policy, machine: Architecture) -> list[Instruction]:
    return unpacked(seccomp.with_pid(packed(assemble(policy, machine)), PID))


PROGRAMS = {machine.name: program_of(program_policy(), machine) for machine in MACHINES}
#: What a judge or guest is under: the zygote's filter, then its own.
STACKS = {m.name: [program_of(policy, m) for policy in (zygote_policy(), child_policy())] for m in MACHINES}


def run_stack(machine: Architecture, number: int, audit: int, args: tuple[int, ...] = ()) -> int:
    """seccomp(2): the result that comes first here counts, and of equal ones that of the newest filter."""
    results = [run(program, number, audit, args) for program in reversed(STACKS[machine.name])]
    order = [RET_KILL_PROCESS, RET_ERRNO, RET_ALLOW]
    return min(results, key=lambda result: order.index(result & 0xFFFF0000))


def decide(machine: Architecture, name: str, *args: int) -> int:
    """By the policy of programs, which the two filters must come to."""
    result = run(PROGRAMS[machine.name], machine.numbers[name], machine.audit, args)
    assert run_stack(machine, machine.numbers[name], machine.audit, args) == result
    return result


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_number_gets_what_the_policy_says(machine: Architecture) -> None:
    policy, names = program_policy(), {number: name for name, number in machine.numbers.items()}
    for number in range(600):
        name = names.get(number, "")
        if name in policy.ruled:
            continue
        expected = RET_ALLOW if name in policy.allowed else EPERM if name in policy.refused else ENOSYS
        assert run_stack(machine, number, machine.audit) == expected, (number, name)
        assert run(PROGRAMS[machine.name], number, machine.audit) == expected, (number, name)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_the_policy_names_only_calls_of_the_table(machine: Architecture) -> None:
    policy = program_policy()
    named = [*policy.allowed, *policy.ruled, *policy.refused]
    assert len(named) == len(set(named))
    assert set(named) <= set(X86_64.numbers)
    assert len(set(machine.numbers.values())) == len(machine.numbers)
    assert all(0 <= i.if_true <= 255 and 0 <= i.if_false <= 255 for i in PROGRAMS[machine.name])
    assert len(PROGRAMS[machine.name]) < 4096  # BPF_MAXINSNS


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_another_architecture_is_killed(machine: Architecture) -> None:
    other = AARCH64 if machine is X86_64 else X86_64
    for audit in (other.audit, 0x40000003, 0):  # AUDIT_ARCH_I386
        assert run_stack(machine, machine.numbers["read"], audit) == RET_KILL_PROCESS


def test_the_other_abi_of_x86_is_killed() -> None:
    for number in (0x40000000, 0x40000000 + 39, 0xFFFFFFFF):
        assert run_stack(X86_64, number, X86_64.audit) == RET_KILL_PROCESS


CLONE_THREAD_FLAGS = 0x3D0F00  # what glibc's pthread_create passes
RULED = [
    ("clone", (CLONE_THREAD_FLAGS,), True),
    ("clone", (17,), False),  # fork: SIGCHLD
    ("clone", (0x4111,), False),  # vfork
    ("clone", (CLONE_THREAD_FLAGS | 0x10000000,), False),
    ("clone", (CLONE_THREAD_FLAGS | 0x80,), False),
    ("kill", (PID, 15), True),
    ("kill", (PID, 0), True),
    ("kill", (PID, 9), False),
    ("kill", (PID, 19), False),
    ("kill", (PID | 1 << 32, 15), True),  # the kernel reads 32 bits
    ("kill", (PID + 1, 15), False),
    ("kill", (0, 15), False),
    ("kill", (-1, 15), False),
    ("kill", (-PID, 15), False),
    ("tgkill", (PID, 5, 6), True),
    ("tgkill", (PID, 5, 9), False),
    ("tgkill", (1, 5, 6), False),
    ("fcntl", (1, 3), True),
    ("fcntl", (1, 1030), True),
    ("fcntl", (1, 8), False),
    ("fcntl", (1, 10), False),
    ("fcntl", (1, 15), False),
    ("fcntl", (1, 1024), False),
    ("prctl", (15,), True),
    ("prctl", (1,), False),
    ("prctl", (4,), False),
    ("prctl", (38,), False),
    ("prlimit64", (0, 9, 0), True),
    ("prlimit64", (0, 9, 4096), False),
    ("prlimit64", (0, 9, 1 << 32), False),
    ("sendto", (3, 4096, 1, 0, 0), True),
    ("sendto", (3, 4096, 1, 0, 1 << 40), False),
    ("sendto", (3, 4096, 1, 0, 8), False),
    ("socketpair", (1, 1), True),
    ("socketpair", (2, 1), False),
    ("openat", (-100, 4096, 0), True),
    ("openat", (-100, 4096, 0o1101), True),
    ("openat", (-100, 4096, 0o1000), False),
    ("openat", (-100, 4096, 0o1102), True),
]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
@pytest.mark.parametrize(("name", "args", "allowed"), RULED)
def test_rules(machine: Architecture, name: str, args: tuple[int, ...], allowed: bool) -> None:
    assert decide(machine, name, *args) == (RET_ALLOW if allowed else EPERM)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_terminals_are_no_terminals(machine: Architecture) -> None:
    assert decide(machine, "ioctl", 1, 0x5401) == RET_ALLOW
    assert decide(machine, "ioctl", 1, 0x5412) == RET_ERRNO | errno.ENOTTY  # TIOCSTI


@given(number=st.integers(1, 1 << 30))
def test_the_pid_is_put_in_once_for_each_rule(number: int) -> None:
    raw = packed(assemble(program_policy(), X86_64))
    values = [instruction.value for instruction in unpacked(seccomp.with_pid(raw, number))]
    before = [instruction.value for instruction in unpacked(raw)]
    assert before.count(OWN_PID) == 2
    assert values == [number if value == OWN_PID else value for value in before]


def holds(condition: Condition, args: list[int]) -> bool:
    low = args[condition.argument] & 0xFFFFFFFF
    match condition:
        case OneOf(values=values):
            return low in values
        case NoneOf(values=values):
            return low not in values
        case AnyBit(mask=mask):
            return low & mask != 0
        case NoBit(mask=mask):
            return low & mask == 0
        case Null(argument=argument):
            return args[argument] == 0


SMALL = st.integers(0, 7)
CONDITIONS = st.one_of(
    st.builds(OneOf, st.integers(0, 5), st.lists(SMALL, min_size=1, max_size=5).map(tuple)),
    st.builds(NoneOf, st.integers(0, 5), st.lists(SMALL, min_size=1, max_size=5).map(tuple)),
    st.builds(AnyBit, st.integers(0, 5), SMALL),
    st.builds(NoBit, st.integers(0, 5), SMALL),
    st.builds(Null, st.integers(0, 5)),
)
RULES = st.lists(st.lists(CONDITIONS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=4).map(tuple)


@given(rule=RULES, args=st.lists(st.one_of(SMALL, WIDE), min_size=6, max_size=6))
def test_any_rule_is_what_it_says(rule: tuple[tuple[Condition, ...], ...], args: list[int]) -> None:
    policy = Policy(allowed=frozenset(), ruled={"kill": Rule(rule, errno.EPERM)}, refused={}, otherwise=None)
    expected = any(all(holds(condition, args) for condition in alternative) for alternative in rule)
    result = run(assemble(policy, X86_64), X86_64.numbers["kill"], X86_64.audit, args)
    assert result == (RET_ALLOW if expected else EPERM)
    assert run(assemble(policy, X86_64), 0, X86_64.audit, args) == RET_ALLOW


def test_machines_by_name() -> None:
    assert architecture("x86_64") is X86_64
    assert architecture("arm64") is AARCH64
    assert architecture("riscv64") is None


@pytest.mark.skipif(not Path("/usr/include/asm-generic/unistd.h").exists(), reason="no kernel headers here")
def test_numbers_are_those_of_the_kernels_headers() -> None:
    import re

    generic = Path("/usr/include/asm-generic/unistd.h").read_text()
    numbers = {name: int(value) for name, value in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", generic)}
    names = {"newfstatat": "fstatat"}
    assert {name: numbers[names.get(name, name)] for name in AARCH64.numbers} == AARCH64.numbers


@given(name=st.sampled_from(sorted(X86_64.numbers)), args=st.tuples(*[st.one_of(st.integers(0, 64), WIDE)] * 6))
@settings(max_examples=500)
def test_two_filters_come_to_the_policy_of_programs(name: str, args: tuple[int, ...]) -> None:
    for machine in MACHINES:
        if name in machine.numbers:
            decide(machine, name, *args)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_a_zygote_may_fork_and_kill_but_start_no_program(machine: Architecture) -> None:
    def own(name: str, *args: int) -> int:
        return run(STACKS[machine.name][0], machine.numbers[name], machine.audit, args)

    assert own("clone", 17) == own("kill", 5, 9) == own("recvmsg") == RET_ALLOW
    assert own("clone", 17 | 0x10000000) == own("execve") == own("socket", 2) == own("ptrace") == EPERM
