"""Reward functions as a user would write them, good and bad."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rewards.base import Attempt, Verdict

NUMBER = 3


def length(attempt: Attempt, scale: float = 1.0) -> float:
    return len(attempt.completion) * scale


async def slow_length(attempt: Attempt) -> float:
    await asyncio.sleep(0.01)
    return len(attempt.completion)


def whatever(attempt: Attempt) -> Any:
    return {
        "none": None,
        "nan": math.nan,
        "true": True,
        "fraction": Fraction(1, 4),
        "text": "0.5",
        "verdict": Verdict.failed("my_reason"),
    }[attempt.completion]


def raises(attempt: Attempt) -> float:
    return 1 / len(attempt.completion)


def stops(attempt: Attempt) -> float:
    return next(iter(attempt.completion))  # type: ignore[return-value]


async def raises_later(attempt: Attempt) -> float:
    await asyncio.sleep(0)
    return 1 / len(attempt.completion)


def ranks(attempts: Sequence[Attempt]) -> list[float]:
    order = sorted(attempts, key=lambda attempt: len(attempt.completion))
    return [float(order.index(attempt)) for attempt in attempts]


async def slow_ranks(attempts: Sequence[Attempt]) -> list[float]:
    await asyncio.sleep(0)
    return ranks(attempts)


def one_short(attempts: Sequence[Attempt]) -> list[float]:
    return ranks(attempts)[:-1]


def one_number(attempts: Sequence[Attempt]) -> float:
    return float(len(attempts))


class Weigher:
    def __call__(self, attempt: Attempt) -> float:
        return 2.0

    async def later(self, attempt: Attempt) -> float:
        return 3.0


class SlowWeigher:
    async def __call__(self, attempt: Attempt) -> float:
        await asyncio.sleep(0)
        return 4.0


weigh = Weigher()
slow_weigh = SlowWeigher()
