"""Sets whose tests are a whole file that imports the program: KodCode and Exercism."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import cast

from grpo.config import DataConfig
from grpo.data.fields import Row, identifier, optional_text, required_text
from grpo.data.schemas.common import CODE, fenced, make_task
from grpo.errors import DataError
from grpo.records import Task


def kodcode_task(row: Row, config: DataConfig) -> Task:
    """Read a row of KodCode-V1: question_id, question, test (a pytest file), test_info.

    `test_info` tells the function that the tests import, and its first line. The questions mostly name it, not always,
    so that the line is added where the question has it nowhere.

    Source: Xu et al. 2025, https://arxiv.org/abs/2503.02951.

    Raises:
        DataError: as `keel_task`.
    """
    question, test = required_text(row, "question").strip(), required_text(row, "test")
    name, declaration = _function(row)
    if name and not re.search(rf"\b{re.escape(name)}\b", question):
        question = f"{question}\n\nUse this signature: `{declaration or name}`"
    return make_task(
        config,
        task_id=identifier(row, "question_id"),
        prompt=question,
        reference={"form": "test_file", "test": test, "module": "solution", "entry_point": name},
        domain=CODE,
        signature=declaration,
    )


def exercism_task(row: Row, config: DataConfig) -> Task:
    """Read an exercise of Exercism's Python track: slug, instructions, stub_file, stub, test (a unittest file).

    The tests import the program by the stub's file name.

    Source: https://github.com/exercism/python (MIT).

    Raises:
        DataError: as `keel_task`; the stub's file is no Python file.
    """
    instructions, stub = required_text(row, "instructions"), optional_text(row, "stub") or ""
    file = PurePath(required_text(row, "stub_file"))
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise DataError(f"field 'stub_file': {file.name!r} is not the name of a Python module")
    starter = f"\n\nStart from this code:\n\n{fenced(stub)}" if stub.strip() else ""
    return make_task(
        config,
        task_id=f"exercism-{identifier(row, 'slug')}",
        prompt=instructions.strip() + starter,
        reference={
            "form": "test_file",
            "test": required_text(row, "test"),
            "module": file.stem,
            "entry_point": None,
        },
        domain=CODE,
    )


def _function(row: Row) -> tuple[str | None, str | None]:
    """Name and first line of the tested function; None where `test_info` does not tell, or tells of several."""
    infos = row.get("test_info")
    if infos is None:
        return None, None
    if not isinstance(infos, list) or not all(isinstance(info, Mapping) for info in cast("list[object]", infos)):
        raise DataError("field 'test_info': expected a list of objects")
    if len(cast("list[object]", infos)) != 1:
        return None, None
    info = cast("list[Row]", infos)[0]
    declaration = optional_text(info, "function_declaration")
    return optional_text(info, "function_name"), declaration.strip() if declaration and declaration.strip() else None
