"""Losses, KL and importance weights of verl beside Keel's: equal, or different as docs/algorithm.md says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from grpo.config import Aggregation, AlgorithmConfig, Importance, KLEstimator, RatioLevel, RatioTo, Surrogate
from grpo.kernels import kl
from grpo.kernels.importance import mask_outside, sequence_importance, token_importance, truncate
from tests.agreement.padded import CONSTANT_LENGTH, LENGTHS, Padded, keel, random_case
from tests.agreement.verl_functions import core, correction, workers
from tests.oracles import Case

SEEDS = range(3)
PLAIN = AlgorithmConfig(importance=Importance.none)
NO_DUAL_CLIP = 1e9  #: verl's is always on
MODES = {
    Aggregation.token_mean: "token-mean",
    Aggregation.sequence_mean: "seq-mean-token-mean",
    Aggregation.constant_length: "seq-mean-token-sum-norm",
}


def actor(**options: Any):
    batch = {"loss_scale_factor": CONSTANT_LENGTH, **options.pop("global_batch_info", {})}
    defaults = {"strategy": "fsdp", "rollout_n": 1, "ppo_micro_batch_size_per_gpu": 1, "clip_ratio_c": NO_DUAL_CLIP}
    return workers.ActorConfig(**{**defaults, **options, "global_batch_info": batch})


def theirs(case: Case, name: str = "vanilla", aggregation: Aggregation = Aggregation.token_mean, **options: Any):
    """(loss, d loss / d logprobs [L]) of one of verl's policy losses; `weights` [L] are importance weights."""
    padded = Padded(case, options.pop("lengths", LENGTHS))
    weights = options.pop("weights", None)
    logprobs = padded.spread(case.logprobs).requires_grad_()
    loss, _ = core.get_policy_loss_fn(name)(
        old_log_prob=padded.spread(case.proximal or []),
        log_prob=logprobs,
        advantages=padded.advantages[:, None].expand(logprobs.shape),
        response_mask=padded.mask,
        loss_agg_mode=MODES[aggregation],
        config=actor(**options),
        rollout_is_weights=None if weights is None else padded.spread(weights),
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return loss.item(), padded.gathered(gradient)


def assert_same(found, expected, rel: float = 1e-6) -> None:
    assert found[0] == pytest.approx(expected[0], rel=rel)
    assert found[1] == pytest.approx(expected[1], rel=rel, abs=1e-9)


def differs(found, expected) -> bool:
    return found[1] != pytest.approx(expected[1], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("aggregation", MODES)
def test_the_clipped_loss_and_its_aggregations(aggregation, seed):
    case = random_case(seed)
    found = theirs(case, aggregation=aggregation, clip_ratio_low=0.2, clip_ratio_high=0.28)
    assert_same(found, keel(case, replace(PLAIN, clip_high=0.28), aggregation))


@pytest.mark.parametrize("aggregation", MODES)
def test_a_masked_completion_counts_in_no_denominator(aggregation):
    lengths, case = (*LENGTHS, 0), random_case()
    assert_same(theirs(case, aggregation=aggregation, lengths=lengths), keel(case, PLAIN, aggregation, lengths))


@pytest.mark.parametrize("seed", SEEDS)
def test_dual_clip_which_is_always_on_there_and_off_by_default_here(seed):
    case = random_case(seed)
    case = replace(case, advantages=[-abs(a) for a in case.advantages])
    expected = keel(case, replace(PLAIN, dual_clip=1.25), Aggregation.token_mean)
    assert_same(theirs(case, clip_ratio_c=1.25), expected)
    assert differs(expected, keel(case, PLAIN, Aggregation.token_mean))
    assert workers.ActorConfig.__dataclass_fields__["clip_ratio_c"].default == 3.0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("aggregation", MODES)
def test_gspo(aggregation, seed):
    """Theirs gives each token the sequence's ratio and its own gradient; summed over a sequence that is the same."""
    case = random_case(seed)
    config = replace(PLAIN, ratio_level=RatioLevel.sequence, clip_low=0.05, clip_high=0.1)
    found = theirs(case, "gspo", aggregation, clip_ratio_low=0.05, clip_ratio_high=0.1)
    assert_same(found, keel(case, config, aggregation))


def test_gspo_with_token_weights_keeps_them_by_token_there_and_shares_them_here():
    case = random_case()
    assert case.proximal is not None
    weights = [min(math.exp(p - b), 1.5) for p, b in zip(case.proximal, case.behavior, strict=True)]
    config = AlgorithmConfig(ratio_level=RatioLevel.sequence, importance_cap=1.5, clip_low=1.0, clip_high=9.0)
    found = theirs(case, "gspo", clip_ratio_low=1.0, clip_ratio_high=9.0, weights=weights)
    expected = keel(case, config, Aggregation.token_mean)
    assert found[0] == pytest.approx(expected[0])
    assert differs(found, expected)
    for s in range(len(LENGTHS)):  # over a sequence the sum is the same
        own = [t for t in range(len(case)) if case.sequence_index[t] == s]
        assert sum(found[1][t] for t in own) == pytest.approx(sum(expected[1][t] for t in own))


@pytest.mark.parametrize("seed", SEEDS)
def test_cispo(seed):
    case = random_case(seed)
    config = replace(PLAIN, surrogate=Surrogate.cispo, clip_high=0.28)
    found = theirs(case, "cispo", clip_ratio_low=0.2, clip_ratio_high=0.28)
    assert_same(found, keel(case, config, Aggregation.token_mean))


def reinforce(case: Case, weights: list[float] | None):
    padded = Padded(case)
    logprobs = padded.spread(case.logprobs).requires_grad_()
    loss, _ = core.compute_policy_loss_reinforce(
        rollout_log_prob=padded.spread(case.behavior),
        log_prob=logprobs,
        advantages=padded.advantages[:, None].expand(logprobs.shape),
        response_mask=padded.mask,
        loss_agg_mode="token-mean",
        config=actor(),
        rollout_is_weights=None if weights is None else padded.spread(weights),
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return loss.item(), padded.gathered(gradient)


@pytest.mark.parametrize("seed", SEEDS)
def test_reinforce_with_and_without_truncated_weights(seed):
    case = random_case(seed, proximal=False)  # one update: the weight is of the current policy
    config = AlgorithmConfig(surrogate=Surrogate.reinforce, importance=Importance.none)
    assert_same(reinforce(case, None), keel(case, config, Aggregation.token_mean))
    weights = [min(math.exp(p - b), 1.5) for p, b in zip(case.logprobs, case.behavior, strict=True)]
    truncated = replace(config, importance=Importance.token_truncate, importance_cap=1.5)
    assert_same(reinforce(case, weights), keel(case, truncated, Aggregation.token_mean))


def test_bypass_mode_is_the_ratio_to_behavior():
    case = random_case()
    config = replace(PLAIN, ratio_to=RatioTo.behavior, clip_high=0.28)
    found = theirs(replace(case, proximal=case.behavior), clip_ratio_high=0.28)
    assert_same(found, keel(case, config, Aggregation.token_mean))


@pytest.mark.parametrize("log_ratio", [-30.0, 19.0, 30.0])
def test_a_distant_policy_is_held_at_the_same_20_nats(log_ratio):
    case = random_case()
    case = replace(case, proximal=[p - log_ratio for p in case.logprobs], advantages=[-a for a in case.advantages])
    assert_same(theirs(case), keel(case, PLAIN, Aggregation.token_mean))


def test_in_gspo_they_hold_it_at_10_above_and_nowhere_below():
    case = replace(random_case(), advantages=[-1.0] * sum(LENGTHS))
    case = replace(case, proximal=[p - 15.0 for p in case.logprobs])
    config = replace(PLAIN, ratio_level=RatioLevel.sequence)
    assert theirs(case, "gspo")[0] == pytest.approx(math.exp(10))
    assert keel(case, config, Aggregation.token_mean)[0] == pytest.approx(math.exp(15))


LEVELS = {
    Importance.token_truncate: ("token", "1.5"),
    Importance.token_mask: ("token", "0.7_1.5"),
    Importance.sequence_truncate: ("sequence", "1.5"),
    Importance.sequence_mask: ("sequence", "0.7_1.5"),
}


@pytest.mark.parametrize("seed", [0, 2, 3])  # their metrics divide by 0 where every weight is masked
@pytest.mark.parametrize("kind", LEVELS)
def test_importance_weights_and_what_they_multiply(kind, seed):
    case = random_case(seed)
    padded, tokens = Padded(case), case.tokens(dtype=torch.float64)
    assert tokens.proximal is not None
    level, threshold = LEVELS[kind]
    log_ratio = padded.spread(case.proximal or []) - padded.spread(case.behavior)
    found, _ = correction.compute_rollout_correction_weights(log_ratio, padded.mask, level, threshold)
    weights = (
        token_importance(tokens.proximal, tokens.behavior)
        if level == "token"
        else sequence_importance(tokens.proximal, tokens.behavior, tokens.sequence_index, tokens.num_sequences)
    )
    weights = mask_outside(weights, 0.7, 1.5) if "_" in threshold else truncate(weights, 1.5)
    assert padded.gathered(found) == pytest.approx(weights.tolist(), rel=1e-5)
    config = AlgorithmConfig(importance=kind, importance_floor=0.7, importance_cap=1.5)
    assert_same(theirs(case, weights=weights.tolist()), keel(case, config, Aggregation.token_mean))


@pytest.mark.parametrize(("name", "estimator"), [("k1", kl.k1), ("k2", kl.k2), ("k3", kl.k3)])
def test_kl_estimators(name, estimator):
    case = random_case()
    logprobs, reference = (torch.tensor(v, dtype=torch.float64) for v in (case.logprobs, case.reference))
    torch.testing.assert_close(core.kl_penalty(logprobs, reference, name), estimator(logprobs, reference))


def test_their_k3_is_held_at_10_and_loses_its_gradient_there():
    logprobs, reference = torch.tensor([-6.0], requires_grad=True), torch.tensor([-1.0])  # d = 5
    found, here = core.kl_penalty(logprobs, reference, "k3"), kl.k3(logprobs, reference)
    assert found.item() == 10.0 and here.item() == pytest.approx(math.exp(5) - 6)
    assert torch.autograd.grad(found.sum(), logprobs)[0].item() == 0.0
    assert torch.autograd.grad(here.sum(), logprobs)[0].item() == pytest.approx(1 - math.exp(5))


def test_their_k3_is_lost_near_zero_in_float32():
    logprobs, reference = torch.zeros(1), torch.full((1,), 1e-4)
    exact = 1e-8 / 2
    assert abs(core.kl_penalty(logprobs, reference, "k3").item() / exact - 1) > 0.5
    assert kl.k3(logprobs, reference).item() == pytest.approx(exact, rel=2e-3)


def test_for_the_reverse_kl_off_policy_they_have_k2_straight_through_and_keel_weighted_k3():
    """k3+ has the value of k3 and the gradient of k2, exact on-policy only."""
    case = random_case()
    logprobs = torch.tensor(case.logprobs, dtype=torch.float64, requires_grad=True)
    reference = torch.tensor(case.reference, dtype=torch.float64)
    found = core.kl_penalty(logprobs, reference, "k3+")
    torch.testing.assert_close(found, kl.k3(logprobs, reference))
    (gradient,) = torch.autograd.grad(found.sum(), logprobs)
    torch.testing.assert_close(gradient, torch.autograd.grad(kl.k2(logprobs, reference).sum(), logprobs)[0])
    assert KLEstimator.weighted_k3 is AlgorithmConfig().kl_estimator


def test_denominators_are_the_steps_if_it_is_told_them():
    case = random_case()
    whole = keel(case, PLAIN, Aggregation.token_mean)[0]
    parts = [case.sequences(0, 2), case.sequences(2, 5)]
    lengths = [LENGTHS[:2], LENGTHS[2:]]

    def step(**info: int) -> float:
        total = 0.0
        for part, own in zip(parts, lengths, strict=True):
            padded = Padded(part, own)
            loss, _ = core.compute_policy_loss_vanilla(
                padded.spread(part.proximal or []),
                padded.spread(part.logprobs),
                padded.advantages[:, None].expand(padded.mask.shape),
                padded.mask,
                config=actor(global_batch_info=info),
            )
            total += loss.item()
        return total

    assert step(batch_num_tokens=sum(LENGTHS)) == pytest.approx(whole)
    assert step() / 2 != pytest.approx(whole, rel=1e-3)  # each micro-batch by its own tokens
    # Ranks are averaged by their backend, so its size is multiplied; Keel's is told to sum.
    assert step(batch_num_tokens=sum(LENGTHS), dp_size=2) / 2 == pytest.approx(whole)
