"""From `DataConfig` to tasks: find the source, read its rows, check and filter them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import cast

from grpo.config import DataConfig, DataSchema
from grpo.data.files import SUFFIXES, Located, read_path
from grpo.data.hub import read_hub
from grpo.data.schemas import READERS, Row, level_of
from grpo.errors import DataError
from grpo.records import Task

_BUILTIN = "builtin:"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_tasks(config: DataConfig) -> list[Task]:
    """Tasks of a data source, in its order, after `data.max_level` and `data.limit`.

    Reading stops at the first row that fails.

    Raises:
        DataError: the source is missing, unreadable or empty; a row is malformed, lacks a field or repeats an id (with
            file and line, or row index from 0); no task is left.
    """
    if config.max_level is not None and config.schema is not DataSchema.keel:
        raise DataError(f"data.max_level={config.max_level}: schema {config.schema.value} has no levels, only keel has")
    tasks: list[Task] = []
    seen: dict[str, str] = {}
    num_rows = 0
    for where, row in _readable_rows(config):
        num_rows += 1
        task, kept = _read_row(where, row, config)
        if task.task_id in seen:
            raise DataError(f"{where}: id {task.task_id!r} is taken already, at {seen[task.task_id]}")
        seen[task.task_id] = where
        if kept:
            tasks.append(task)
        if len(tasks) == config.limit:
            break
    if not num_rows:
        raise DataError(f"data.path={config.path!r}: it holds no rows")
    if not tasks:
        raise DataError(f"data.max_level={config.max_level}: none of {num_rows} tasks in {config.path} is that easy")
    return tasks


def _read_row(where: str, row: object, config: DataConfig) -> tuple[Task, bool]:
    """The task of a row, and whether it passes the filter by level."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with fields, found {type(row).__name__}")
    fields = cast(Row, row)
    try:
        task = READERS[config.schema](fields, config)
        if config.max_level is None:
            return task, True
        level = level_of(fields)
        if level is None:
            raise DataError("missing field 'level', which data.max_level selects by")
        return task, level <= config.max_level
    except DataError as error:
        raise DataError(f"{where}: {error}") from error.__cause__


def _readable_rows(config: DataConfig) -> Iterator[Located]:
    try:
        yield from _rows(config)
    except OSError as error:  # no permission, a failing disk
        raise DataError(f"data.path={config.path!r}: can't be read ({error})") from error


def _rows(config: DataConfig) -> Iterator[Located]:
    if config.path.startswith(_BUILTIN):
        return read_path(_builtin(config.path.removeprefix(_BUILTIN)), config.split)
    path = Path(config.path).expanduser()
    if path.exists():
        return read_path(path, config.split)
    local = config.path.endswith(SUFFIXES) or config.path.startswith((".", "/", "~"))
    if local or not _HUB_ID.fullmatch(config.path):
        raise DataError(f"data.path={config.path!r}: no such file or directory{_near(path)}")
    return read_hub(config)


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
