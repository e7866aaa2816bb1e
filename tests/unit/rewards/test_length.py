"""The rewards `length` and `repetition`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.kernels.overlong import soft_overlong_penalty
from rewards.base import Attempt, RewardError
from rewards.length import Length
from rewards.repetition import Repetition, Unit, repeated_share

ATTEMPT = Attempt(
    prompt=(("user", "?"),),
    prefill="",
    completion="",
    token_ids=(),
    reference={},
    finish_reason="stop",
    domain="x",
)


def lengths(settings: Length.Settings, *sizes: int) -> list[float]:
    attempts = [replace(ATTEMPT, token_ids=(0,) * size) for size in sizes]
    return [verdict.value for verdict in Length(settings).judge(attempts)]


def test_soft_overlong_by_hand() -> None:
    settings = Length.Settings(max_tokens=10, buffer_tokens=4)
    assert lengths(settings, 0, 6, 7, 8, 9, 10, 11, 50) == [0, 0, -0.25, -0.5, -0.75, -1, -1, -1]


@given(st.integers(1, 40).flatmap(lambda most: st.tuples(st.just(most), st.integers(1, most))))
def test_it_is_the_formula_that_shapes_rewards(sizes: tuple[int, int]) -> None:
    most, buffer = sizes
    own = lengths(Length.Settings(max_tokens=most, buffer_tokens=buffer), *range(60))
    theirs = soft_overlong_penalty(torch.arange(60), max_length=most, buffer=buffer)
    assert torch.equal(torch.tensor(own, dtype=torch.float32), theirs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "max_tokens=0: "),
        ({"max_tokens": 5}, "buffer_tokens=0: set 1 to max_tokens, which is 5"),
        ({"max_tokens": 5, "buffer_tokens": 6}, "buffer_tokens=6: "),
    ],
)
def test_limits_that_can_not_work(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=f"^{message}"):
        Length.Settings(**fields)


@pytest.mark.parametrize(
    ("units", "n", "share"),
    [
        ("abcabc", 1, 0.5),
        ("abcabc", 3, 0.25),  # abc bca cab abc
        ("aaaaa", 2, 0.75),
        ("abcd", 2, 0.0),
        ("ab", 3, 0.0),
        ("", 1, 0.0),
    ],
)
def test_repeated_share_by_hand(units: str, n: int, share: float) -> None:
    assert repeated_share(units, n) == share


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_repeated_share_counts_what_was_seen_before(units: list[int], n: int) -> None:
    seen: set[tuple[int, ...]] = set()
    repeated = 0
    grams = [tuple(units[i : i + n]) for i in range(len(units)) if i + n <= len(units)]
    for gram in grams:
        repeated += gram in seen
        seen.add(gram)
    assert repeated_share(units, n) == pytest.approx(repeated / len(grams) if grams else 0.0)


def test_units_of_repetition() -> None:
    attempt = replace(ATTEMPT, completion="So so SO good", token_ids=(5, 6, 5, 6, 5))
    tokens = Repetition(Repetition.Settings(n=2))
    words = Repetition(Repetition.Settings(n=1, unit=Unit.WORDS))
    assert tokens.judge([attempt])[0].value == -0.5
    assert words.judge([attempt])[0].value == -0.5


def test_n_must_be_positive() -> None:
    with pytest.raises(RewardError, match=r"^n=0: "):
        Repetition.Settings(n=0)
