"""Attempts with nothing but a prompt and an answer."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.base import Attempt
from tests.unit.rewards.reward_models.checkpoints import PROMPT


def attempts(
    answers: Sequence[str], prompt: tuple[tuple[str, str], ...] = PROMPT, **reference: object
) -> list[Attempt]:
    return [
        Attempt(
            prompt=prompt,
            prefill=answer[:1],
            completion=answer[1:],
            token_ids=(),
            reference=reference,
            finish_reason="stop",
            domain="helpfulness",
        )
        for answer in answers
    ]
