from __future__ import annotations

import pytest

from rewards import registry
from rewards.base import Attempt, RewardError


def _attempt(completion: str) -> Attempt:
    return Attempt(
        prompt=(("user", "?"),),
        prefill="aaa",
        completion=completion,
        token_ids=(),
        reference={},
        finish_reason="stop",
        domain="x",
    )


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
def test_share_of_characters_matched(regex: str, completion: str, expected: float) -> None:
    reward = registry.build("pattern", {"pattern": {"regex": regex}})
    assert reward.judge([_attempt(completion)])[0].value == expected


@pytest.mark.parametrize("regex", ["", "[a"])
def test_a_useless_expression_is_refused(regex: str) -> None:
    with pytest.raises(RewardError, match=r"reward\.pattern\.regex"):
        registry.build("pattern", {"pattern": {"regex": regex}})
