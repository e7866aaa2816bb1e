"""From `DataConfig` to tasks: each row read, checked and filtered."""

from __future__ import annotations

import hashlib
from typing import cast

from grpo.config import DataConfig, DataSchema
from grpo.data.fields import LeftOut, Row, at, describe, renamed
from grpo.data.files import Located
from grpo.data.generated import GENERATED
from grpo.data.rows import open_rows
from grpo.data.schemas import READERS
from grpo.data.schemas.keel import level_of
from grpo.data.tally import LoadReport, Tally, require_row
from grpo.errors import DataError
from grpo.records import Task


def load_tasks(config: DataConfig) -> list[Task]:
    """The tasks of `read_tasks` alone."""
    return read_tasks(config)[0]


def read_tasks(config: DataConfig) -> tuple[list[Task], LoadReport]:
    """Tasks of one source, in its order, after all filters, and what became of its rows.

    Reading stops when `data.limit` is reached. A malformed row is one that lacks a field, has one of the wrong type, or
    repeats an id; it is counted and left out.

    Raises:
        DataError: the source is missing, unreadable or empty; the share of malformed rows is above
            `data.max_malformed_share` (with the first of them, by file and line, or row index from 0); no task is left.
    """
    check_source(config)
    tally = Tally(config)
    tasks: list[Task] = []
    for located in open_rows(config):
        if (task := count_row(located, config, tally)) is not None:
            tasks.append(task)
        if len(tasks) == config.limit:
            break
    tally.finish()
    return tasks, tally.report()


def check_source(config: DataConfig) -> None:
    """Raise DataError for keys that don't go with the source's kind, before anything is read."""
    if config.max_level is not None and config.schema is not DataSchema.keel:
        raise DataError(f"data.max_level={config.max_level}: schema {config.schema.value} has no levels, only keel has")
    is_generated = config.path.startswith(GENERATED)
    if is_generated != (config.schema is DataSchema.reasoning_gym):
        raise DataError(
            f"data.path={config.path!r}: {GENERATED}NAME and data.schema=reasoning_gym go together, and the schema is "
            f"{config.schema.value}"
        )


def count_row(located: Located, config: DataConfig, tally: Tally) -> Task | None:
    """The task of a row, counted; None where there is none. Raises DataError where `tally` has had enough."""
    where, row = located
    with tally.row(where):
        task = _read_row(require_row(row), config)
        tally.claim(task.task_id, where)
        return task
    return None


def _read_row(row: Row, config: DataConfig) -> Task:
    _check_filters(row, config)
    row = renamed(row, config.fields)
    task = READERS[config.schema](row, config)
    if config.max_level is not None:
        level = level_of(row)
        if level is None:
            raise DataError("missing field 'level', which data.max_level selects by")
        if level > config.max_level:
            raise LeftOut(f"above data.max_level={config.max_level}")
    if config.held_out_share and is_held_out(task.task_id, config.held_out_share) != config.held_out:
        raise LeftOut("not held out" if config.held_out else f"held out, data.held_out_share={config.held_out_share}")
    return task


def _check_filters(row: Row, config: DataConfig) -> None:
    """Raise LeftOut for a row of which a field has none of the accepted values. Lists pass by any of their values."""
    for name, accepted in config.filters.items():
        value = at(row, name)
        if value is None:
            raise DataError(f"missing field {name!r}, which data.filters selects by")
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        if not any(_as_text(item) in accepted for item in values):
            raise LeftOut(f"data.filters.{name}")


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()  # as YAML writes it
    if not isinstance(value, str | int | float):
        raise DataError(f"a filter can't compare {describe(value)}")
    return str(value)


def is_held_out(task_id: str, share: float) -> bool:
    """Whether a task is among the `share` that is held out: a hash of its id decides, so that order and size do not."""
    digest = hashlib.sha256(f"held out:{task_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
