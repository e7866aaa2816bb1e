"""The token loss for every combination of options that the schema admits, against one loop over floats."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

from grpo.config import (
    AlgorithmConfig,
    Importance,
    KLEstimator,
    KLPlacement,
    RatioLevel,
    RatioTo,
    Surrogate,
)
from grpo.kernels.objective import has_kl_loss, is_token_level, needs_proximal, objective
from tests import oracles
from tests.oracles import Case, label, losses_that_admit, make_case

#: Bounds that the tokens of `make_case` lie on either side of.
BASE = AlgorithmConfig(clip_low=0.2, clip_high=0.3, importance_cap=1.5, importance_floor=0.7)
CONFIGS = losses_that_admit(BASE)
EXTRAS = [
    {"kl_coefficient": beta, "kl_estimator": estimator, "entropy_coefficient": bonus, "off_policy_threshold": threshold}
    for (beta, estimator), bonus, threshold in product(
        [(0.0, KLEstimator.k3), *((0.3, e) for e in KLEstimator)], (0.0, 0.05), (None, 0.2)
    )
]


def run(case: Case, config: AlgorithmConfig):
    """(losses, d total / d logprobs, d total / d entropy, Objective), in float64 but for what the kernels round."""
    tokens = case.tokens(dtype=torch.float64)
    logprobs = torch.tensor(case.logprobs, dtype=torch.float64, requires_grad=True)
    entropy = torch.tensor(case.entropy, dtype=torch.float64, requires_grad=True)
    found = objective(logprobs, entropy, tokens, config)
    total = (found.loss * tokens.weights).sum()
    by_logprob, by_entropy = torch.autograd.grad(total, [logprobs, entropy], allow_unused=True)
    return found.loss.tolist(), by_logprob.tolist(), None if by_entropy is None else by_entropy.tolist(), found


@pytest.mark.parametrize("proximal", [True, False], ids=["several_updates", "one_update"])
@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_value_and_gradient_match_the_formula(config, proximal):
    case = make_case(proximal=proximal)
    for extra in EXTRAS:
        full = replace(config, **extra)
        losses, by_logprob, by_entropy, found = run(case, full)
        assert losses == pytest.approx(oracles.token_losses(case, full), rel=1e-6, abs=1e-7), extra
        assert by_logprob == pytest.approx(oracles.gradient(case, full), rel=1e-5, abs=1e-8), extra
        if full.entropy_coefficient:
            assert by_entropy == pytest.approx([-0.05 * w for w in case.weights]), extra
        else:
            assert by_entropy is None
        expected = [oracles.ratio(case, t, full, case.logprobs) for t in range(len(case))]
        assert found.ratio.tolist() == pytest.approx(expected, rel=1e-9)
        assert not found.ratio.requires_grad
        assert found.importance.tolist() == pytest.approx(
            [oracles.importance(case, t, full) for t in range(len(case))], rel=1e-6
        )
        assert not found.importance.requires_grad


def test_the_schema_admits_what_was_tested():
    # clip: 2 levels, 5 importances to proximal + 1 to behavior, with and without dual clip; cispo 5 + 1; reinforce 5.
    assert len(CONFIGS) == 2 * 6 * 2 + 6 + 5
    assert len(EXTRAS) == 5 * 2 * 2


def test_the_tokens_lie_on_either_side_of_every_bound():
    case = make_case()
    each = range(len(case))
    ratio = [oracles.ratio(case, t, BASE, case.logprobs) for t in each]
    for sign in (-1, 1):
        own = [r for r, a in zip(ratio, case.advantages, strict=True) if a * sign > 0]
        assert min(own) < 0.8 and max(own) > 1.5 and any(0.8 < r < 1.3 for r in own)
    for kind in (Importance.token_mask, Importance.sequence_mask):
        weights = [oracles.importance(case, t, replace(BASE, importance=kind)) for t in each]
        assert 0.0 in weights and any(0.7 < w < 1.5 for w in weights)
    for kind in (Importance.token_truncate, Importance.sequence_truncate):
        weights = [oracles.importance(case, t, replace(BASE, importance=kind)) for t in each]
        assert 1.5 in weights and min(weights) < 0.7
    dropped = replace(BASE, importance=Importance.none, off_policy_threshold=0.2)
    kept = [oracles.importance(case, t, dropped) for t in each if case.advantages[t] < 0]
    assert set(kept) == {0.0, 1.0}


def test_by_hand():
    # Token 1: r = 1.5 above 1.2 with A = 2: -2.4, weight exp(-1 + 2) = 2.718 capped at 2: -4.8.
    # Token 2: r = 1, A = -1: 1, weight exp(-1 + 0.5) = 0.60653. KL k2 of d = 0.2 and -0.4: 0.02, 0.08, times 0.5.
    case = Case(
        logprobs=[-0.5945349, -1.0],
        entropy=[1.0, 2.0],
        proximal=[-1.0, -1.0],
        behavior=[-2.0, -0.5],
        reference=[-0.3945349, -1.4],
        advantages=[2.0, -1.0],
        weights=[0.5, 0.25],
        sequence_index=[0, 1],
    )
    config = AlgorithmConfig(kl_coefficient=0.5, kl_estimator=KLEstimator.k2, entropy_coefficient=0.1)
    losses, *_ = run(case, config)
    assert losses == pytest.approx([-4.8 + 0.01 - 0.1, 0.6065307 + 0.04 - 0.2], rel=1e-6)


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_is_token_level_says_whether_a_loss_depends_on_other_tokens(config, threshold):
    """The truth: move one logprob by much, and see which losses move, or which have it in their gradient."""
    config = replace(config, off_policy_threshold=threshold)
    other = False
    for proximal, seed in product((True, False), (0, 1)):
        case = make_case(proximal=proximal, seed=seed)
        tokens = case.tokens(dtype=torch.float64)
        entropy = torch.tensor(case.entropy, dtype=torch.float64)

        def losses(logprobs, tokens=tokens, entropy=entropy):
            return objective(logprobs, entropy, tokens, config).loss

        logprobs = torch.tensor(case.logprobs, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(losses, logprobs)
        other |= bool((jacobian - torch.diag(jacobian.diag())).any())
        before = losses(logprobs)
        for t, step in product(range(len(case)), (-1.0, 0.3, 1.0)):
            nudged = logprobs.clone()
            nudged[t] += step
            moved = losses(nudged) != before
            moved[t] = False
            other |= bool(moved.any())
    assert is_token_level(config) == (not other)


@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_needs_proximal_says_whether_the_loss_looks_at_it(config):
    case = make_case()
    assert case.proximal is not None
    other = replace(case, proximal=[p + 0.3 for p in case.proximal])
    assert needs_proximal(config) == (run(case, config)[:2] != run(other, config)[:2])


@pytest.mark.parametrize(("beta", "where"), list(product([0.0, 0.1], KLPlacement)))
def test_has_kl_loss_says_whether_the_loss_looks_at_the_reference(beta, where):
    config = AlgorithmConfig(kl_coefficient=beta, kl_in=where)
    case = make_case()
    other = replace(case, reference=[p + 0.3 for p in case.reference])
    assert has_kl_loss(config) == (run(case, config)[0] != run(other, config)[0])


def test_without_a_kl_term_no_reference_is_needed():
    tokens = replace(make_case().tokens(), reference=None)
    logprobs = torch.tensor(make_case().logprobs)
    found = objective(logprobs, torch.zeros(len(tokens)), tokens, AlgorithmConfig())
    assert torch.isfinite(found.loss).all()


@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_on_policy_the_gradient_is_that_of_reinforce(config):
    """One update, and an engine that agrees with the learner: every ratio and weight is 1."""
    case = make_case(proximal=False)
    case = replace(case, behavior=case.logprobs)
    _, by_logprob, _, found = run(case, config)
    assert by_logprob[0] != 0
    if config.ratio_level is RatioLevel.sequence:  # a sequence's gradient is shared evenly among its tokens
        expected = [
            sum(-case.weights[s] * case.advantages[s] for s in case.members(t)) / len(case.members(t))
            for t in range(len(case))
        ]
    else:
        expected = [-w * a for w, a in zip(case.weights, case.advantages, strict=True)]
    assert by_logprob == pytest.approx(expected, rel=1e-6)
    assert set(found.ratio.tolist()) == set(found.importance.tolist()) == {1.0}


def test_kl_and_entropy_are_not_touched_by_weights_and_masks():
    case = make_case()
    masked = replace(
        BASE, importance=Importance.token_mask, importance_floor=50.0, importance_cap=60.0, kl_coefficient=0.3
    )
    everything_masked, *_ = run(case, replace(masked, entropy_coefficient=0.1))
    penalty = [
        0.3 * oracles.kl(KLEstimator.weighted_k3, p, reference, b) - 0.1 * h
        for p, reference, b, h in zip(case.logprobs, case.reference, case.behavior, case.entropy, strict=True)
    ]
    assert everything_masked == pytest.approx(penalty, rel=1e-9)


def test_to_behavior_the_ratio_is_the_correction():
    case = make_case()
    _, _, _, found = run(case, replace(BASE, ratio_to=RatioTo.behavior, importance=Importance.none))
    expected = [oracles.bounded_exp(p - b) for p, b in zip(case.logprobs, case.behavior, strict=True)]
    assert found.ratio.tolist() == pytest.approx(expected)
    assert Surrogate.clip is BASE.surrogate
