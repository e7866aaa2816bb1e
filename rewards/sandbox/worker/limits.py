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


def limit(cpu_time_s: float, memory_bytes: int, file_bytes: int, num_tasks: int | None) -> None:
    """Limit this process for good. Raises OSError or ValueError.

    Args:
        cpu_time_s: a second beyond this the kernel ends the process, should its zygote not have done so.
        memory_bytes: address space, all in all.
        num_tasks: processes and threads of this user; None leaves that as it is.
    """
    seconds = math.ceil(cpu_time_s) + 1
    wanted = {
        resource.RLIMIT_AS: (memory_bytes, memory_bytes),
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_FSIZE: (file_bytes, file_bytes),
        resource.RLIMIT_NOFILE: (_NUM_DESCRIPTORS, _NUM_DESCRIPTORS),
        resource.RLIMIT_STACK: (_STACK_BYTES, _STACK_BYTES),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
    }
    if num_tasks is not None:
        wanted[resource.RLIMIT_NPROC] = (num_tasks, num_tasks)
    for kind, (soft, hard) in wanted.items():
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:  # raising a hard limit needs privileges
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))
