"""Prompts that are dialogues: RLHFlow's collection, and the prompts of HH-RLHF."""

from __future__ import annotations

from grpo.config import DataConfig
from grpo.data.fields import Row, content_id, identifier, messages, required_text
from grpo.data.schemas.common import HELPFULNESS, make_task, with_answer
from grpo.data.transcripts import parse_transcript, split_pair
from grpo.records import Task


def rlhflow_task(row: Row, config: DataConfig) -> Task:
    """Read a row of RLHFlow's prompt collection: context_messages, id; `dataset` is for filters.

    Source: Dong et al. 2024, https://arxiv.org/abs/2405.07863.

    Raises:
        DataError: as `keel_task`.
    """
    turns = messages(row, "context_messages")
    task_id = identifier(row, "id") if row.get("id") is not None else content_id("rlhflow", *(t for _, t in turns))
    return make_task(config, task_id=task_id, prompt=turns, reference={}, domain=HELPFULNESS)


def hh_task(row: Row, config: DataConfig) -> Task:
    """Read a pair of HH-RLHF as a prompt: the dialogue up to the last answer, with the chosen one as the reference.

    Source: Bai et al. 2022, https://arxiv.org/abs/2204.05862.

    Raises:
        DataError: as `keel_task`; a dialogue is malformed.
        LeftOut: the two dialogues differ before the last answer, or a message is empty.
    """
    texts = [required_text(row, name) for name in ("chosen", "rejected")]
    prompt, chosen, _ = split_pair(*(parse_transcript(text) for text in texts))
    return make_task(
        config,
        task_id=content_id("hh", *texts),
        prompt=prompt,
        reference=with_answer(chosen[-1][1]),
        domain=HELPFULNESS,
    )
