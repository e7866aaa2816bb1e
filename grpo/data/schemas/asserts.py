"""Sets whose tests are single statements: MBPP and AceCode."""

from __future__ import annotations

from grpo.config import DataConfig
from grpo.data.fields import Row, identifier, optional_text, required_text, strings
from grpo.data.functions import called_function, signature_of
from grpo.data.schemas.common import CODE, asserts, make_task
from grpo.records import Task


def mbpp_task(row: Row, config: DataConfig) -> Task:
    """Read a row of MBPP, in its full layout (text, test_setup_code) or the sanitized one (prompt, test_imports).

    MBPP's tests fix a function's name that its sentence does not tell, so the prompt adds the signature, taken from
    the reference code; where no function of the code is called by the tests, it adds the first test instead.
    `challenge_test_list` is left out, as in MBPP's own evaluation.

    Source: Austin et al. 2021, https://arxiv.org/abs/2108.07732.

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
    return make_task(
        config,
        task_id=f"mbpp-{identifier(row, 'task_id')}",
        prompt=f"{sentence}\n{hint}",
        reference=asserts(
            tests,
            setup="\n".join(part.replace("\r\n", "\n") for part in setup if part.strip()),
            entry_point=entry_point,
        ),
        domain=CODE,
        signature=signature,
    )


def acecode_task(row: Row, config: DataConfig) -> Task:
    """Read a row of AceCode-87K: id, question, test_cases. The entry point is what the first test calls.

    Source: Zeng et al. 2025, https://arxiv.org/abs/2502.01718.

    Raises:
        DataError: as `keel_task`; always for `data.prefill=signature`, since the set has no signatures.
    """
    tests = strings(row, "test_cases")
    return make_task(
        config,
        task_id=identifier(row, "id"),
        prompt=required_text(row, "question"),
        reference=asserts(tests, entry_point=called_function(tests)),
        domain=CODE,
    )
