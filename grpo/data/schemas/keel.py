"""Keel's own schema."""

from __future__ import annotations

import ast
import difflib
from functools import lru_cache

from grpo.config import DataConfig
from grpo.data.fields import (
    Messages,
    Row,
    identifier,
    messages,
    optional_integer,
    optional_object,
    optional_text,
    required_text,
    strings,
)
from grpo.data.schemas.common import CODE, HELPFULNESS, REASONING, asserts, make_task, with_answer
from grpo.errors import DataError
from grpo.records import Task
from rewards.code_reference import MalformedReferenceError, read_tests

_OPTIONAL = ("messages", "tests", "answer", "reference", "level", "entry_point", "signature", "setup", "domain")


def keel_task(row: Row, config: DataConfig) -> Task:
    """Read Keel's own schema: id, and prompt or messages; what rewards need is optional.

    Unit tests (tests, setup, entry_point), a known answer (answer) and any further reference (reference, an object)
    may come together. The domain is the row's; else `data.domain`; else code with tests or any other `form` of them,
    reasoning with an answer, helpfulness with neither.

    Raises:
        DataError: a field is missing or of the wrong type, or `data.prefill=signature` has no signature.
    """
    if meant := _misspelt(tuple(row)):
        raise DataError(f"field {meant[0]!r}: did you mean {meant[1]!r}? Rename it, or map it with data.fields")
    level_of(row)
    optional_text(row, "solution")
    signature = optional_text(row, "signature")
    if signature is not None and not _is_signature(signature):
        raise DataError(f"field 'signature': {signature!r} is not the first line of a function, 'def name(...):'")
    reference = _reference(row)
    usual = CODE if "tests" in reference or "form" in reference else REASONING if reference else HELPFULNESS
    return make_task(
        config,
        task_id=identifier(row, "id"),
        prompt=_prompt(row),
        reference=reference,
        domain=usual,
        row_domain=optional_text(row, "domain"),
        signature=signature,
    )


def level_of(row: Row) -> int | None:
    """Difficulty of a row of the keel schema, 1 for the easiest; None where the row tells none."""
    return optional_integer(row, "level")


def _prompt(row: Row) -> str | Messages:
    if row.get("messages") is None:
        return required_text(row, "prompt")
    if row.get("prompt") is not None:
        raise DataError("fields 'prompt' and 'messages': a task has one of the two")
    return messages(row, "messages")


def _reference(row: Row) -> dict[str, object]:
    entry_point, setup = optional_text(row, "entry_point"), optional_text(row, "setup") or ""
    further = dict(optional_object(row, "reference") or {})
    tests = asserts(strings(row, "tests"), setup=setup, entry_point=entry_point) if row.get("tests") is not None else {}
    made = tests | with_answer(optional_text(row, "answer"))
    if twice := sorted(set(made) & set(further)):
        raise DataError(f"field 'reference': {twice[0]!r} is a field of the row too; give it once")
    if not further:
        return made
    try:
        read_tests(made | further)
    except MalformedReferenceError as error:
        raise DataError(f"field 'reference': {error}") from error
    return made | further


@lru_cache(maxsize=1024)  # the rows of a source have few different sets of fields
def _misspelt(names: tuple[str, ...]) -> tuple[str, str] | None:
    """An unknown field much like an optional one that is absent, and that one; it would be ignored without a word."""
    absent = [name for name in _OPTIONAL if name not in names]
    for name in names:
        if name not in _OPTIONAL and (near := difflib.get_close_matches(name, absent, n=1, cutoff=0.85)):
            return name, near[0]
    return None


def _is_signature(text: str) -> bool:
    try:
        return isinstance(ast.parse(text.rstrip() + " pass").body[-1], ast.FunctionDef | ast.AsyncFunctionDef)
    except (SyntaxError, ValueError):
        return False
