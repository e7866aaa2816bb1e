"""Sums and means by sequence: by hand, whatever the order of tokens, and in more than float32."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.kernels.sequences import sequence_mean, sequence_sum

INDEX = torch.tensor([0, 2, 0, 2, 2])


def test_by_hand():
    values = torch.tensor([1.0, 10.0, 2.0, 20.0, 60.0])
    assert sequence_sum(values, INDEX, 4).tolist() == [3.0, 0.0, 90.0, 0.0]
    assert sequence_mean(values, INDEX, 4).tolist() == [1.5, 0.0, 30.0, 0.0]


def test_no_tokens_and_no_sequences():
    none = torch.zeros(0)
    index = torch.zeros(0, dtype=torch.int64)
    assert sequence_sum(none, index, 3).tolist() == [0.0, 0.0, 0.0]
    assert sequence_mean(none, index, 3).tolist() == [0.0, 0.0, 0.0]
    assert sequence_mean(none, index, 0).shape == (0,)


def test_gradients():
    values = torch.zeros(5, requires_grad=True)
    upstream = torch.tensor([6.0, 0.0, 12.0], dtype=torch.float64)
    (by_sum,) = torch.autograd.grad((sequence_sum(values, INDEX, 3) * upstream).sum(), values)
    (by_mean,) = torch.autograd.grad((sequence_mean(values, INDEX, 3) * upstream).sum(), values)
    assert by_sum.tolist() == [6.0, 12.0, 6.0, 12.0, 12.0]
    assert by_mean.tolist() == [3.0, 4.0, 3.0, 4.0, 4.0]


def test_what_float32_would_lose_is_kept():
    # 2^24 + 1 + 1 ...: in float32 each 1 is rounded away.
    values = torch.cat([torch.tensor([2.0**24]), torch.ones(1000)])
    index = torch.zeros(1001, dtype=torch.int64)
    assert sequence_sum(values, index, 1).item() == 2**24 + 1000


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.floats(-100, 100, width=32)), max_size=20),
    order=st.randoms(use_true_random=False),
)
def test_matches_a_loop_in_any_order(rows, order):
    order.shuffle(rows)
    index = torch.tensor([i for i, _ in rows], dtype=torch.int64)
    values = torch.tensor([v for _, v in rows], dtype=torch.float32)
    expected = [math.fsum(v for i, v in rows if i == s) for s in range(5)]
    counts = [sum(i == s for i, _ in rows) for s in range(5)]
    assert sequence_sum(values, index, 5).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-9)
    means = [total / max(count, 1) for total, count in zip(expected, counts, strict=True)]
    assert sequence_mean(values, index, 5).tolist() == pytest.approx(means, rel=1e-12, abs=1e-9)
