"""The loss of a micro-batch against the formula written out in float64, token by token."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from grpo.config import AlgorithmConfig, KLEstimator
from grpo.loss import policy_loss
from tests.builders import make_micro_batch

L = 9
NAN = math.nan


def case(seed=0) -> dict[str, np.ndarray]:
    """Random inputs that leave no token near a kink; two tokens have weight 0."""
    rng = np.random.default_rng(seed)
    logprobs = -rng.uniform(0.1, 4.0, L)
    inputs = {
        "logprobs": logprobs,
        "proximal": logprobs + rng.uniform(-0.6, 0.6, L),
        "behavior": logprobs + rng.uniform(-1.2, 1.2, L),
        "reference": logprobs + rng.uniform(-0.8, 0.8, L),
        "entropy": rng.uniform(0, 2, L),
        "advantages": np.where(np.arange(L) % 2, 1.0, -1.0) * rng.uniform(0.2, 2.0, L),
        "weights": rng.uniform(0.01, 0.2, L),
    }
    inputs["weights"][[2, 5]] = 0.0
    return {name: values.astype(np.float32).astype(np.float64) for name, values in inputs.items()}


def looped_loss(logprobs, inputs, config):
    """loss = sum_t w_t [tis_t surrogate_t + beta kl_t], in Python floats. `logprobs` moves, the rest is data."""
    total = 0.0
    for t in range(L):
        if inputs["weights"][t] == 0:
            continue
        p, prox, behavior = logprobs[t], inputs["proximal"][t], inputs["behavior"][t]
        advantage = inputs["advantages"][t]
        ratio = math.exp(p - prox)
        bounded = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
        token = -min(ratio * advantage, bounded * advantage)
        if config.importance_cap is not None:
            token *= min(math.exp(prox - behavior), config.importance_cap)
        d = inputs["reference"][t] - p
        k3 = math.exp(d) - 1 - d
        token += (
            config.kl_coefficient
            * {
                "k1": -d,
                "k2": d * d / 2,
                "k3": k3,
                "weighted_k3": math.exp(p - behavior) * k3,
            }[config.kl_estimator.value]
        )
        total += inputs["weights"][t] * token
    return total


def numerical_gradient(inputs, config, step=1e-6):
    gradient = np.zeros(L)
    for t in range(L):
        nudge = np.zeros(L)
        nudge[t] = step
        up = looped_loss(inputs["logprobs"] + nudge, inputs, config)
        down = looped_loss(inputs["logprobs"] - nudge, inputs, config)
        gradient[t] = (up - down) / (2 * step)
    return gradient


def run(inputs, config, *, proximal=True, reference=True):
    """(LossOutput, gradient of the loss by logprob)."""
    tensors = {name: torch.tensor(values, dtype=torch.float32) for name, values in inputs.items()}
    logprobs = tensors["logprobs"].requires_grad_()
    output = policy_loss(
        logprobs,
        tensors["entropy"],
        make_micro_batch(inputs["behavior"], inputs["advantages"], inputs["weights"]),
        config,
        proximal_logprobs=tensors["proximal"] if proximal else None,
        reference_logprobs=tensors["reference"] if reference else None,
    )
    output.loss.backward()
    assert logprobs.grad is not None
    return output, logprobs.grad.double().numpy()


CONFIGS = [
    AlgorithmConfig(importance_cap=cap, kl_coefficient=coefficient, kl_estimator=estimator, clip_high=0.28)
    for cap, (coefficient, estimator) in product(
        [None, 2.0, 0.7], [(0.0, KLEstimator.k3), *((0.3, estimator) for estimator in KLEstimator)]
    )
]


def label(config):
    return f"cap={config.importance_cap}-kl={config.kl_coefficient}x{config.kl_estimator.value}"


@pytest.mark.parametrize("proximal", [True, False])
@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_value_and_gradient_match_the_formula(config, proximal):
    inputs = case()
    output, gradient = run(inputs, config, proximal=proximal)
    if not proximal:  # then the proximal policy is the current one, held fixed
        inputs["proximal"] = inputs["logprobs"].copy()
    assert output.loss.item() == pytest.approx(looped_loss(inputs["logprobs"], inputs, config), rel=1e-5)
    np.testing.assert_allclose(gradient, numerical_gradient(inputs, config), rtol=1e-4, atol=1e-6)


def test_by_hand():
    # Token 1: r = 1.5 above 1.2 with A = 2: -2.4, TIS exp(-1 + 2) = 2.718 capped at 2: -4.8, weight 0.5.
    # Token 2: r = 1, A = -1: 1, TIS exp(-1 + 0.5) = 0.60653, weight 0.25.
    batch = make_micro_batch([-2.0, -0.5], [2.0, -1.0], [0.5, 0.25])
    logprobs = torch.tensor([-1.0 + math.log(1.5), -1.0], requires_grad=True)
    output = policy_loss(
        logprobs, torch.zeros(2), batch, AlgorithmConfig(), proximal_logprobs=torch.tensor([-1.0, -1.0])
    )
    assert output.loss.item() == pytest.approx(0.5 * -4.8 + 0.25 * 0.6065307, rel=1e-6)


def test_loss_is_linear_in_the_weights_so_micro_batches_add_up():
    inputs, config = case(), AlgorithmConfig(kl_coefficient=0.1)
    whole, gradient = run(inputs, config)
    parts = []
    for chosen in (np.arange(L) < 4, np.arange(L) >= 4):
        parts.append(run({**inputs, "weights": np.where(chosen, inputs["weights"], 0.0)}, config))
    assert sum(p.loss.item() for p, _ in parts) == pytest.approx(whole.loss.item(), rel=1e-5)
    np.testing.assert_allclose(sum(g for _, g in parts), gradient, rtol=1e-5, atol=1e-7)
    for name, value in whole.sums.items():
        assert sum(p.sums[name].item() for p, _ in parts) == pytest.approx(value.item(), rel=1e-5), name
    for name, value in whole.maxima.items():
        assert max(p.maxima[name].item() for p, _ in parts) == pytest.approx(value.item()), name


def test_metrics():
    inputs = case(seed=1)
    output, _ = run(inputs, AlgorithmConfig(clip_low=0.2, clip_high=0.28))
    kept = inputs["weights"] > 0
    logprobs, proximal, behavior, reference, advantages = (
        inputs[name][kept] for name in ("logprobs", "proximal", "behavior", "reference", "advantages")
    )
    ratio, importance = np.exp(logprobs - proximal), np.exp(proximal - behavior)
    expected = {
        "loss": output.loss.item(),
        "tokens": 7,
        "entropy": inputs["entropy"][kept].sum(),
        "clip_low": ((ratio < 0.8) & (advantages < 0)).sum(),
        "clip_high": ((ratio > 1.28) & (advantages > 0)).sum(),
        # On tokens of the behavior policy k3 is exp(log p - log b) - 1 - (log p - log b).
        "kl_behavior_policy": (np.exp(logprobs - behavior) - 1 - (logprobs - behavior)).sum(),
        "kl_reference": (np.exp(reference - logprobs) - 1 - (reference - logprobs)).sum(),
        "importance": importance.sum(),
        "importance_squared": (importance**2).sum(),
    }
    assert expected["clip_low"] > 0
    assert expected["clip_high"] > 0
    assert {name: value.item() for name, value in output.sums.items()} == pytest.approx(expected, rel=1e-5)
    assert {name: value.item() for name, value in output.maxima.items()} == pytest.approx(
        {
            "max_abs_logprob_difference": np.abs(logprobs - behavior).max(),
            "ratio_max_deviation": np.abs(ratio - 1).max(),
        },
        rel=1e-5,
    )
    assert not any(value.requires_grad for value in (*output.sums.values(), *output.maxima.values()))


def test_no_reference_no_reference_metric():
    output, _ = run(case(), AlgorithmConfig(), reference=False)
    assert "kl_reference" not in output.sums


def test_on_policy_nothing_is_clipped_and_the_ratio_is_one():
    output, _ = run(case(), AlgorithmConfig(clip_low=0.0, clip_high=0.0), proximal=False)
    assert output.sums["clip_low"].item() == output.sums["clip_high"].item() == 0


def test_on_policy_the_deviation_reported_is_that_from_the_engine():
    data = case()
    output, _ = run(data, AlgorithmConfig(), proximal=False)
    worst = output.maxima["max_abs_logprob_difference"].item()
    assert 0 < output.maxima["ratio_max_deviation"].item() <= math.expm1(worst) * (1 + 1e-6)


@pytest.mark.parametrize("config", [AlgorithmConfig(), AlgorithmConfig(kl_coefficient=0.1)], ids=label)
@pytest.mark.parametrize("poison", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["logprobs", "proximal", "behavior", "reference", "advantages", "entropy"])
def test_a_token_of_weight_0_leaks_nothing_not_even_nan(field, poison, config):
    clean = case()
    expected, expected_gradient = run(clean, config)
    poisoned = {**clean, field: np.where(clean["weights"] > 0, clean[field], poison)}
    output, gradient = run(poisoned, config)
    assert output.loss.item() == expected.loss.item()
    np.testing.assert_array_equal(gradient, expected_gradient)
    assert {n: v.item() for n, v in output.sums.items()} == {n: v.item() for n, v in expected.sums.items()}
    assert {n: v.item() for n, v in output.maxima.items()} == {n: v.item() for n, v in expected.maxima.items()}


def test_a_filler_has_loss_and_gradient_exactly_0():
    filler = case() | {"weights": np.zeros(L)}
    output, gradient = run(filler, AlgorithmConfig(kl_coefficient=0.1))
    assert output.loss.item() == 0.0
    assert (gradient == 0).all()
    assert all(value.item() == 0 for value in (*output.sums.values(), *output.maxima.values()))


def test_a_completion_without_tokens():
    empty = torch.zeros(0, requires_grad=True)
    output = policy_loss(empty, torch.zeros(0), make_micro_batch([], [], []), AlgorithmConfig())
    assert output.loss.item() == 0.0
    output.loss.backward()
    assert all(value.item() == 0 for value in (*output.sums.values(), *output.maxima.values()))
