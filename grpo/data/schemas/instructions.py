"""Plain instructions, with or without a written answer: the generic schema, Dolly, and both Magicoder sets."""

from __future__ import annotations

from grpo.config import DataConfig
from grpo.data.fields import Row, content_id, identifier, optional_text, required_text
from grpo.data.schemas.common import CODE, HELPFULNESS, make_task, with_answer
from grpo.records import Task


def instruction_task(row: Row, config: DataConfig) -> Task:
    """Read one instruction: instruction; optional input, output (a reference answer), id.

    These are Alpaca's names; `data.fields` reads sets with other ones, and reaches into nested fields.

    Raises:
        DataError: as `keel_task`.
    """
    return _instruction(row, config, "instruction", "input", "output", prefix="instruction", domain=HELPFULNESS)


def dolly_task(row: Row, config: DataConfig) -> Task:
    """Read a row of databricks-dolly-15k: instruction, context, response.

    Source: https://huggingface.co/datasets/databricks/databricks-dolly-15k (CC-BY-SA-3.0).

    Raises:
        DataError: as `keel_task`.
    """
    return _instruction(row, config, "instruction", "context", "response", prefix="dolly", domain=HELPFULNESS)


def magicoder_evol_task(row: Row, config: DataConfig) -> Task:
    """Read a row of Magicoder-Evol-Instruct-110K: instruction, response. There are no tests.

    Source: Wei et al. 2023, https://arxiv.org/abs/2312.02120.

    Raises:
        DataError: as `keel_task`.
    """
    return _instruction(row, config, "instruction", None, "response", prefix="magicoder-evol", domain=CODE)


def magicoder_oss_task(row: Row, config: DataConfig) -> Task:
    """Read a row of Magicoder-OSS-Instruct-75K: problem, solution, index. There are no tests; `lang` is for filters.

    Source: Wei et al. 2023, https://arxiv.org/abs/2312.02120.

    Raises:
        DataError: as `keel_task`.
    """
    named = {**row, "id": f"magicoder-oss-{row['index']}"} if isinstance(row.get("index"), int) else row
    return _instruction(named, config, "problem", None, "solution", prefix="magicoder-oss", domain=CODE)


def _instruction(
    row: Row, config: DataConfig, prompt: str, context: str | None, answer: str, *, prefix: str, domain: str
) -> Task:
    asked = required_text(row, prompt).strip()
    given = (optional_text(row, context) or "").strip() if context else ""
    written = (optional_text(row, answer) or "").strip()
    return make_task(
        config,
        task_id=identifier(row, "id") if row.get("id") is not None else content_id(prefix, asked, given, written),
        prompt=f"{asked}\n\n{given}" if given else asked,
        reference=with_answer(written),
        domain=domain,
    )
