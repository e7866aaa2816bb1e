"""From `data.path` to rows, whatever kind of source it names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from grpo.config import DataConfig
from grpo.data.files import SUFFIXES, Located, read_path
from grpo.data.generated import GENERATED, generate_rows
from grpo.data.hub import read_hub
from grpo.errors import DataError

_BUILTIN = "builtin:"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def open_rows(config: DataConfig) -> Iterator[Located]:
    """Rows of a source in its order, each with its place; a line that can't be read as the `DataError` that says why.

    Raises:
        DataError: the source is missing or unreadable.
    """
    try:
        if config.path.startswith(GENERATED):
            yield from generate_rows(config)
        elif path := local_path(config):
            yield from read_path(path, config.split)
        else:
            yield from read_hub(config)
    except OSError as error:  # no permission, a failing disk
        raise unreadable(config, error) from error


def local_path(config: DataConfig) -> Path | None:
    """The file or directory that `data.path` names; None for a dataset on the hub.

    Raises:
        DataError: it can be neither.
    """
    if config.path.startswith(_BUILTIN):
        return _builtin(config.path.removeprefix(_BUILTIN))
    path = Path(config.path).expanduser()
    if path.exists():
        return path
    local = config.path.endswith(SUFFIXES) or config.path.startswith((".", "/", "~"))
    if local or not _HUB_ID.fullmatch(config.path):
        raise DataError(f"data.path={config.path!r}: no such file or directory{_near(path)}")
    return None


def unreadable(config: DataConfig, error: OSError) -> DataError:
    """What to say when the system refuses to read."""
    return DataError(f"data.path={config.path!r}: can't be read ({error})")


def _builtin(name: str) -> Path:
    folder = Path(str(resources.files("grpo.data"))) / "builtin"
    names = sorted(file.stem for file in folder.glob("*.jsonl"))
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {_BUILTIN}{close[0]}?" if close else f"there is {', '.join(_BUILTIN + n for n in names)}"
        raise DataError(f"data.path='{_BUILTIN}{name}': no built-in set of that name; {hint}")
    return folder / f"{name}.jsonl"


def _near(path: Path) -> str:
    """Where a missing path was looked for and what there is instead, as the end of a sentence."""
    resolved = path.absolute()
    parent = resolved.parent
    if not parent.is_dir():
        missing = next(p for p in reversed(resolved.parents) if not p.is_dir())
        return f" (looked for {resolved}; its directory {missing} does not exist)"
    close = difflib.get_close_matches(resolved.name, [entry.name for entry in parent.iterdir()], n=3)
    return f" (looked for {resolved}{'; there is ' + ', '.join(close) if close else ''})"
