"""Landlock: which files this process and its children may open, whoever they are.

Source: Linux Documentation/userspace-api/landlock.rst. Rights are withdrawn from everything the kernel's version
governs, then given back beneath the paths named.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterable

from rewards.sandbox.kernel.libc import syscall

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
_NUM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  #: by version; 16 from 5 on
_NET_TCP = 0b11  #: bind and connect, from version 4 on
_SCOPES = 0b11  #: abstract sockets and signals stay inside, from version 6 on


def version() -> int:
    """The kernel's Landlock version. Raises OSError where there is none."""
    return syscall("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)


def restrict(readable: Iterable[str], writable: Iterable[str]) -> int:
    """Confine this process for good. Needs no_new_privs. Returns the version; raises OSError.

    Nothing may be executed, not even beneath `readable`: mapping a library is not executing. Signals stay inside the
    domain made here. Judge and candidate share it: a scope between them would also stop the kernel from passing on
    a parent's death.
    """
    abi = version()
    governed = (1 << _NUM_RIGHTS.get(abi, 16)) - 1
    attribute = struct.pack("=QQQ", governed, _NET_TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = syscall("landlock_create_ruleset", attribute[:size], size, 0)
    try:
        for paths, rights in ((readable, _READ), (writable, _READ | _WRITE)):
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    _allow_beneath(ruleset, path, rights & governed)
        syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _allow_beneath(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_RIGHTS
        syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
