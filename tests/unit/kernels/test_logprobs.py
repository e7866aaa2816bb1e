"""Logprobs and entropy against float64, in one piece and in chunks, with masked and extreme logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grpo.kernels.logprobs import chunked_logprobs, target_logprobs

L, H, V = 11, 6, 7


def logits_and_targets(scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(L, V, generator=generator) * scale, torch.randint(0, V, (L,), generator=generator)


def oracle(logits, targets, temperature):
    """(logprobs, entropies) in Python floats, by the definition."""
    logprobs, entropies = [], []
    for row, target in zip(logits.double().tolist(), targets.tolist(), strict=True):
        scaled = [x / temperature for x in row]
        top = max(scaled)
        log_sum = top + math.log(math.fsum(math.exp(x - top) for x in scaled))
        all_logprobs = [x - log_sum for x in scaled]
        logprobs.append(all_logprobs[target])
        entropies.append(-math.fsum(math.exp(lp) * lp for lp in all_logprobs if math.exp(lp) > 0))
    return logprobs, entropies


@given(scale=st.sampled_from([0.1, 3.0, 40.0]), seed=st.integers(0, 99), temperature=st.sampled_from([0.3, 1.0, 2.5]))
def test_matches_the_definition_in_float64(scale, seed, temperature):
    logits, targets = logits_and_targets(scale, seed)
    logprobs, entropy = target_logprobs(logits, targets, temperature)
    expected_logprobs, expected_entropy = oracle(logits, targets, temperature)
    assert logprobs.tolist() == pytest.approx(expected_logprobs, rel=1e-5, abs=1e-4)
    assert entropy.tolist() == pytest.approx(expected_entropy, rel=1e-4, abs=1e-4)


def test_temperature_by_hand():
    # logits (0, ln 4) at temperature 2: (0, ln 2) -> p = (1/3, 2/3)
    logprobs, entropy = target_logprobs(torch.tensor([[0.0, math.log(4)]]), torch.tensor([1]), 2.0)
    assert logprobs.item() == pytest.approx(math.log(2 / 3), rel=1e-6)
    assert entropy.item() == pytest.approx(-(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3, rel=1e-6)


def test_entropy_of_uniform_and_of_certain():
    _, entropy = target_logprobs(torch.tensor([[2.0] * 8, [100.0] + [0.0] * 7]), torch.tensor([0, 0]), 1.0)
    assert entropy.tolist() == pytest.approx([math.log(8), 0.0], abs=1e-5)
    assert not entropy.requires_grad


def test_gradient_is_one_hot_minus_softmax_over_temperature():
    logits, targets = logits_and_targets()
    logits.requires_grad_()
    upstream = torch.linspace(-1, 2, L)
    logprobs, entropy = target_logprobs(logits, targets, 0.7)
    assert not entropy.requires_grad
    (logprobs * upstream).sum().backward()
    softmax = (logits.detach().double() / 0.7).softmax(-1)
    expected = (nn.functional.one_hot(targets, V) - softmax) / 0.7 * upstream[:, None]
    torch.testing.assert_close(logits.grad, expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", [-math.inf, -1e30, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_masked_logits_give_no_nan_anywhere(mask, temperature):
    logits, targets = logits_and_targets()
    masked = logits.clone()
    keep = torch.zeros(V, dtype=torch.bool)
    keep[:3] = True
    masked[:, ~keep] = mask
    masked.requires_grad_()
    logprobs, entropy = target_logprobs(masked, targets % 3, temperature)
    expected, expected_entropy = target_logprobs(logits[:, :3], targets % 3, temperature)
    torch.testing.assert_close(logprobs, expected)
    torch.testing.assert_close(entropy, expected_entropy)
    logprobs.sum().backward()
    assert masked.grad is not None
    assert torch.isfinite(masked.grad).all()
    assert (masked.grad[:, ~keep] == 0).all()


def test_a_target_that_was_masked_has_logprob_minus_infinity_and_a_finite_gradient():
    logits = torch.tensor([[0.0, 1.0, -math.inf]], requires_grad=True)
    logprobs, entropy = target_logprobs(logits, torch.tensor([2]), 1.0)
    assert logprobs.item() == -math.inf
    assert math.isfinite(entropy.item())
    logprobs.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_computed_in_float32(dtype):
    logits, targets = logits_and_targets()
    low = logits.to(dtype)
    logprobs, entropy = target_logprobs(low, targets, 0.9)
    assert logprobs.dtype == entropy.dtype == torch.float32
    expected, expected_entropy = oracle(low, targets, 0.9)  # the rounding of the input is not ours
    assert logprobs.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert entropy.tolist() == pytest.approx(expected_entropy, rel=1e-5, abs=1e-5)


def run_chunked(chunk_tokens, *, dtype=torch.float32, bias=False):
    torch.manual_seed(1)
    head = nn.Linear(H, V, bias=bias).to(dtype)
    hidden = torch.randn(L, H, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, V, (L,))
    logprobs, entropy = chunked_logprobs(head, hidden, targets, temperature=0.8, chunk_tokens=chunk_tokens)
    (logprobs * torch.linspace(-2, 1, L)).sum().backward()
    return logprobs, entropy, hidden.grad, [p.grad for p in head.parameters()]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 10, 11, 12, 1000])
def test_chunking_changes_neither_values_nor_gradients(chunk_tokens, bias):
    logprobs, entropy, hidden_grad, head_grads = run_chunked(chunk_tokens, bias=bias)
    torch.manual_seed(1)
    head = nn.Linear(H, V, bias=bias).double()
    # The same draws in float32, then made double.
    torch.manual_seed(1)
    small = nn.Linear(H, V, bias=bias)
    head.load_state_dict(small.state_dict())
    hidden = torch.randn(L, H).double().requires_grad_()
    targets = torch.randint(0, V, (L,))
    everything = (head(hidden) / 0.8).log_softmax(-1)
    expected = everything[torch.arange(L), targets]
    (expected * torch.linspace(-2, 1, L)).sum().backward()
    torch.testing.assert_close(logprobs, expected.float())
    torch.testing.assert_close(entropy, -(everything.exp() * everything).sum(-1).float())
    assert hidden.grad is not None
    torch.testing.assert_close(hidden_grad, hidden.grad.float())
    for found, parameter in zip(head_grads, head.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(found, parameter.grad.float())


def test_chunking_in_bfloat16_gives_float32_logprobs():
    whole, entropy, *_ = run_chunked(1000, dtype=torch.bfloat16)
    chunked, *_ = run_chunked(4, dtype=torch.bfloat16)
    assert whole.dtype == chunked.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(chunked, whole, rtol=0.02, atol=0.02)


def test_no_more_logits_than_a_chunk_exist_at_once():
    seen = []

    def head(hidden):
        seen.append(len(hidden))
        return hidden @ torch.ones(H, V)

    hidden = torch.zeros(L, H, requires_grad=True)
    logprobs, _ = chunked_logprobs(head, hidden, torch.zeros(L, dtype=torch.int64), temperature=1.0, chunk_tokens=4)
    assert seen == [4, 4, 3]
    logprobs.sum().backward()  # each chunk's logits are made again, one at a time
    assert max(seen) == 4
    assert sorted(seen) == sorted([4, 4, 3] * 2)


def test_no_gradient_asked_for_none_recorded():
    head = nn.Linear(H, V)
    with torch.no_grad():
        logprobs, _ = chunked_logprobs(
            head, torch.zeros(L, H), torch.zeros(L, dtype=torch.int64), temperature=1.0, chunk_tokens=4
        )
    assert not logprobs.requires_grad
    assert logprobs.tolist() == pytest.approx([torch.log_softmax(head.bias.detach(), 0)[0].item()] * L, rel=1e-5)


@pytest.mark.parametrize("chunk_tokens", [1, 5])
def test_no_tokens_at_all(chunk_tokens):
    head = nn.Linear(H, V)
    hidden = torch.zeros(0, H, requires_grad=True)
    logprobs, entropy = chunked_logprobs(
        head, hidden, torch.zeros(0, dtype=torch.int64), temperature=1.0, chunk_tokens=chunk_tokens
    )
    assert logprobs.shape == entropy.shape == (0,)
    logprobs.sum().backward()
    assert head.weight.grad is not None
    assert (head.weight.grad == 0).all()
