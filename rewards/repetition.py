"""Reward kind `repetition`: less for completions that say the same again and again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rewards.base import Attempt, RewardError, Verdict


class Unit(StrEnum):
    """What n-grams are made of."""

    TOKENS = "tokens"  #: sampled token ids
    WORDS = "words"  #: what blanks part, in lower case


class Repetition:
    """Minus the share of n-grams that stood before: distinct / all - 1. From -1 to 0; use it with a positive weight.

    Of m units there are m - n + 1 n-grams; a completion of fewer than n units gets 0. Source: Yeo et al. 2025,
    "Demystifying Long Chain-of-Thought Reasoning in LLMs", https://arxiv.org/abs/2502.03373, appendix C.2, in the form
    of Open R1's `get_repetition_penalty_reward` with a penalty of -1 (https://github.com/huggingface/open-r1).
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """What `reward.terms.<name>.settings` holds."""

        n: int = 4  #: units of an n-gram
        unit: Unit = Unit.TOKENS  #: "tokens" or "words"

        def __post_init__(self) -> None:
            if self.n < 1:
                raise RewardError(f"n={self.n}: set at least 1.")

    def __init__(self, settings: Settings) -> None:
        self._n, self._unit = settings.n, settings.unit

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One valid verdict for each attempt."""
        return [Verdict.valid(-repeated_share(self._units(attempt), self._n)) for attempt in attempts]

    def close(self) -> None:
        """Nothing to release."""

    def _units(self, attempt: Attempt) -> Sequence[Hashable]:
        return attempt.token_ids if self._unit is Unit.TOKENS else attempt.completion.lower().split()


def repeated_share(units: Sequence[Hashable], n: int) -> float:
    """1 - distinct n-grams / n-grams; 0 where there are none."""
    count = len(units) - n + 1
    if count < 1:
        return 0.0
    return 1.0 - len({tuple(units[start : start + n]) for start in range(count)}) / count
