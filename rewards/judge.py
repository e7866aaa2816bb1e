"""Reward term `judge`: a judge model grades each answer by a rubric of yours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.base import Attempt, Verdict
from rewards.endpoint import ChatEndpoint
from rewards.endpoint_arguments import api_key, check_endpoint
from rewards.rubric import Rubric, ScoreFormat, grade


class Judge:
    """(score - low) / (high - low), from 0 to 1, of the score that a judge model states.

    A judge that can't be reached, hangs or talks nonsense gives failed verdicts, never 0; see `rewards.rubric.grade`.
    The judge sees what stands in `question` and nothing else.
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """Of `judge`.

        Attributes:
            base_url: the endpoint's address, up to and including the version; must be set.
            model: name that the endpoint knows the judge by; must be set.
            api_key_env: environment variable that holds the API key; empty: none is sent.
            system: who the judge is and what counts.
            question: ``{prompt}``, ``{answer}`` and, if wanted, ``{reference}`` are filled in.
            low, high: the scale's ends.
            score_format: "line" (``Score: n``) or "json" (``{"score": n}``).
            max_tokens: of a reply, reasoning included.
            temperature: of the judge.
            timeout_s: seconds for one reply, retries included. A reply may be asked for twice: keep the term's own time
                limit above that.
            max_concurrency: requests under way at the same time, of one reward worker.
            retries: after a connection error, a status 408, 409, 429 or 5xx.
            extra_body: further fields of a request; null takes a field out.
        """

        base_url: str = ""
        model: str = ""
        api_key_env: str = ""
        system: str = "You grade answers of an assistant: how well does each serve the person who asked?"
        question: str = "This was asked:\n{prompt}\n\nThis is the answer:\n{answer}\n\nGrade the answer."
        low: float = 0.0
        high: float = 10.0
        score_format: ScoreFormat = ScoreFormat.LINE
        max_tokens: int = 1024
        temperature: float = 0.0
        timeout_s: float = 50.0
        max_concurrency: int = 16
        retries: int = 4
        extra_body: dict[str, Any] = field(default_factory=dict[str, Any])

        def __post_init__(self) -> None:
            check_endpoint(self.base_url, self.model, self.timeout_s, self.max_concurrency, self.retries)
            self.rubric()

        def rubric(self) -> Rubric:
            """Its part of the settings."""
            return Rubric(
                system=self.system,
                question=self.question,
                low=self.low,
                high=self.high,
                score_format=self.score_format,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
            )

        def endpoint(self) -> ChatEndpoint:
            """A client. Raises RewardError if the API key is not there."""
            return ChatEndpoint(
                self.base_url,
                self.model,
                self.api_key_env,
                self.timeout_s,
                self.max_concurrency,
                self.retries,
                extra_body=self.extra_body,
            )

    def __init__(self, settings: Settings) -> None:
        self._rubric, self._endpoint = settings.rubric(), settings.endpoint()

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise RewardError if the API key is not there."""
        api_key(settings.api_key_env)

    async def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict for each attempt; all are asked about at once, as far as `max_concurrency` goes."""
        return await grade(self._endpoint, self._rubric, attempts)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()
