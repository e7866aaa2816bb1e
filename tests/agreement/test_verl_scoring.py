"""Advantages, logprobs and entropy of verl beside Keel's: equal, or different as docs/algorithm.md says."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from grpo.config import AlgorithmConfig
from grpo.kernels.advantages import group_mean, group_std, leave_one_out
from grpo.kernels.mixtures import gdpo
from grpo.kernels.row import row_statistics
from tests.agreement.verl_functions import core, functional

SEEDS = range(3)
assert_close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
P, G = 3, 4
INDEX = [i for i in range(P) for _ in range(G)]
#: Tokens of each completion: outcome rewards are spread over them with a mask.
TOKENS = [3, 1, 2, 4, 2, 2, 1, 3, 4, 1, 1, 2]


def rewards(seed: int) -> Tensor:
    """[P * G], float32 as verl's are."""
    return torch.randint(-4, 9, (P * G,), generator=torch.Generator().manual_seed(seed)).float() / 8


def outcome(function, values: Tensor, index: list[int], **options: Any) -> Tensor:
    """Advantage of each completion, from that of its first token."""
    tokens = torch.tensor(TOKENS[: len(values)])
    mask = (torch.arange(4) < tokens[:, None]).float()
    scores = torch.zeros_like(mask)
    scores[torch.arange(len(values)), tokens - 1] = values
    found, _ = function(scores, mask, np.asarray(index), **options)
    assert (found == found[:, :1] * mask).all()
    return found[:, 0]


EVERY = torch.ones(P, G, dtype=torch.bool)


@pytest.mark.parametrize("seed", SEEDS)
def test_group_advantages(seed):
    values = rewards(seed)
    table = values.view(P, G)
    std, mean = {"epsilon": 1e-4}, {"norm_adv_by_std_in_grpo": False}
    for function in (core.compute_grpo_outcome_advantage, core.compute_grpo_vectorized_outcome_advantage):
        found = outcome(function, values, INDEX, **std).view(P, G)
        assert_close(found, group_std(table, EVERY, eps=1e-4))
        assert_close(outcome(function, values, INDEX, **mean).view(P, G), group_mean(table, EVERY))
    for function in (core.compute_rloo_outcome_advantage, core.compute_rloo_vectorized_outcome_advantage):
        assert_close(outcome(function, values, INDEX).view(P, G), leave_one_out(table, EVERY))


def test_their_eps_is_smaller():
    values = torch.tensor([0.5, 0.5, 0.5, 0.5 + 1e-5])
    found = outcome(core.compute_grpo_outcome_advantage, values, [0] * G)  # 1e-6
    here = group_std(values[None], EVERY[:1], eps=AlgorithmConfig().advantage_eps)[0]  # 1e-4
    assert found.abs().max() > 1.0 and here.abs().max() < 0.1


def test_a_group_of_one_keeps_its_reward_there_and_has_no_advantage_here():
    for function in (core.compute_grpo_outcome_advantage, core.compute_rloo_outcome_advantage):
        assert outcome(function, torch.tensor([0.75]), [0]).item() == pytest.approx(0.75, rel=1e-5)
    one = torch.tensor([[0.75]])
    for here in (group_std(one, one > 0, eps=1e-4), leave_one_out(one, one > 0)):
        assert here.item() == 0.0


def test_equal_rewards_are_rounding_noise_there_and_exactly_0_here():
    values = torch.full((7,), 0.1)
    found = outcome(core.compute_grpo_outcome_advantage, values, [0] * 7)
    assert (found != 0).any()
    assert (group_std(values[None], torch.ones(1, 7, dtype=torch.bool), eps=1e-4) == 0).all()


def test_gdpo_whitens_over_tokens_there_and_over_completions_here():
    values = rewards(0)
    terms = values.view(1, P, G)
    expected = gdpo(terms, terms == terms, torch.ones(1), [True], eps=1e-6).flatten()
    found = outcome(core.compute_gdpo_outcome_advantage, values, INDEX)
    assert not torch.allclose(found, expected, rtol=0.01, atol=0.01)
    whitened = outcome(core.compute_grpo_outcome_advantage, values, INDEX)
    weights = torch.tensor(TOKENS, dtype=torch.float32)
    mean = (weights * whitened).sum() / weights.sum()
    variance = (weights * (whitened - mean) ** 2).sum() / (weights.sum() - 1)
    torch.testing.assert_close(found, (whitened - mean) / variance.sqrt(), rtol=1e-4, atol=1e-5)


def test_gdpo_of_equal_lengths_is_the_same_but_for_bessels_correction(monkeypatch):
    monkeypatch.setitem(globals(), "TOKENS", [2] * (P * G))
    values = rewards(1)
    terms = values.view(1, P, G)
    expected = gdpo(terms, terms == terms, torch.ones(1), [True], eps=1e-6).flatten()
    found = outcome(core.compute_gdpo_outcome_advantage, values, INDEX)
    count = P * G
    factor = math.sqrt((2 * count - 1) / (2 * count) * count / (count - 1))  # over 2 n tokens instead of n completions
    torch.testing.assert_close(found, expected * factor, rtol=1e-4, atol=1e-5)


def test_logprobs_and_entropy_of_logits():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(5, 41, generator=generator) * 3, torch.randint(0, 41, (5,), generator=generator)
    logprobs, entropy = row_statistics(logits.clone(), targets, temperature=0.8)
    torch.testing.assert_close(logprobs, functional.logprobs_from_logits_v2(logits / 0.8, targets))
    torch.testing.assert_close(entropy, functional.entropy_from_logits(logits / 0.8))


@pytest.mark.parametrize("level", [1e4, -1e4])
def test_their_entropy_cancels_at_large_logits_and_is_nan_beside_masked_ones(level):
    logits = torch.tensor([[0.0, 0.5, -20.0]]) + level
    exact = -(logits.double().log_softmax(-1).exp() * logits.double().log_softmax(-1)).sum()
    _, entropy = row_statistics(logits.clone(), torch.tensor([0]), temperature=1.0)
    assert entropy.item() == pytest.approx(exact.item(), rel=1e-5)
    assert abs(functional.entropy_from_logits(logits).item() - exact.item()) > 1e-4
    logits[0, 2] = -math.inf
    _, entropy = row_statistics(logits.clone(), torch.tensor([0]), temperature=1.0)
    assert entropy.item() == pytest.approx(exact.item(), rel=1e-5)
    assert functional.entropy_from_logits(logits).isnan().all()
