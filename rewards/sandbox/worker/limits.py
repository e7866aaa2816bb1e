"""Resource limits of judge and guest."""

from __future__ import annotations

import math
import resource

from rewards.sandbox.program import Limits

JUDGE_MEMORY_BYTES = 1 << 30
_NUM_DESCRIPTORS = 64
_STACK_BYTES = 8 << 20


def judge_cpu_time_s(limits: Limits) -> float:
    """What the tests themselves may compute. A hostile value, such as a set of colliding numbers, can use it up."""
    return 2.0 * limits.cpu_time_s + 3.0


def limit_for_good() -> None:
    """The limits that a zygote shares with its judges and guests. Raises OSError."""
    shared = {resource.RLIMIT_NOFILE: _NUM_DESCRIPTORS, resource.RLIMIT_STACK: _STACK_BYTES}
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        shared[kind] = 0
    for kind, value in shared.items():
        _set(kind, value, value)


def limit(cpu_time_s: float, memory_bytes: int, file_bytes: int, num_tasks: int | None) -> None:
    """Limit this process for good. Raises OSError or ValueError.

    Args:
        cpu_time_s: a second beyond this the kernel ends the process, should its zygote not have done so.
        memory_bytes: address space, all in all.
        num_tasks: processes and threads of this user; None leaves that as it is.
    """
    seconds = math.ceil(cpu_time_s) + 1
    _set(resource.RLIMIT_AS, memory_bytes, memory_bytes)
    _set(resource.RLIMIT_CPU, seconds, seconds + 1)
    _set(resource.RLIMIT_FSIZE, file_bytes, file_bytes)
    if num_tasks is not None:
        _set(resource.RLIMIT_NPROC, num_tasks, num_tasks)


def _set(kind: int, soft: int, hard: int) -> None:
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:  # raising a hard limit needs privileges
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))
