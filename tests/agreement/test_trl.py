"""Losses and importance weights of TRL's GRPOTrainer beside Keel's: equal, or different as docs/algorithm.md says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from grpo.config import Aggregation, AlgorithmConfig, Importance, KLEstimator, RatioLevel, Surrogate
from grpo.kernels.importance import mask_outside, sequence_importance, token_importance, truncate
from grpo.kernels.kl import k3
from grpo.kernels.surrogate import token_ratio
from tests.agreement import trl_trainers
from tests.agreement.padded import CONSTANT_LENGTH, LENGTHS, Padded, keel, random_case
from tests.oracles import Case

SEEDS = range(3)
PLAIN = AlgorithmConfig(importance=Importance.none)
ONE_RATIO: dict[str, Any] = {"importance_sampling_level": "sequence", "loss_type": "grpo"}


def theirs(case: Case, *, lengths: tuple[int, ...] = LENGTHS, **options):
    """(loss, d loss / d logprobs [L]) of the case as TRL's only micro-batch; `ratios` [L] are importance weights."""
    padded = Padded(case, lengths)
    logprobs = padded.spread(case.logprobs).requires_grad_()
    known = {"ref_per_token_logps": padded.spread(case.reference)}
    if case.proximal is not None:
        known["old_per_token_logps"] = padded.spread(case.proximal)
    if options.get("use_vllm"):
        known["sampling_per_token_logps"] = padded.spread(case.behavior)
        known["importance_sampling_ratio"] = padded.spread(options.pop("ratios"))
    options.setdefault("max_completion_length", CONSTANT_LENGTH)
    loss = trl_trainers.loss(logprobs, padded.mask, padded.advantages, padded.spread(case.entropy), known, **options)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return loss.item(), padded.gathered(gradient)


def assert_same(found, expected) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found[1] == pytest.approx(expected[1], rel=1e-6, abs=1e-9)


def differs(found, expected) -> bool:
    return found[1] != pytest.approx(expected[1], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("proximal", [True, False], ids=["old_logprobs", "on_policy"])
@pytest.mark.parametrize(
    ("loss_type", "aggregation"),
    [
        ("dapo", Aggregation.token_mean),
        ("bnpo", Aggregation.token_mean),
        ("grpo", Aggregation.sequence_mean),
        ("dr_grpo", Aggregation.constant_length),
    ],
)
def test_the_clipped_loss_and_its_aggregations(loss_type, aggregation, proximal, seed):
    case = random_case(seed, proximal=proximal)
    config = replace(PLAIN, clip_low=0.2, clip_high=0.28)
    found = theirs(case, loss_type=loss_type, epsilon_low=0.2, epsilon_high=0.28)
    assert_same(found, keel(case, config, aggregation))


@pytest.mark.parametrize("seed", SEEDS)
def test_sequence_level_is_gspo(seed):
    case = random_case(seed)
    config = replace(PLAIN, ratio_level=RatioLevel.sequence, clip_low=0.05, clip_high=0.1)
    found = theirs(case, epsilon_low=0.05, epsilon_high=0.1, **ONE_RATIO)
    assert_same(found, keel(case, config, Aggregation.sequence_mean))


def test_a_sequence_ratio_with_another_loss_type_weighs_long_sequences_less():
    """TRL keeps one loss a sequence and multiplies it with the mask: the same, so the aggregation decides alone."""
    case = random_case()
    config = replace(PLAIN, ratio_level=RatioLevel.sequence)
    found = theirs(case, importance_sampling_level="sequence", loss_type="dapo")
    assert_same(found, keel(case, config, Aggregation.token_mean))


def test_a_sequence_ratio_with_token_weights():
    case = random_case()
    assert case.proximal is not None
    config = AlgorithmConfig(ratio_level=RatioLevel.sequence, importance_cap=1.5)
    weights = [min(math.exp(p - b), 1.5) for p, b in zip(case.proximal, case.behavior, strict=True)]
    found = theirs(case, use_vllm=True, ratios=weights, **ONE_RATIO)
    assert_same(found, keel(case, config, Aggregation.sequence_mean))


@pytest.mark.parametrize("seed", SEEDS)
def test_cispo_their_bound_is_on_the_ratio_and_there_is_no_lower_one(seed):
    case = random_case(seed)
    config = replace(PLAIN, surrogate=Surrogate.cispo, clip_high=0.3)
    found = theirs(case, loss_type="cispo", epsilon_high=1.3)
    assert_same(found, keel(case, replace(config, clip_low=1.0), Aggregation.token_mean))
    assert differs(found, keel(case, replace(config, clip_low=0.2), Aggregation.token_mean))


@pytest.mark.parametrize("seed", SEEDS)
def test_delta_is_a_dual_clip_where_it_lies_above_the_clip(seed):
    case = random_case(seed)
    case = replace(case, advantages=[-abs(a) for a in case.advantages])
    dual = keel(case, replace(PLAIN, dual_clip=1.25), Aggregation.token_mean)
    assert differs(dual, keel(case, PLAIN, Aggregation.token_mean))
    assert_same(theirs(case, delta=1.25), dual)


def test_delta_below_the_clip_also_bounds_positive_advantages():
    """r A with r held at delta, before the minimum; the dual clip is for negative advantages only."""
    case = replace(random_case(), advantages=[1.0] * sum(LENGTHS))
    wide: dict[str, Any] = {"epsilon_low": 0.2, "epsilon_high": 1.0}
    config = replace(PLAIN, clip_high=1.0, dual_clip=1.5)
    assert differs(theirs(case, delta=1.5, **wide), keel(case, config, Aggregation.token_mean))
    assert_same(theirs(case, **wide), keel(case, config, Aggregation.token_mean))


@pytest.mark.parametrize("seed", SEEDS)
def test_off_policy_sequences_are_dropped_alike(seed):
    case = random_case(seed)
    config = replace(PLAIN, off_policy_threshold=0.2, kl_coefficient=0.1, kl_estimator=KLEstimator.k3)
    padded = Padded(case)
    logprobs = padded.spread(case.logprobs).requires_grad_()
    known = {
        "old_per_token_logps": padded.spread(case.proximal or []),
        "sampling_per_token_logps": padded.spread(case.behavior),
        "ref_per_token_logps": padded.spread(case.reference),
    }
    options = {"off_policy_mask_threshold": 0.2, "beta": 0.1, "use_bias_correction_kl": False}
    loss = trl_trainers.loss(logprobs, padded.mask, padded.advantages, padded.spread(case.entropy), known, **options)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert_same((loss.item(), padded.gathered(gradient)), keel(case, config, Aggregation.token_mean))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("corrected", "estimator"), [(False, KLEstimator.k3), (True, KLEstimator.weighted_k3)])
def test_kl_penalty_where_the_old_policy_sampled(corrected, estimator, seed):
    case = random_case(seed)
    assert case.proximal is not None
    case = replace(case, behavior=case.proximal)
    config = replace(PLAIN, kl_coefficient=0.3, kl_estimator=estimator)
    found = theirs(case, beta=0.3, use_bias_correction_kl=corrected)
    assert_same(found, keel(case, config, Aggregation.token_mean))


def test_kl_weight_is_to_the_old_policy_there_and_to_the_engine_here():
    case = random_case()
    config = replace(PLAIN, kl_coefficient=0.3, kl_estimator=KLEstimator.weighted_k3)
    found = theirs(case, beta=0.3, use_vllm=True, ratios=[1.0] * sum(LENGTHS))
    assert differs(found, keel(case, config, Aggregation.token_mean))
    assert case.proximal is not None
    assert_same(found, keel(replace(case, behavior=case.proximal), config, Aggregation.token_mean))


def test_kl_weight_with_a_sequence_ratio_is_the_sequences_there_and_the_tokens_here():
    case = random_case()
    assert case.proximal is not None
    case = replace(case, behavior=case.proximal)
    config = replace(PLAIN, ratio_level=RatioLevel.sequence, kl_coefficient=0.3, kl_estimator=KLEstimator.weighted_k3)
    expected = keel(case, config, Aggregation.sequence_mean)
    assert differs(theirs(case, beta=0.3, **ONE_RATIO), expected)
    plain = replace(config, kl_estimator=KLEstimator.k3)
    found = theirs(case, beta=0.3, use_bias_correction_kl=False, **ONE_RATIO)
    assert_same(found, keel(case, plain, Aggregation.sequence_mean))


MODES = {
    "token_truncate": Importance.token_truncate,
    "token_mask": Importance.token_mask,
    "sequence_truncate": Importance.sequence_truncate,
    "sequence_mask": Importance.sequence_mask,
}


def engine_ratios(case: Case, mode: str, low: float | None, high: float) -> Tensor:
    """[B, T] or [B, 1], as TRL computes them when it has sampled with vLLM."""
    padded = Padded(case)
    sampled = [row[mask.bool()].tolist() for row, mask in zip(padded.spread(case.behavior), padded.mask, strict=True)]
    output = trl_trainers.generate_and_score(
        torch.zeros(len(LENGTHS), 1),
        [1.0],
        len(LENGTHS),
        lengths=LENGTHS,
        old=padded.spread(case.proximal or []),
        sampled=sampled,
        use_vllm=True,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=low,
        vllm_importance_sampling_clip_max=high,
    )
    return output["importance_sampling_ratio"].double().expand(padded.mask.shape)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mode", MODES)
def test_importance_weights_and_what_they_multiply(mode, seed):
    case = random_case(seed)
    tokens = case.tokens(dtype=torch.float64)
    assert tokens.proximal is not None
    low = 0.7 if mode.endswith("mask") else None
    ratios = Padded(case).gathered(engine_ratios(case, mode, low, 1.5))
    weights = (
        token_importance(tokens.proximal, tokens.behavior)
        if mode.startswith("token")
        else sequence_importance(tokens.proximal, tokens.behavior, tokens.sequence_index, tokens.num_sequences)
    )
    weights = mask_outside(weights, 0.7, 1.5) if low else truncate(weights, 1.5)
    assert ratios == pytest.approx(weights.tolist(), rel=1e-5)
    config = AlgorithmConfig(
        importance=MODES[mode],
        importance_floor=0.7,
        importance_cap=1.5,
        kl_coefficient=0.1,
        kl_estimator=KLEstimator.k3,
    )
    found = theirs(case, use_vllm=True, ratios=weights.tolist(), beta=0.1, use_bias_correction_kl=False)
    assert_same(found, keel(case, config, Aggregation.token_mean))


def test_their_truncation_may_also_lift_small_weights():
    case = random_case()
    tokens = case.tokens(dtype=torch.float64)
    assert tokens.proximal is not None
    ratios = Padded(case).gathered(engine_ratios(case, "token_truncate", 0.7, 1.5))
    weights = truncate(token_importance(tokens.proximal, tokens.behavior), 1.5)
    assert weights.min() < 0.7
    assert ratios == pytest.approx(weights.clamp(min=0.7).tolist(), rel=1e-5)


def test_the_entropy_bonus_is_a_mean_over_tokens_there_and_aggregated_as_the_loss_here():
    case = random_case()
    options: dict[str, Any] = {"_entropy_bonus_enabled": True, "entropy_coef": 0.1}
    config = replace(PLAIN, entropy_coefficient=0.1)
    assert_same(theirs(case, **options), keel(case, config, Aggregation.token_mean))
    found = theirs(case, loss_type="grpo", **options)
    expected = keel(case, config, Aggregation.sequence_mean)
    assert found[1] == pytest.approx(expected[1])  # by logprobs; the value shows the entropy
    assert found[0] != pytest.approx(expected[0], rel=1e-3)


def split(case: Case, loss_type: str) -> float:
    """TRL's loss of a step in two micro-batches of 2 and 3 sequences, or 4 and 9 tokens; their mean."""
    return sum(
        theirs(
            case.sequences(start, stop),
            lengths=LENGTHS[start:stop],
            loss_type=loss_type,
            current_gradient_accumulation_steps=2,
        )[0]
        for start, stop in ((0, 2), (2, 5))
    )


@pytest.mark.parametrize(
    ("loss_type", "aggregation"),
    [
        ("bnpo", Aggregation.token_mean),
        ("grpo", Aggregation.sequence_mean),
        ("dr_grpo", Aggregation.constant_length),
    ],
)
def test_denominators_are_the_micro_batches_own_there_and_the_steps_here(loss_type, aggregation):
    """Cut unevenly the same step has another loss. Keel's is invariant: tests/unit/test_partition.py."""
    case = random_case()
    assert split(case, loss_type) != pytest.approx(keel(case, PLAIN, aggregation)[0], rel=1e-3)


@pytest.mark.parametrize(
    ("loss_type", "config"),
    [("dapo", PLAIN), ("cispo", replace(PLAIN, surrogate=Surrogate.cispo, clip_low=1.0, clip_high=0.2))],
)
def test_two_of_their_loss_types_have_the_steps_denominator(loss_type, config):
    case = random_case()
    total = torch.tensor(sum(LENGTHS))
    found = 0.0
    for start, stop in ((0, 2), (2, 5)):
        part = case.sequences(start, stop)
        padded = Padded(part, LENGTHS[start:stop])
        known = {"old_per_token_logps": padded.spread(part.proximal or []), "num_items_in_batch": total}
        found += trl_trainers.loss(
            padded.spread(part.logprobs),
            padded.mask,
            padded.advantages,
            padded.spread(part.entropy),
            known,
            loss_type=loss_type,
            epsilon_high=1.2 if loss_type == "cispo" else 0.2,
            current_gradient_accumulation_steps=2,
            steps_per_generation=2,
        ).item()
    assert found == pytest.approx(keel(case, config, Aggregation.token_mean)[0])


def test_a_masked_completion_stays_in_their_count_of_sequences():
    lengths = (*LENGTHS, 0)
    case = random_case()
    found, here = theirs(case, lengths=lengths, loss_type="grpo"), keel(case, PLAIN, Aggregation.sequence_mean, lengths)
    count = len(LENGTHS)
    assert found[0] == pytest.approx(here[0] * count / (count + 1))


def test_a_distant_policy_overflows_their_ratio():
    case = replace(random_case(), logprobs=[-1.0] * sum(LENGTHS), proximal=[-800.0] * sum(LENGTHS))
    case = replace(case, advantages=[-1.0] * sum(LENGTHS))
    assert math.isinf(theirs(case)[0])
    assert math.isfinite(keel(case, PLAIN, Aggregation.token_mean)[0])
    assert token_ratio(torch.tensor(0.0), torch.tensor(-800.0)).item() == pytest.approx(math.exp(20))


def test_their_k3_is_lost_near_zero_in_float32():
    logprobs, reference = torch.zeros(1, 1), torch.full((1, 1), 1e-4)
    mask, zero = torch.ones(1, 1, dtype=torch.int64), torch.zeros(1)
    known = {"ref_per_token_logps": reference}
    found = trl_trainers.loss(logprobs, mask, zero, logprobs, known, beta=1.0, use_bias_correction_kl=False).item()
    exact = 1e-8 / 2
    assert abs(found / exact - 1) > 0.5
    assert k3(logprobs, reference).item() == pytest.approx(exact, rel=2e-3)
