"""Rewards and advantages of TRL's trainers beside Keel's: equal, or different as docs/algorithm.md says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from grpo.kernels.advantages import batch_std, group_mean, group_std, leave_one_out
from grpo.kernels.mixtures import gdpo
from grpo.kernels.overlong import soft_overlong_penalty
from rewards.mixture import weighted_sum
from tests.agreement.trl_trainers import RLOOTrainer, generate_and_score, get_soft_overlong_punishment
from tests.builders import make_verdicts

P, G, K = 3, 4, 2
EPS = 1e-4  # TRL's, not configurable
WEIGHTS = [1.0, 0.25]
SEEDS = range(3)
NAN = math.nan


def draw(seed: int, *, columns: int = K) -> Tensor:
    """Rewards [P * G, K], float64; some scarce, so that values coincide."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 9, (P * G, columns), generator=generator).double() / 8


def theirs(rewards: Tensor, weights: list[float], **options) -> Tensor:
    """[P, G]."""
    return generate_and_score(rewards, weights, G, **options)["advantages"].view(-1, G)


def mixed(rewards: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """Weighted sums [P, G] and which of them count, a NaN being a term that does not apply."""
    columns = {
        str(k): make_verdicts([None if math.isnan(v) else v for v in column])
        for k, column in enumerate(rewards.T.tolist())
    }
    sums = weighted_sum(columns, {str(k): w for k, w in enumerate(weights)})
    total = torch.tensor(sums, dtype=torch.float64).view(-1, G)
    return total, torch.isfinite(total)


def standardised(rewards: Tensor, weights: list[float]) -> Tensor:
    terms = rewards.T.reshape(len(weights), -1, G)
    return gdpo(terms, ~terms.isnan(), torch.tensor(weights), [True] * len(weights), eps=EPS)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("absent", [False, True])
def test_group_advantages(absent, seed):
    """A term that does not apply adds nothing; where none does, the completion is in no statistic and gets 0."""
    rewards = draw(seed)
    if absent:
        rewards[1, 0] = rewards[6, 1] = rewards[9, 0] = rewards[9, 1] = NAN
    total = mixed(rewards, WEIGHTS)
    assert_same(theirs(rewards, WEIGHTS), group_std(*total, eps=EPS))
    assert_same(theirs(rewards, WEIGHTS, scale_rewards="none"), group_mean(*total))
    assert_same(theirs(rewards, WEIGHTS, kind=RLOOTrainer), leave_one_out(*total))
    assert not absent or theirs(rewards, WEIGHTS)[2, 1] == 0


@pytest.mark.parametrize("options", [{}, {"scale_rewards": "none"}, {"kind": RLOOTrainer}])
def test_the_only_valid_completion_of_its_group(options):
    rewards = draw(0, columns=1)
    rewards[1:G] = NAN
    found = theirs(rewards, [1.0], **options)
    assert found[0].tolist() == [0.0] * G and found[1:].abs().max() > 0
    assert (group_std(*mixed(rewards, [1.0]), eps=EPS)[0] == 0).all()


def test_equal_rewards_are_rounding_noise_there_and_exactly_0_here():
    rewards = torch.full((7, 1), 0.1)
    found = generate_and_score(rewards, [1.0], 7)["advantages"]
    here = group_std(rewards.view(1, 7), torch.ones(1, 7, dtype=torch.bool), eps=EPS)
    assert (found != 0).all() and found.abs().max() < 1e-3
    assert (here == 0).all()


def test_batch_std_is_of_the_rewards_there_and_of_what_is_left_without_the_groups_means_here():
    rewards = draw(0, columns=1)
    expected = batch_std(*mixed(rewards, [1.0]), eps=EPS)
    found = theirs(rewards, [1.0], scale_rewards="batch")
    assert not torch.allclose(found.double(), expected.double(), rtol=0.01)
    # The direction is the same, and with equal means so is the size.
    assert_same(found * expected[0, 0], expected * found[0, 0])
    level = rewards - rewards.view(P, G).mean(1).repeat_interleave(G)[:, None]
    assert_same(theirs(level, [1.0], scale_rewards="batch"), batch_std(*mixed(level, [1.0]), eps=EPS))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("absent", [False, True])
def test_normalize_then_sum_is_gdpo(absent, seed):
    rewards = draw(seed)
    if absent:
        rewards[1, 0] = rewards[6, 1] = rewards[9, 0] = rewards[9, 1] = NAN
    found = theirs(rewards, WEIGHTS, multi_objective_aggregation="normalize_then_sum")
    assert_same(found, standardised(rewards, WEIGHTS))


def test_groups_without_signal_shrink_their_batch_std_and_not_ours():
    rewards = draw(0)
    rewards[:G] = 0.5
    options = {"multi_objective_aggregation": "normalize_then_sum"}
    found, expected = theirs(rewards, WEIGHTS, **options), standardised(rewards, WEIGHTS)
    assert (expected[0] == 0).all()
    alone = standardised(rewards[G:], WEIGHTS)
    assert_same(expected[1:], alone)  # as if the group were not there
    factor = (found[1:] / alone.double()).flatten()
    assert (factor > 1.1).all()
    assert_same(factor, factor[:1].expand(8))


def test_weights_are_never_renormalised_in_either():
    rewards = draw(1)
    for scale in (1.0, 10.0):
        weights = [scale * w for w in WEIGHTS]
        assert_same(theirs(rewards, weights, scale_rewards="none"), group_mean(*mixed(rewards, weights)))
    assert_same(theirs(rewards, [10.0, 2.5], scale_rewards="none"), 10 * theirs(rewards, WEIGHTS, scale_rewards="none"))


def test_kl_in_the_reward_is_a_sum_over_tokens_of_k1():
    """Theirs under the learner's policy; Keel's under the engine's, whose tokens they are (`score_groups`)."""
    lengths = [3, 1, 2, 4] * P
    generator = torch.Generator().manual_seed(0)
    old, reference = -torch.rand(2, P * G, 4, generator=generator, dtype=torch.float64) * 3
    rewards = draw(2, columns=1)
    found = theirs(rewards, [1.0], kind=RLOOTrainer, lengths=lengths, old=old, reference=reference, beta=0.1)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    penalty = ((old - reference) * mask).sum(1, keepdim=True)
    assert_same(found, leave_one_out(*mixed(torch.cat([rewards, penalty], 1), [1.0, -0.1])))


def test_their_rloo_can_whiten_over_the_batch_afterwards():
    rewards = draw(1)
    plain = leave_one_out(*mixed(rewards, WEIGHTS)).double()
    found = theirs(rewards, WEIGHTS, kind=RLOOTrainer, normalize_advantages=True)
    assert_same(found, plain / (plain.std() + EPS))  # Keel has no such switch; the mean is 0


def test_soft_overlong_punishment():
    lengths = list(range(1, 30))
    found = get_soft_overlong_punishment(max_completion_len=24, soft_punish_cache=7)([[0] * n for n in lengths])
    assert soft_overlong_penalty(torch.tensor(lengths), max_length=24, buffer=7).tolist() == pytest.approx(found)
