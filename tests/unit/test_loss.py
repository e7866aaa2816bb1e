"""What the learner hands to the head and reports of it: every metric by a loop, and the loss however a step is cut."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from grpo.config import AlgorithmConfig, Importance, KLEstimator, RatioLevel, RatioTo, Surrogate
from grpo.kernels.head import HeadLoss
from grpo.loss import loss_output, loss_tokens
from grpo.records import LossOutput
from tests import oracles
from tests.builders import make_micro_batch
from tests.oracles import Case, make_case

LENGTHS = [3, 1, 4, 3, 2]
INDEX = [s for s, length in enumerate(LENGTHS) for _ in range(length)]
LOW, HIGH = 0.2, 0.28
CONFIGS = {
    "clip": AlgorithmConfig(clip_low=LOW, clip_high=HIGH),
    "dual_clip": AlgorithmConfig(clip_low=LOW, clip_high=HIGH, dual_clip=1.5),
    "cispo": AlgorithmConfig(clip_low=LOW, clip_high=HIGH, surrogate=Surrogate.cispo, kl_coefficient=0.1),
    "reinforce": AlgorithmConfig(surrogate=Surrogate.reinforce, importance=Importance.none),
    "token_mask": AlgorithmConfig(importance=Importance.token_mask, importance_floor=0.7, importance_cap=1.5),
    "sequence_mask": AlgorithmConfig(importance=Importance.sequence_mask, importance_cap=1.5),
    "off_policy": AlgorithmConfig(importance=Importance.none, off_policy_threshold=0.2),
    "gspo": AlgorithmConfig(ratio_level=RatioLevel.sequence, clip_low=0.05, clip_high=0.05),
    "to_behavior": AlgorithmConfig(ratio_to=RatioTo.behavior, importance=Importance.none),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def case_of(*, proximal: bool = True) -> Case:
    return make_case(sequence_index=INDEX, proximal=proximal)


def report(case: Case, config: AlgorithmConfig, *, reference: bool = True) -> LossOutput:
    tokens = case.tokens()
    return loss_output(
        HeadLoss(
            loss=torch.tensor(1.25, requires_grad=True),
            logprobs=torch.tensor(case.logprobs),
            entropy=torch.tensor(case.entropy),
        ),
        tokens if reference else replace(tokens, reference=None),
        config,
    )


def values(metrics) -> dict[str, float]:
    return {name: value.item() for name, value in metrics.items()}


def looped(case: Case, config: AlgorithmConfig) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """(sums, maxima, minima) by their definitions, token by token."""
    proximal = case.logprobs if case.proximal is None else case.proximal
    each = range(len(case))
    ratio = [oracles.ratio(case, t, config, case.logprobs) for t in each]
    weight = [math.exp(proximal[t] - case.behavior[t]) for t in each]
    gaps = [case.logprobs[t] - case.behavior[t] for t in each]
    any_sign = config.surrogate is Surrogate.cispo
    clips = config.surrogate is not Surrogate.reinforce
    low = [clips and ratio[t] < 1 - config.clip_low and (any_sign or case.advantages[t] < 0) for t in each]
    high = [clips and ratio[t] > 1 + config.clip_high and (any_sign or case.advantages[t] > 0) for t in each]
    sums = {
        "tokens": len(case),
        "loss": 1.25,
        "entropy": math.fsum(case.entropy),
        "clip_low": sum(low),
        "clip_high": sum(high),
        # On tokens of the behavior policy KL(behavior || policy) is estimated by r - 1 - log r, r = p / p_behavior.
        "kl_behavior_policy": math.fsum(math.exp(g) - 1 - g for g in gaps),
        "importance": math.fsum(weight),
        "importance_squared": math.fsum(w * w for w in weight),
        "importance_masked": sum(oracles.importance(case, t, config) == 0 for t in each),
        # On tokens of the policy, or nearly so, KL(policy || reference).
        "kl_reference": math.fsum(
            oracles.kl(KLEstimator.k3, case.logprobs[t], case.reference[t], case.behavior[t]) for t in each
        ),
    }
    if config.dual_clip:
        sums["dual_clip"] = sum(case.advantages[t] < 0 and ratio[t] > config.dual_clip for t in each)
    # With one update the ratio to the proximal policy is 1; reported is the one to the engine.
    on_policy = case.proximal is None and config.ratio_to is RatioTo.proximal
    shown = weight if on_policy else ratio
    maxima = {
        "max_abs_logprob_difference": max(map(abs, gaps)),
        "ratio_max_deviation": max(abs(r - 1) for r in shown),
        "ratio_max": max(shown),
    }
    return sums, maxima, {"ratio_min": min(shown)}


@pytest.mark.parametrize("proximal", [True, False], ids=["several_updates", "one_update"])
@every_config
def test_every_metric_by_a_loop(config, proximal):
    case = case_of(proximal=proximal)
    output = report(case, config)
    for found, expected in zip((output.sums, output.maxima, output.minima), looped(case, config), strict=True):
        assert values(found) == pytest.approx(expected, rel=1e-5)
        assert not any(value.requires_grad or value.ndim for value in found.values())


def test_the_loop_saw_every_flag():
    counts = {name: looped(case_of(), config)[0] for name, config in CONFIGS.items()}
    for name in ("clip", "cispo", "gspo", "to_behavior"):
        assert 0 < counts[name]["clip_low"] < len(INDEX) and 0 < counts[name]["clip_high"] < len(INDEX), name
    assert counts["cispo"]["clip_low"] > counts["clip"]["clip_low"]  # whatever the sign of the advantage
    assert counts["cispo"]["clip_high"] > counts["clip"]["clip_high"]
    assert counts["reinforce"]["clip_low"] == counts["reinforce"]["clip_high"] == 0
    assert 0 < counts["dual_clip"]["dual_clip"] < len(INDEX)
    for name in ("token_mask", "sequence_mask", "off_policy"):
        assert 0 < counts[name]["importance_masked"] < len(INDEX), name


def test_metrics_by_hand():
    # Ratios 1.5 (A = 2), 0.5 (A = -1), 3 (A = -1); importance 2, 1, 0.25.
    case = Case(
        logprobs=[math.log(r) - 1 for r in (1.5, 0.5, 3.0)],
        entropy=[0.5, 1.0, 2.0],
        proximal=[-1.0] * 3,
        behavior=[-1 - math.log(w) for w in (2.0, 1.0, 0.25)],
        reference=[0.0] * 3,
        advantages=[2.0, -1.0, -1.0],
        weights=[0.1] * 3,
        sequence_index=[0, 1, 2],
    )
    output = report(case, AlgorithmConfig(dual_clip=2.0), reference=False)
    sums = values(output.sums)
    assert sums.pop("kl_behavior_policy") == pytest.approx(
        (3 - 1 - math.log(3)) + (0.5 - 1 + math.log(2)) + (0.75 - 1 - math.log(0.75)), rel=1e-5
    )
    assert sums == pytest.approx(
        {
            "tokens": 3,
            "loss": 1.25,
            "entropy": 3.5,
            "clip_low": 1,
            "clip_high": 1,
            "importance": 3.25,
            "importance_squared": 5.0625,
            "importance_masked": 0,
            "dual_clip": 1,
        },
        rel=1e-5,
    )
    assert values(output.maxima) == pytest.approx(
        {"max_abs_logprob_difference": math.log(3), "ratio_max_deviation": 2.0, "ratio_max": 3.0}, rel=1e-5
    )
    assert values(output.minima) == pytest.approx({"ratio_min": 0.5}, rel=1e-5)


def test_the_loss_is_the_heads_with_its_gradient():
    output = report(case_of(), CONFIGS["clip"])
    assert output.loss.item() == 1.25 and output.loss.requires_grad
    assert not output.sums["loss"].requires_grad


def test_no_reference_no_reference_metric():
    assert "kl_reference" in report(case_of(), CONFIGS["clip"]).sums
    assert "kl_reference" not in report(case_of(), CONFIGS["clip"], reference=False).sums


@every_config
def test_an_empty_micro_batch_counts_nothing(config):
    empty = make_case(sequence_index=[])
    output = loss_output(HeadLoss(torch.zeros((), requires_grad=True), *torch.zeros(2, 0)), empty.tokens(), config)
    assert set(values(output.sums).values()) == {0.0}
    assert set(values(output.maxima).values()) == {0.0}
    assert values(output.minima) == {"ratio_min": math.inf}


@every_config
def test_metrics_of_micro_batches_add_up(config):
    case = case_of()
    whole = report(case, config)
    parts: list[LossOutput] = []
    for start, stop in ((0, 2), (2, 3), (3, 5)):
        part = case.sequences(start, stop)
        head = HeadLoss(
            loss=torch.tensor(1.25 if start == 0 else 0.0),
            logprobs=torch.tensor(part.logprobs),
            entropy=torch.tensor(part.entropy),
        )
        parts.append(loss_output(head, part.tokens(), config))
    for combine, name in ((sum, "sums"), (max, "maxima"), (min, "minima")):
        combined = {key: combine(getattr(p, name)[key].item() for p in parts) for key in getattr(whole, name)}
        assert combined == pytest.approx(values(getattr(whole, name)), rel=1e-5), name


def test_loss_tokens_are_those_of_the_micro_batch():
    batch = make_micro_batch([-0.5, -1.0, -2.0], [1.0, 1.0, -2.0], [0.1, 0.1, 0.3], lengths=[2, 0, 1])
    proximal, reference = torch.tensor([-0.4, -1.1, -2.2]), torch.tensor([-0.6, -0.9, -1.9])
    tokens = loss_tokens(batch, proximal=proximal, reference=reference)
    assert len(tokens) == 3 and tokens.num_sequences == 3  # one has no loss token
    assert tokens.targets.tolist() == batch.targets.tolist()
    assert tokens.behavior.tolist() == pytest.approx([-0.5, -1.0, -2.0])
    assert tokens.advantages.tolist() == [1.0, 1.0, -2.0]
    assert tokens.weights.tolist() == pytest.approx([0.1, 0.1, 0.3])
    assert tokens.sequence_index.tolist() == [0, 0, 2]
    assert tokens.proximal is proximal and tokens.reference is reference
    bare = loss_tokens(batch)
    assert bare.proximal is None and bare.reference is None


def test_a_slice_of_loss_tokens_has_all_that_belongs_to_them():
    tokens = case_of().tokens()
    part = tokens.slice(2, 5)
    assert len(part) == 3 and part.num_sequences == tokens.num_sequences
    for name in ("targets", "advantages", "weights", "behavior", "proximal", "reference", "sequence_index"):
        assert getattr(part, name).tolist() == getattr(tokens, name)[2:5].tolist()
    assert replace(tokens, proximal=None, reference=None).slice(0, 1).proximal is None
