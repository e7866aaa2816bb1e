"""Reward term `pattern`: how much of an answer has a wanted form, by regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.base import Attempt, RewardError, Verdict


class Pattern:
    """Share of the completion's characters that lie inside a match of the expression, from 0 to 1.

    An expression for the whole answer, such as ``(?s)^<think>.*</think>.*$``, makes it a yes-or-no format reward.
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """What `reward.terms.<name>.settings` holds."""

        regex: str = ""  #: Python's syntax; must be set

        def __post_init__(self) -> None:
            if not self.regex:
                raise RewardError("regex='': the pattern reward needs one; set e.g. regex='[a-z]+'.")
            try:
                re.compile(self.regex)
            except re.error as error:
                raise RewardError(f"regex={self.regex!r}: not a regular expression ({error}).") from error

    def __init__(self, settings: Settings) -> None:
        self._expression = re.compile(settings.regex)

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One valid verdict for each attempt."""
        return [Verdict.valid(self._share(attempt.completion)) for attempt in attempts]

    def close(self) -> None:
        """Nothing to release."""

    def _share(self, text: str) -> float:
        matched = sum(len(match.group()) for match in self._expression.finditer(text))
        return matched / len(text) if text else 0.0
