"""The KL penalty of each completion, whatever the layout in which the reference was asked."""

from __future__ import annotations

import numpy as np
import pytest

from grpo.reference_kl import kl_penalties, plan_reference_pass
from tests.builders import make_completion, make_group

#: Two groups of three completions of lengths 1 .. 6, behavior logprobs -0.1 * (length + place).
GROUPS = [
    make_group(
        [
            make_completion(
                [10 * length + t for t in range(length)], logprobs=[-0.1 * (length + t) for t in range(length)]
            )
            for length in lengths
        ],
        uid=uid,
        prompt=prompt,
    )
    for uid, (lengths, prompt) in enumerate([((3, 1, 2), (1, 2)), ((6, 4, 5), (7,))])
]


def reference_logprobs(token: int) -> float:
    return -0.01 * token


@pytest.mark.parametrize(("num_ranks", "max_tokens"), [(1, 64), (1, 7), (2, 64), (3, 9), (5, 64)])
def test_sums_over_each_completions_own_tokens(num_ranks: int, max_tokens: int):
    asked = plan_reference_pass(GROUPS, num_ranks=num_ranks, max_tokens=max_tokens)
    assert len(asked.batches) == num_ranks
    assert len({len(batches) for batches in asked.batches}) == 1
    answers = [
        [np.asarray([reference_logprobs(t) for t in batch.targets.tolist()], dtype=np.float32) for batch in batches]
        for batches in asked.batches
    ]
    found = kl_penalties(asked, answers, group_size=3)
    expected = [
        [
            sum(
                b - reference_logprobs(t)
                for t, b in zip(c.token_ids.tolist(), c.behavior_logprobs.tolist(), strict=True)
            )
            for c in group.completions
        ]
        for group in GROUPS
    ]
    assert [len(row) for row in found] == [3, 3]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_a_reference_that_agrees_costs_nothing():
    asked = plan_reference_pass(GROUPS[:1], num_ranks=1, max_tokens=64)
    answers = [[batch.behavior_logprobs.numpy() for batch in batches] for batches in asked.batches]
    assert kl_penalties(asked, answers, group_size=3) == [[0.0, 0.0, 0.0]]


def test_a_reference_logprob_that_is_not_finite_shows():
    asked = plan_reference_pass(GROUPS[:1], num_ranks=1, max_tokens=64)
    [[batch]] = asked.batches
    answer = batch.behavior_logprobs.numpy().copy()
    answer[0] = -np.inf
    found = kl_penalties(asked, [[answer]], group_size=3)
    assert sorted(np.isfinite(found[0]).tolist()) == [False, True, True]
