"""Logprobs, entropy and the chunked head of TRL beside Keel's: equal, or different as docs/algorithm.md says."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from grpo.config import AlgorithmConfig, Importance, Surrogate
from grpo.kernels.head import head_loss
from grpo.kernels.row import row_statistics
from tests.agreement.trl_trainers import ChunkedLogProbFunction, entropy_from_logits, selective_log_softmax
from tests.oracles import make_case

L, H, V = 13, 32, 41
TEMPERATURE = 0.8


def operands(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(L, H, generator=generator).to(dtype)
    weight = torch.randn(V, H, generator=generator).to(dtype)
    bias = torch.randn(V, generator=generator).to(dtype)
    return hidden, weight, bias, torch.randint(0, V, (L,), generator=generator)


def test_logprobs_and_entropy_of_logits():
    hidden, weight, _, targets = operands()
    logits = hidden @ weight.T
    logprobs, entropy = row_statistics(logits.clone(), targets, temperature=TEMPERATURE)
    torch.testing.assert_close(logprobs, selective_log_softmax(logits, targets, temperature=TEMPERATURE))
    torch.testing.assert_close(entropy, entropy_from_logits(logits / TEMPERATURE))


def test_a_masked_vocabulary_entry_makes_their_entropy_nan():
    logits = torch.tensor([[1.0, 2.0, -math.inf]])
    assert entropy_from_logits(logits).isnan().all()
    _, entropy = row_statistics(logits.clone(), torch.tensor([1]), temperature=1.0)
    torch.testing.assert_close(entropy, entropy_from_logits(logits[:, :2]))


def chunked(dtype: torch.dtype):
    """(logprobs, entropy, gradients) of TRL's chunked head for the loss of REINFORCE with an entropy bonus."""
    hidden, weight, bias, targets = operands(dtype)
    moving = [t.requires_grad_() for t in (hidden, weight, bias)]
    logprobs, entropy, *_ = ChunkedLogProbFunction.apply(*moving, targets, TEMPERATURE, 16, None, 1.0, ("entropy",))
    steps = torch.linspace(-1, 2, L)
    return logprobs, entropy, torch.autograd.grad(-(steps * logprobs).sum() - 0.1 * entropy.sum(), moving)


def ours(dtype: torch.dtype):
    hidden, weight, bias, targets = operands(dtype)
    moving = [t.requires_grad_() for t in (hidden, weight, bias)]
    tokens = replace(
        make_case().tokens(targets),
        advantages=torch.linspace(-1, 2, L),
        weights=torch.ones(L),
        proximal=None,
        reference=None,
    )
    config = AlgorithmConfig(surrogate=Surrogate.reinforce, importance=Importance.none, entropy_coefficient=0.1)
    found = head_loss(moving[0], moving[1], tokens, config, temperature=TEMPERATURE, chunk_tokens=5, bias=moving[2])
    return found.logprobs, found.entropy, torch.autograd.grad(found.loss, moving)


def test_the_head_in_chunks():
    for mine, other in zip(ours(torch.float32)[:2], chunked(torch.float32)[:2], strict=True):
        torch.testing.assert_close(mine, other)
    for mine, other in zip(ours(torch.float32)[2], chunked(torch.float32)[2], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_their_logits_are_rounded_to_16_bits():
    hidden, weight, bias, targets = operands(torch.bfloat16)
    exact = ((hidden.double() @ weight.double().T + bias.double()) / TEMPERATURE).log_softmax(-1)
    exact = exact.gather(1, targets[:, None])[:, 0]
    mine, other = ours(torch.bfloat16)[0], chunked(torch.bfloat16)[0]
    assert (mine.double() - exact).abs().max() < 1e-5
    assert (other.double() - exact).abs().max() > 1e-2
