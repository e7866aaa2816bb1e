"""Sets whose tests define `check(candidate)`: HumanEval and LeetCodeDataset."""

from __future__ import annotations

from grpo.config import DataConfig
from grpo.data.fields import Row, identifier, optional_text, required_text
from grpo.data.functions import before_function, is_python, signature_of
from grpo.data.schemas.common import CODE, fenced, make_task
from grpo.records import Task


def humaneval_task(row: Row, config: DataConfig) -> Task:
    """Read a row of HumanEval: task_id, prompt, test, entry_point.

    HumanEval's prompt is the beginning of a program, to be continued; asked of a chat model, it is shown in a fence
    and the whole function is asked for. What comes before that function (imports, helpers) is the preamble.

    Source: Chen et al. 2021, https://arxiv.org/abs/2107.03374.

    Raises:
        DataError: as `keel_task`.
    """
    program, entry_point = required_text(row, "prompt"), required_text(row, "entry_point")
    return make_task(
        config,
        task_id=identifier(row, "task_id"),
        prompt=f"Complete this Python function. Answer with the whole function.\n\n{fenced(program)}",
        reference=_check(required_text(row, "test"), entry_point, before_function(program, entry_point)),
        domain=CODE,
        signature=signature_of(program, entry_point),
    )


def leetcode_task(row: Row, config: DataConfig) -> Task:
    """Read a row of LeetCodeDataset: task_id, entry_point (such as `Solution().twoSum`), test, and the question.

    The question is `query`, else `problem_description`, else `prompt`; the starter code is added where the question
    does not show it. A `prompt` that is Python (the imports and node classes that LeetCode provides) is the preamble.

    Source: Xia et al. 2025, https://arxiv.org/abs/2504.14655.

    Raises:
        DataError: as `keel_task`.
    """
    preamble = optional_text(row, "prompt") or ""
    is_code = is_python(preamble)
    asked = optional_text(row, "query") or optional_text(row, "problem_description")
    question = asked or ("" if is_code else preamble) or required_text(row, "problem_description")
    starter = optional_text(row, "starter_code") or ""
    if starter.strip() and starter.strip() not in question:
        question = f"{question.strip()}\n\nUse this starter code:\n\n{fenced(starter)}"
    return make_task(
        config,
        task_id=identifier(row, "task_id"),
        prompt=question,
        reference=_check(
            required_text(row, "test"), required_text(row, "entry_point").strip(), preamble if is_code else ""
        ),
        domain=CODE,
    )


def _check(test: str, entry_point: str, preamble: str) -> dict[str, object]:
    return {"form": "check", "test": test, "entry_point": entry_point, "preamble": preamble}
