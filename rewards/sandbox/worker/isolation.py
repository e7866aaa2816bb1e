"""What a zygote gives up before the first program, once: namespaces, its user, files, capabilities.

Each layer is tried by itself and its failure recorded: a container forbids some and allows others. Whether what is in
force suffices is for the pool to decide.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from rewards.sandbox.kernel import identity, landlock, libc
from rewards.sandbox.kernel.root import SCRATCH, build_root
from rewards.sandbox.survey import Layer

_FIRST_UID, _NUM_UIDS = 60000, 5000
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


@dataclass(slots=True, kw_only=True)
class Isolation:
    """What came of it.

    Attributes:
        scratch: directory that programs may write to.
        layers: layer -> (in force, reason).
        owns_pids: this process is the first of its own pid namespace.
        own_tasks: RLIMIT_NPROC counts this zygote's tasks only.
    """

    base: str
    readable: list[str]
    tmp_bytes: int
    without: frozenset[str]
    scratch: str = ""
    layers: dict[str, tuple[bool, str]] = field(default_factory=dict[str, tuple[bool, str]])
    owns_pids: bool = False
    own_tasks: bool = False

    def attempt(self, layer: Layer, action: Callable[[], str | None]) -> bool:
        """Try one layer and record what came of it; `action` may return a remark."""
        if layer in self.without:
            self.layers[layer] = (False, "turned off")
            return False
        try:
            remark = action()
        except OSError as error:
            self.layers[layer] = (False, str(error))
            return False
        self.layers[layer] = (True, remark or "")
        return True


def isolate(isolation: Isolation) -> None:
    """Isolate this process. Returns in a child; the parent waits for that and never returns.

    Raises OSError where a half-isolated process would be left.
    """
    is_root = os.geteuid() == 0
    uid = _FIRST_UID + os.getpid() % _NUM_UIDS if is_root else os.geteuid()
    capabilities = identity.permitted_capabilities()
    _enter_user_namespace(isolation, is_root)
    _leave_to_child(isolation)
    _enter_namespaces(isolation, uid)
    if not isolation.scratch:
        isolation.scratch = os.path.join(isolation.base, "scratch")
        os.mkdir(isolation.scratch, 0o700)
        os.chown(isolation.scratch, uid, -1)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    in_force = libc.prctl(libc.PR_GET_NO_NEW_PRIVS) == 1
    isolation.layers[Layer.NO_NEW_PRIVILEGES] = (in_force, "")
    _become_nobody(isolation, is_root, uid, capabilities)
    isolation.attempt(Layer.FILE_ACCESS, lambda: _restrict_files(isolation))
    # What a test turns off stays off; what the kernel allows is taken.
    isolation.own_tasks = Layer.THREAD_COUNT not in isolation.without and (
        is_root or isolation.layers[Layer.USER_NAMESPACE][0]
    )
    reason = "" if isolation.own_tasks else "other processes of this user would be counted; memory bounds threads"
    isolation.layers[Layer.THREAD_COUNT] = (isolation.own_tasks, reason)


def _enter_user_namespace(isolation: Isolation, is_root: bool) -> None:
    if is_root:
        isolation.layers[Layer.USER_NAMESPACE] = (False, "not needed: started as root")
        return

    def enter() -> None:
        # Some systems allow the namespace and forbid what it is for: find out in a process that may be left like that.
        _in_child(lambda: (_map_user(), libc.unshare(libc.CLONE_NEWNS), _try_mount(isolation.base)))
        _map_user()

    isolation.attempt(Layer.USER_NAMESPACE, enter)


def _map_user() -> None:
    uid, gid = os.geteuid(), os.getegid()
    libc.unshare(libc.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _try_mount(base: str) -> None:
    libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("probe", base, "tmpfs", 0)


def _in_child(action: Callable[[], object]) -> None:
    """Run `action` in a child. Raises the OSError that it raised."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except OSError as error:
            os._exit(min(error.errno or 255, 254))
        finally:
            os._exit(255)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, f"user namespace of no use here: {os.strerror(code)}")


def _enter_namespaces(isolation: Isolation, uid: int) -> None:
    isolation.attempt(Layer.NETWORK_NAMESPACE, lambda: libc.unshare(libc.CLONE_NEWNET))
    isolation.attempt(Layer.IPC_NAMESPACE, lambda: libc.unshare(libc.CLONE_NEWIPC | libc.CLONE_NEWUTS))

    def own_root() -> None:
        libc.unshare(libc.CLONE_NEWNS)
        new_root = os.path.join(isolation.base, "root")
        os.mkdir(new_root)
        build_root(new_root, [*isolation.readable, *filter(os.path.exists, _DEVICES)], isolation.tmp_bytes, uid)

    if isolation.attempt(Layer.MOUNT_NAMESPACE, own_root):
        isolation.scratch = SCRATCH


def _leave_to_child(isolation: Isolation) -> None:
    """Fork, in a pid namespace of its own where that is allowed; go on in the child.

    The parent waits, in the old root and with the old rights, and removes the directory when the child is gone. In its
    namespace the child is process 1: its death ends everything in there.
    """
    isolation.owns_pids = isolation.attempt(Layer.PID_NAMESPACE, lambda: libc.unshare(libc.CLONE_NEWPID))
    pid = os.fork()
    if pid:
        os.closerange(3, 1 << 16)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the child finds the control socket at its end, and leaves
        _, status = os.waitpid(pid, 0)
        shutil.rmtree(isolation.base, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(isolation.base))  # the last one out, should the pool not have lived to do it
        os._exit(0 if status == 0 else 1)
    # Should the parent have died before this line: the control socket is at its end too.
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)


def _become_nobody(isolation: Isolation, is_root: bool, uid: int, capabilities: int) -> None:
    kept, remark = 0, ""
    if is_root and not _is_public(isolation.readable, with_parents=not isolation.layers[Layer.MOUNT_NAMESPACE][0]):
        for capability in (identity.CAP_DAC_READ_SEARCH, identity.CAP_DAC_OVERRIDE):
            if capabilities >> capability & 1 and not kept:
                kept = 1 << capability
                name = "CAP_DAC_READ_SEARCH" if capability == identity.CAP_DAC_READ_SEARCH else "CAP_DAC_OVERRIDE"
                remark = f"{name} kept: the interpreter lies in a directory that only root may read"
    if is_root:
        identity.become(uid, kept)
        isolation.layers[Layer.UNPRIVILEGED_USER] = (True, f"user {uid}")
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it
    else:
        identity.set_capabilities(0)
        isolation.layers[Layer.UNPRIVILEGED_USER] = (True, "that of the caller")
    # With the one kept, files are still what Landlock says.
    isolation.layers[Layer.NO_CAPABILITIES] = (kept == 0, remark)


def _is_public(paths: list[str], with_parents: bool) -> bool:
    """Whether any user may read all of `paths`."""
    for path in paths:
        chain = [path]
        while with_parents and chain[-1] != "/":
            chain.append(os.path.dirname(chain[-1]))
        if any(os.stat(part).st_mode & 0o5 != 0o5 for part in chain if os.path.isdir(part)):
            return False
    return True


def _restrict_files(isolation: Isolation) -> str:
    devices = [path for path in _DEVICES if os.path.exists(path)]
    # Everything beneath /dev/null is /dev/null.
    version = landlock.restrict([*isolation.readable, *devices], [isolation.scratch, "/dev/null"])
    return f"Landlock {version}"
