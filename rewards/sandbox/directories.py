"""Removal of directories that hostile code may have filled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any


def remove_tree(path: str) -> None:
    """Remove `path` and what is in it, as far as possible; a path that is gone already is fine."""
    try:
        os.rmdir(path)  # nearly every program leaves its directory empty
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(path, onerror=_open_and_retry)


def _open_and_retry(function: Callable[..., Any], path: str, _: object) -> None:
    """Give ourselves the permissions that the program took away, once."""
    try:
        os.chmod(os.path.dirname(path), 0o700)
        if not os.path.islink(path):
            os.chmod(path, 0o700)
        if function in (os.unlink, os.rmdir):
            function(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass  # it stays until the pool closes; a full disk shows up elsewhere
