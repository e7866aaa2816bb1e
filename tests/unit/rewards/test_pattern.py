"""The reward `pattern`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rewards.base import Attempt, RewardError
from rewards.pattern import Pattern


@pytest.mark.parametrize(
    ("regex", "completion", "expected"),
    [
        ("[a-m]", "amz!", 0.5),
        ("a+", "aaab", 0.75),
        ("x", "", 0.0),
        (r"(?s)^<b>.*</b>$", "<b>\n</b>", 1.0),
        ("q", "abc", 0.0),
    ],
)
def test_share_of_characters_matched(
    attempt: Callable[..., Attempt], regex: str, completion: str, expected: float
) -> None:
    reward = Pattern(Pattern.Settings(regex=regex))
    assert reward.judge([attempt(completion, prefill="aaa")])[0].value == expected


@pytest.mark.parametrize("regex", ["", "[a"])
def test_a_useless_expression_is_refused(regex: str) -> None:
    with pytest.raises(RewardError, match=r"^regex="):
        Pattern.Settings(regex=regex)
