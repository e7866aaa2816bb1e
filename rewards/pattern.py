"""Reward term `pattern`: how much of an answer has a wanted form, by regular expression."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from rewards.base import Attempt, RewardError, Verdict


class Pattern:
    """Share of the completion's characters that lie inside a match of the expression, from 0 to 1.

    An expression for the whole answer, such as ``(?s)^<think>.*</think>.*$``, makes it a yes-or-no format reward.
    """

    name: str = "pattern"

    def __init__(self, regex: str) -> None:
        """Compile `regex`. Raises RewardError if it is empty or no regular expression."""
        if not regex:
            raise RewardError(
                "reward.pattern.regex='': the term `pattern` needs one; set e.g. reward.pattern.regex='[a-z]+'."
            )
        try:
            self._expression = re.compile(regex)
        except re.error as error:
            raise RewardError(f"reward.pattern.regex={regex!r}: not a regular expression ({error}).") from error

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> Pattern:
        """Build from ``{"pattern": {"regex": ...}}``."""
        own = cast("Mapping[str, str]", settings.get("pattern", {}))
        return cls(own.get("regex", ""))

    def judge(self, attempts: list[Attempt]) -> list[Verdict]:
        """One valid verdict for each attempt."""
        return [Verdict.valid(self._share(attempt.completion)) for attempt in attempts]

    def close(self) -> None:
        """Nothing to release."""

    def _share(self, text: str) -> float:
        matched = sum(len(match.group()) for match in self._expression.finditer(text))
        return matched / len(text) if text else 0.0
