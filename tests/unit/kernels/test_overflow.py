"""A policy that has drifted far must not turn a clipped token into NaN."""

from __future__ import annotations

import pytest
import torch

from grpo.kernels.kl import weighted_k3
from grpo.kernels.surrogate import clipped_surrogate


@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("log_ratio", [-200.0, 200.0])
def test_a_huge_log_ratio_stays_finite(advantage: float, log_ratio: float) -> None:
    logprobs = torch.tensor([log_ratio], requires_grad=True)
    zero = torch.zeros(1)
    loss = clipped_surrogate(logprobs, zero, torch.tensor([advantage]), clip_low=0.2, clip_high=0.2).loss
    loss.sum().backward()
    assert torch.isfinite(loss).all() and logprobs.grad is not None and torch.isfinite(logprobs.grad).all()


def test_weighted_k3_stays_finite_where_only_the_behavior_is_far() -> None:
    logprobs = torch.tensor([0.0], requires_grad=True)
    value = weighted_k3(logprobs, torch.tensor([0.1]), torch.tensor([-200.0]))
    value.sum().backward()
    assert torch.isfinite(value).all() and logprobs.grad is not None and torch.isfinite(logprobs.grad).all()
