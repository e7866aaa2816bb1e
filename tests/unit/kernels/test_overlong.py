"""The soft overlong penalty against hand-computed numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.kernels.overlong import soft_overlong_penalty


def test_by_hand():
    lengths = torch.tensor([0, 11, 12, 13, 15, 16, 17, 99])
    result = soft_overlong_penalty(lengths, max_length=16, buffer=4)
    assert result.dtype == torch.float32
    assert result.tolist() == [0.0, 0.0, 0.0, -0.25, -0.75, -1.0, -1.0, -1.0]


def test_any_shape_and_dtype():
    lengths = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    result = soft_overlong_penalty(lengths, max_length=6, buffer=6)
    assert result[0].tolist() == pytest.approx([-1 / 6, -2 / 6, -3 / 6])
    assert result[1].tolist() == pytest.approx([-4 / 6, -5 / 6, -1.0])


def test_a_buffer_of_one_token_is_a_step():
    assert soft_overlong_penalty(torch.tensor([4, 5]), max_length=5, buffer=1).tolist() == [0.0, -1.0]


@given(max_length=st.integers(1, 5000), data=st.data())
def test_its_edges_are_exact_and_it_never_rises(max_length, data):
    buffer = data.draw(st.integers(1, max_length))
    lengths = torch.arange(max_length + 2)
    result = soft_overlong_penalty(lengths, max_length=max_length, buffer=buffer)
    assert (result[: max_length - buffer + 1] == 0).all()
    assert (result[max_length - buffer + 1 :] < 0).all()
    assert (result[max_length:] == -1).all()
    assert (result[1:] <= result[:-1]).all()
