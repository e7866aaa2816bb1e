"""What the readers of all schemas share: from the parts of a task to a `Task`."""

from __future__ import annotations

from collections.abc import Mapping

from grpo.config import DataConfig, Prefill
from grpo.data.fields import Messages
from grpo.errors import DataError
from grpo.records import Task

#: Domains of tasks whose row and whose `data.domain` name none.
CODE, HELPFULNESS, MATH, REASONING = "code", "helpfulness", "math", "reasoning"


def make_task(
    config: DataConfig,
    *,
    task_id: str,
    prompt: str | Messages,
    reference: Mapping[str, object],
    domain: str,
    row_domain: str | None = None,
    signature: str | None = None,
) -> Task:
    """A task; `data.domain` and `data.prefill` applied.

    Args:
        prompt: the user's message, or a whole dialogue.
        domain: the schema's own, used unless `data.domain` says otherwise.
        row_domain: what the row itself says; it goes before both.

    Raises:
        DataError: `data.prefill=signature` and there is none.
    """
    return Task(
        task_id=task_id,
        domain=row_domain or config.domain or domain,
        messages=(("user", prompt),) if isinstance(prompt, str) else prompt,
        prefill=prefill_text(config.prefill, signature),
        reference=reference,
    )


def asserts(tests: tuple[str, ...], *, setup: str = "", entry_point: str | None = None) -> dict[str, object]:
    """Reference of a task with test statements, each run by itself. `form` is left out: it is the default."""
    return {"tests": tests, "setup": setup, "entry_point": entry_point}


def with_answer(answer: str | None) -> dict[str, object]:
    """Reference of a task with a known answer, or with nothing at all."""
    return {"answer": answer} if answer and answer.strip() else {}


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


def fenced(code: str) -> str:
    """Code in a Markdown fence, for a prompt."""
    return f"```python\n{code.strip()}\n```"
