"""Removal of directories that hostile code may have filled."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove `path` and what is in it, as far as possible; a path that is gone already is fine."""
    try:
        path.rmdir()  # nearly every program leaves its directory empty
        return
    except FileNotFoundError:
        return
    except OSError:
        pass
    with contextlib.suppress(RecursionError):  # a thousand nested directories
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        # Nested too deep, or closed to ourselves by the program.
        subprocess.run(["chmod", "-R", "u+rwx", path], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["rm", "-rf", path], stderr=subprocess.DEVNULL, check=False)
