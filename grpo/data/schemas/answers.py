"""Sets whose answers can be checked: GSM8K, and the tasks that Reasoning Gym generates."""

from __future__ import annotations

import re

from grpo.config import DataConfig
from grpo.data.fields import Row, content_id, describe, identifier, required_text
from grpo.data.schemas.common import MATH, REASONING, make_task, with_answer
from grpo.errors import DataError
from grpo.records import Task

_FINAL = re.compile(r"####\s*(-?[\d,.]*\d)\s*$")


def gsm8k_task(row: Row, config: DataConfig) -> Task:
    """Read a row of GSM8K: question, answer. The known answer is the number after ``####``, without commas.

    Source: Cobbe et al. 2021, https://arxiv.org/abs/2110.14168.

    Raises:
        DataError: as `keel_task`; the answer does not end in ``#### number``.
    """
    question, worked = required_text(row, "question").strip(), required_text(row, "answer")
    final = _FINAL.search(worked)
    if final is None:
        raise DataError(f"field 'answer': expected to end in '#### number', found {describe(worked[-40:])}")
    return make_task(
        config,
        task_id=content_id("gsm8k", question, worked),
        prompt=question,
        reference=with_answer(final[1].replace(",", "")),
        domain=MATH,
    )


def reasoning_gym_task(row: Row, config: DataConfig) -> Task:
    """Read an entry that Reasoning Gym generated: question, answer, metadata; dataset and id added when read.

    The reference has the whole entry, since many kinds accept more than one answer and are scored by their own code.

    Source: Stojanovski et al. 2025, https://arxiv.org/abs/2505.24760.

    Raises:
        DataError: as `keel_task`.
    """
    entry = {name: row.get(name) for name in ("question", "answer", "metadata")}
    return make_task(
        config,
        task_id=identifier(row, "id"),
        prompt=required_text(row, "question"),
        reference={"reasoning_gym": {"dataset": required_text(row, "dataset"), "entry": entry}},
        domain=REASONING,
    )
