"""One function per row schema: a row of a data source in, a `Task` out.

All of them raise `DataError` naming the field; whoever read the row adds the file and the line. The schemas are
documented in docs/data.md.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from grpo.config import DataConfig, DataSchema, Prefill
from grpo.data.fields import Row, identifier, optional_integer, optional_text, required_text, strings
from grpo.data.functions import called_function, signature_of
from grpo.errors import DataError
from grpo.records import Task


def keel_task(row: Row, config: DataConfig) -> Task:
    """Read Keel's own schema: id, prompt, tests; optional level, entry_point, signature, setup, solution, domain.

    Raises:
        DataError: a field is missing or of the wrong type, or `data.prefill=signature` has no signature.
    """
    level_of(row)
    optional_text(row, "solution")
    signature = optional_text(row, "signature")
    if signature is not None and not _is_signature(signature):
        raise DataError(f"field 'signature': {signature!r} is not the first line of a function, 'def name(...):'")
    return _code_task(
        task_id=identifier(row, "id"),
        prompt=required_text(row, "prompt"),
        tests=strings(row, "tests"),
        setup=optional_text(row, "setup") or "",
        entry_point=optional_text(row, "entry_point"),
        signature=signature,
        domain=optional_text(row, "domain") or config.domain,
        prefill=config.prefill,
    )


def mbpp_task(row: Row, config: DataConfig) -> Task:
    """Read a row of MBPP, in its full layout (text, test_setup_code) or the sanitized one (prompt, test_imports).

    MBPP's tests fix a function's name that its sentence does not tell, so the prompt adds the signature, taken from
    the reference code; where no function of the code is called by the tests, it adds the first test instead.
    `challenge_test_list` is left out, as in MBPP's own evaluation.

    Raises:
        DataError: as `keel_task`.
    """
    sentence = required_text(row, "prompt" if "text" not in row and "prompt" in row else "text").strip()
    code = required_text(row, "code").replace("\r\n", "\n")
    tests = strings(row, "test_list")
    setup = [*strings(row, "test_imports", optional=True), optional_text(row, "test_setup_code") or ""]
    entry_point = called_function(tests, code)
    signature = signature_of(code, entry_point) if entry_point else None
    hint = f"Use this signature: `{signature}`" if signature else f"Your code must pass this test: `{tests[0]}`"
    return _code_task(
        task_id=f"mbpp-{identifier(row, 'task_id')}",
        prompt=f"{sentence}\n{hint}",
        tests=tests,
        setup="\n".join(part.replace("\r\n", "\n") for part in setup if part.strip()),
        entry_point=entry_point,
        signature=signature,
        domain=config.domain,
        prefill=config.prefill,
    )


def acecode_task(row: Row, config: DataConfig) -> Task:
    """Read a row of AceCode-87K: id, question, test_cases. The entry point is what the first test calls.

    Raises:
        DataError: as `keel_task`; always for `data.prefill=signature`, since the set has no signatures.
    """
    tests = strings(row, "test_cases")
    return _code_task(
        task_id=identifier(row, "id"),
        prompt=required_text(row, "question"),
        tests=tests,
        setup="",
        entry_point=called_function(tests),
        signature=None,
        domain=config.domain,
        prefill=config.prefill,
    )


READERS: Mapping[DataSchema, Callable[[Row, DataConfig], Task]] = {
    DataSchema.keel: keel_task,
    DataSchema.mbpp: mbpp_task,
    DataSchema.acecode: acecode_task,
}


def level_of(row: Row) -> int | None:
    """Difficulty of a row of the keel schema, 1 for the easiest; None where the row tells none."""
    return optional_integer(row, "level")


def prefill_text(prefill: Prefill, signature: str | None) -> str:
    """What the assistant's turn starts with.

    The signature ends without a newline: a tokenizer merges the newline with the indent that follows, and a model that
    finds the newline already there has to go on with a token it never saw in that place. Measured on a 135M model:
    26% of samples pass without it, 0.8% with it.

    Raises:
        DataError: `prefill` is signature and there is none.
    """
    if prefill is Prefill.none:
        return ""
    if prefill is Prefill.fence:
        return "```python\n"
    if signature is None:
        raise DataError("the task has no signature to start the answer with. Set data.prefill=fence")
    return "```python\n" + signature.rstrip()


def _code_task(
    *,
    task_id: str,
    prompt: str,
    tests: tuple[str, ...],
    setup: str,
    entry_point: str | None,
    signature: str | None,
    domain: str,
    prefill: Prefill,
) -> Task:
    return Task(
        task_id=task_id,
        domain=domain,
        messages=(("user", prompt),),
        prefill=prefill_text(prefill, signature),
        reference={"tests": tests, "setup": setup, "entry_point": entry_point},
    )


def _is_signature(text: str) -> bool:
    try:
        return isinstance(ast.parse(text.rstrip() + " pass").body[-1], ast.FunctionDef | ast.AsyncFunctionDef)
    except (SyntaxError, ValueError):
        return False
