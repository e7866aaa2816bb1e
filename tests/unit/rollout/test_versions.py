"""Which weights sampled which tokens."""

from __future__ import annotations

import pytest

from grpo.rollout.versions import version_spans


@pytest.mark.parametrize(
    ("arrivals", "num_tokens", "expected"),
    [
        ([(3, 0)], 5, ((3, 5),)),
        ([(3, 0), (4, 2)], 5, ((3, 2), (4, 3))),
        ([(3, 0), (4, 0)], 5, ((4, 5),)),  # it had not begun
        ([(3, 0), (4, 5)], 5, ((3, 5),)),  # it was done
        ([(3, 0), (4, 2), (5, 2), (6, 4)], 5, ((3, 2), (5, 2), (6, 1))),
        ([(3, 0), (4, 9)], 5, ((3, 5),)),
        ([(3, 0), (4, 0)], 0, ((4, 0),)),
    ],
)
def test_spans(arrivals: list[tuple[int, int]], num_tokens: int, expected: tuple[tuple[int, int], ...]) -> None:
    spans = version_spans(arrivals, num_tokens)
    assert spans == expected and sum(count for _, count in spans) == num_tokens
