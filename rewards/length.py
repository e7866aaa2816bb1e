"""Reward kind `length`: less for completions that come near the length limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rewards.base import Attempt, RewardError, Verdict


class Length:
    """DAPO's soft overlong punishment as a term of its own. From -1 to 0; use it with a positive weight.

    With T sampled tokens, L = `max_tokens` and B = `buffer_tokens`:

        0                   if T <= L - B
        (L - B - T) / B     if L - B < T <= L
        -1                  if T > L

    It is the formula of `grpo.kernels.overlong`, which shapes the mixed reward; here it is logged, weighted, gated and
    normalised like any other term. Use one of the two. Source: DAPO, Yu et al. 2025, https://arxiv.org/abs/2503.14476,
    eq. 13.
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """What `reward.terms.<name>.settings` holds."""

        max_tokens: int = 0  #: L; must be set, normally to what sampling allows a completion
        buffer_tokens: int = 0  #: B; must be set, from 1 to max_tokens

        def __post_init__(self) -> None:
            if self.max_tokens < 1:
                raise RewardError(f"max_tokens={self.max_tokens}: set the tokens that sampling allows a completion.")
            if not 1 <= self.buffer_tokens <= self.max_tokens:
                raise RewardError(
                    f"buffer_tokens={self.buffer_tokens}: set 1 to max_tokens, which is {self.max_tokens}."
                )

    def __init__(self, settings: Settings) -> None:
        self._max_tokens, self._buffer_tokens = settings.max_tokens, settings.buffer_tokens

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One valid verdict for each attempt."""
        return [Verdict.valid(self._value(len(attempt.token_ids))) for attempt in attempts]

    def close(self) -> None:
        """Nothing to release."""

    def _value(self, num_tokens: int) -> float:
        beyond = self._max_tokens - self._buffer_tokens - num_tokens
        return min(0.0, max(-1.0, beyond / self._buffer_tokens))
