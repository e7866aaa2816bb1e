"""Runs the attacks in a process that is confined first, as a container or another user would be. A script.

Arguments: settings as JSON (uid, container, without, rounds, directory). Prints JSON: layers, and what became of each.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[4]), str(Path(__file__).parent)]

from attacks import Attack, read_attacks  # noqa: E402

from rewards.sandbox.kernel import identity, libc, seccomp  # noqa: E402
from rewards.sandbox.kernel.bpf import NoBit, Policy, Rule, assemble, packed  # noqa: E402
from rewards.sandbox.kernel.syscalls import architecture  # noqa: E402
from rewards.sandbox.pool import Sandbox  # noqa: E402
from rewards.sandbox.program import Limits  # noqa: E402
from rewards.sandbox.survey import Layer  # noqa: E402

#: moby/profiles/seccomp: what a container without added capabilities is refused, as far as a sandbox would want it.
_REFUSED = """
unshare setns mount umount2 pivot_root mount_setattr open_tree move_mount fsopen fsconfig fsmount fspick bpf keyctl
add_key request_key userfaultfd perf_event_open open_by_handle_at io_uring_setup io_uring_enter io_uring_register
"""
_CONTAINER_CAPABILITIES = 0xA80425FB  #: Docker's default set
_PR_CAPBSET_DROP = 24
LIMITS = Limits(cpu_time_s=0.4, wall_time_s=2.5, memory_bytes=256 << 20, tmp_bytes=8 << 20)


def enter_container() -> None:
    """Docker's default profile and capabilities."""
    machine = architecture()
    assert machine is not None
    policy = Policy(
        allowed=frozenset(),
        ruled={"clone": Rule(((NoBit(0, 0x7E020000),),), errno.EPERM)},
        refused={**dict.fromkeys(_REFUSED.split(), errno.EPERM), "clone3": errno.ENOSYS},
        otherwise=None,
    )
    if os.geteuid() != 0:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(packed(assemble(policy, machine)))
    if os.geteuid() == 0:
        for capability in range(41):
            if not _CONTAINER_CAPABILITIES >> capability & 1:
                libc.prctl(_PR_CAPBSET_DROP, capability)
        identity.set_capabilities(_CONTAINER_CAPABILITIES & identity.permitted_capabilities())


def attack(sandbox: Sandbox, hostile: Attack, limits: Limits) -> dict[str, Any]:
    """Run one attack: name, kind, message, output, seconds."""
    start = time.monotonic()
    result = sandbox.run(hostile.program(limits))
    return {
        "name": hostile.name,
        "kind": result.kind.value,
        "message": result.message,
        "output": result.output[:2000],
        "seconds": time.monotonic() - start,
    }


def attack_all(sandbox: Sandbox, rounds: int = 1) -> list[dict[str, Any]]:
    """Run all attacks, two at a time."""
    limits = LIMITS if rounds == 1 else replace(LIMITS, cpu_time_s=0.2, wall_time_s=0.8)
    with ThreadPoolExecutor(2) as callers:
        return list(callers.map(lambda hostile: attack(sandbox, hostile, limits), read_attacks() * rounds))


def main() -> None:
    """See above."""
    settings = json.loads(sys.argv[1])
    os.chdir("/")
    if settings["container"]:
        enter_container()
    if settings["uid"] is not None:
        uid = settings["uid"]
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    tempfile.tempdir = settings["directory"]
    with Sandbox(2, without=[Layer(name) for name in settings["without"]]) as sandbox:
        layers = [state.layer.value for state in sandbox.survey.layers if state.in_force]
        outcomes = attack_all(sandbox, settings["rounds"])
        fine = sandbox.survey.missing() == []
    left = os.listdir(settings["directory"])
    users = range(60000, 65000) if settings["uid"] is None else [settings["uid"]]  # others use shared memory too
    shared = [path.name for path in Path("/dev/shm").iterdir() if path.lstat().st_uid in users]
    try:
        os.waitpid(-1, os.WNOHANG)
        children = True
    except ChildProcessError:
        children = False
    print(
        json.dumps(
            {"layers": layers, "fine": fine, "outcomes": outcomes, "left": left, "shared": shared, "children": children}
        )
    )


if __name__ == "__main__":
    main()
