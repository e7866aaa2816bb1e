"""Which files a Python interpreter needs to run, and nothing else."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """This process's interpreter, as a zygote is to see it.

    Attributes:
        packages: directories of installed packages, without what .pth files add: an editable checkout stays unseen.
        readable: all paths that programs may read.
    """

    packages: tuple[str, ...]
    readable: tuple[str, ...]


def this_interpreter() -> Interpreter:
    """Real paths of what this interpreter consists of."""
    names = ("purelib", "platlib")
    packages = tuple(dict.fromkeys(os.path.realpath(sysconfig.get_path(name)) for name in names))
    own = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_config_var("LIBDIR")]
    own += [path for path in sys.path if path.endswith(("lib-dynload", ".zip"))]
    preloaded = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    real = [os.path.realpath(path) for path in [*own, *preloaded] if path]
    # The judge imports some of its own code late.
    own_code = os.path.dirname(os.path.realpath(__file__))
    # As they are, links included: the dynamic loader goes by these names.
    paths = dict.fromkeys([*_LIBRARIES, *real, *packages, own_code])
    return Interpreter(packages=packages, readable=tuple(path for path in paths if _is_shown(path)))


def _is_shown(path: str) -> bool:
    return os.path.exists(path) and os.path.realpath(path) != "/"
