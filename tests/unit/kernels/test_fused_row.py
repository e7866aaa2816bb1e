"""The row kernels in Triton's interpreter, against their formulas in float64 and against the torch twin.

The interpreter runs the kernels' own text on the CPU, a program after the other. What it can't show is left to
tests/gpu/test_row_kernels.py; that they compile for a Hopper, and what loads and stores they then have, is tested here.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import grpo.kernels
from grpo.config import AlgorithmConfig, Importance, KLEstimator, KLPlacement, RatioLevel, RatioTo, Surrogate
from grpo.kernels import row
from grpo.records import LossTokens
from tests.unit.kernels.rows import assert_gradient, whole

pytest.importorskip("triton")
# numpy warns where a GPU's arithmetic goes through infinity on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid|All-NaN|divide):RuntimeWarning")

INF, NAN = math.inf, math.nan
LARGEST = torch.finfo(torch.float32).max
MODULES = ("fused_row", "fused_softmax", "fused_token_loss")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: Of an entry of the gradient. The interpreter cuts bfloat16 off where a GPU rounds.
ACCURACY = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@pytest.fixture(scope="module")
def interpreted() -> ModuleType:
    """A copy of `fused_row` and its parts for the interpreter, which is chosen at decoration; nobody else sees it."""
    names = [f"grpo.kernels.{m}" for m in MODULES]
    with pytest.MonkeyPatch.context() as patch:
        for name, attribute in zip(names, MODULES, strict=True):
            patch.delitem(sys.modules, name, raising=False)
            patch.delattr(grpo.kernels, attribute, raising=False)
        patch.setenv("TRITON_INTERPRET", "1")
        fused_row = importlib.import_module(names[0])
        for name, attribute in zip(names, MODULES, strict=True):
            del sys.modules[name]
            delattr(grpo.kernels, attribute)
    return fused_row


@pytest.fixture
def fused(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], ModuleType]]:
    """`fused(block)`: the module with blocks of `block` logits."""
    language, interpreter = (importlib.import_module(f"triton.{m}") for m in ("language", "runtime.interpreter"))
    core = language.core
    # Triton 3.7 doesn't put back all that it puts in place of its language while it interprets.
    places = (language, core, language.math, core.tensor, core.dtype, core.tensor_descriptor_base)
    kept = [dict(vars(place)) for place in places]
    for name in ("max", "sum"):  # of Triton's own library, and compiled since Triton was imported
        if not isinstance(getattr(language, name), interpreter.InterpretedFunction):
            setattr(language, name, interpreter.InterpretedFunction(getattr(language, name).fn))

    def with_block(block: int) -> ModuleType:
        monkeypatch.setattr(interpreted, "launch_shape", lambda _: (block, 1))
        return interpreted

    yield with_block
    for place, attributes in zip(places, kept, strict=True):
        for name, found in dict(vars(place)).items():
            if name not in attributes:
                delattr(place, name)
            elif found is not attributes[name]:
                setattr(place, name, attributes[name])


class Expected(NamedTuple):
    """In float64, of logits read as finite."""

    logprobs: Tensor
    entropy: Tensor
    loss: Tensor
    gradient: Tensor


def distribution(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """(logits in float64 with gradient, logprobs of the targets, entropy)."""
    z = logits.double().clamp(-LARGEST, LARGEST).requires_grad_()
    logprobs = torch.log_softmax(z / temperature, -1)
    entropy = -torch.where(logprobs > -1000, logprobs.exp() * logprobs, 0.0).sum(-1)
    return z, logprobs.gather(1, targets[:, None])[:, 0], entropy


def expected_gradient(logits: Tensor, targets: Tensor, g: Tensor, g_entropy: Tensor | None, temperature: float):
    z, logprobs, entropy = distribution(logits, targets, temperature)
    total = (g.double() * logprobs).sum()
    if g_entropy is not None:
        total = total + (g_entropy.double() * entropy).sum()
    return torch.autograd.grad(total, z)[0]


def expected_loss(logits: Tensor, tokens: LossTokens, config: AlgorithmConfig, temperature: float) -> Expected:
    """The token loss, a token at a time, and its gradient by autograd."""
    z, logprobs, entropy = distribution(logits, tokens.targets, temperature)
    losses: list[Tensor] = []
    for t in range(len(tokens)):
        lp, a, b = logprobs[t], tokens.advantages[t].double(), tokens.behavior[t].double()
        p = lp.detach() if tokens.proximal is None else tokens.proximal[t].double()
        r = bounded(lp - (b if config.ratio_to is RatioTo.behavior else p))
        low, high = 1 - config.clip_low, 1 + config.clip_high
        if config.surrogate is Surrogate.clip:
            loss = -r * a
            if (a > 0 and r > high) or (a < 0 and r < low):
                loss = -(high if a > 0 else low) * a
            if config.dual_clip is not None and a < 0 and loss > -config.dual_clip * a:
                loss = -config.dual_clip * a
        else:
            weight = min(max(r.item(), low), high) if config.surrogate is Surrogate.cispo else 1.0
            loss = -weight * a * lp
        w = bounded(p - b).item()
        if config.importance is Importance.token_truncate:
            loss = loss * min(w, config.importance_cap)
        if config.importance is Importance.token_mask:
            loss = loss * (w if config.importance_floor <= w <= config.importance_cap else 0.0)
        if config.kl_coefficient and config.kl_in is KLPlacement.loss:
            assert tokens.reference is not None
            loss = loss + config.kl_coefficient * penalty(config.kl_estimator, lp, tokens.reference[t].double(), b)
        losses.append(loss - config.entropy_coefficient * entropy[t])
    loss = torch.stack(losses)
    (gradient,) = torch.autograd.grad((tokens.weights.double() * loss).sum(), z)
    return Expected(logprobs.detach(), entropy.detach(), loss.detach(), gradient)


def bounded(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-20, 20).exp()


def penalty(estimator: KLEstimator, lp: Tensor, reference: Tensor, b: Tensor) -> Tensor:
    d = reference - lp
    if estimator is KLEstimator.k1:
        return -d
    if estimator is KLEstimator.k2:
        return d * d / 2
    k3 = torch.expm1(d.clamp(max=20)) - d.clamp(max=20)
    return k3 if estimator is KLEstimator.k3 else bounded(lp - b) * k3


def random_rows(count: int, size: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count * 1009 + size)
    logits = torch.randn(count, size, generator=generator) * scale
    return logits, torch.randint(0, size, (count,), generator=generator)


def tokens_around(logits: Tensor, targets: Tensor, temperature: float, *, proximal: bool = True) -> LossTokens:
    """Advantages of both signs and 0, a weight of 0, and policies on either side of every bound of `CONFIGS`."""
    count = len(targets)
    lp = distribution(logits, targets, temperature)[1].detach().float()
    spread = torch.tensor([0.9, -0.9, 0.1, -0.1, 0.45, -0.45, 0.0]).repeat(count)[:count]
    return LossTokens(
        targets=targets,
        advantages=torch.tensor([1.5, -0.7, -1.2, 0.8, -2.0, 1.1, 0.0, 0.6]).repeat(count)[:count],
        weights=torch.tensor([0.2, 0.13, 0.31, 0.0, 0.07]).repeat(count)[:count],
        behavior=lp - spread.flip(0) + 0.03,
        proximal=lp - spread if proximal else None,
        reference=lp + spread.roll(2) + 0.2,
        sequence_index=torch.arange(count),
        num_sequences=count,
    )


CONFIGS = {
    "clip": AlgorithmConfig(importance=Importance.none, clip_high=0.3),
    "truncated": AlgorithmConfig(importance=Importance.token_truncate, importance_cap=1.2),
    "masked": AlgorithmConfig(importance=Importance.token_mask, importance_floor=0.7, importance_cap=1.3),
    "dual_clip": AlgorithmConfig(dual_clip=1.4, clip_low=0.1),
    "no_lower_bound": AlgorithmConfig(clip_low=1.0),
    "to_behavior": AlgorithmConfig(ratio_to=RatioTo.behavior, importance=Importance.none),
    "cispo": AlgorithmConfig(surrogate=Surrogate.cispo, clip_high=0.28),
    "cispo_to_behavior": AlgorithmConfig(
        surrogate=Surrogate.cispo, ratio_to=RatioTo.behavior, importance=Importance.none
    ),
    "reinforce": AlgorithmConfig(surrogate=Surrogate.reinforce, importance=Importance.token_mask, importance_cap=1.5),
    "entropy": AlgorithmConfig(entropy_coefficient=0.05),
    **{f"kl_{e.value}": AlgorithmConfig(kl_coefficient=0.3, kl_estimator=e) for e in KLEstimator},
    "all": AlgorithmConfig(dual_clip=1.4, kl_coefficient=0.3, entropy_coefficient=0.05, importance_cap=1.2),
    "kl_in_reward": AlgorithmConfig(kl_coefficient=0.3, kl_in=KLPlacement.reward, entropy_coefficient=0.05),
}
#: (C, V, block): a row of two blocks and a bit, less than a block, many blocks and a bit, exactly two, one logit.
SHAPES = [(7, 37, 16), (5, 13, 32), (3, 1000, 64), (2, 128, 64), (4, 1, 8)]


@pytest.mark.parametrize(("temperature", "proximal"), [(0.7, True), (1.0, False)], ids=["updates", "one_update"])
@pytest.mark.parametrize("name", CONFIGS)
def test_row_loss_is_the_formula_and_its_gradient(fused, name, temperature, proximal):
    logits, targets = random_rows(7, 37)
    tokens = tokens_around(logits, targets, temperature, proximal=proximal)
    config = CONFIGS[name]
    expected = expected_loss(logits, tokens, config, temperature)
    done = fused(16).row_loss(logits, tokens, config, temperature=temperature, dtype=torch.float32)
    for found, wanted in zip(done[:3], expected[:3], strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    assert done.row_scale is None and done.gradient.data_ptr() == logits.data_ptr()
    assert_gradient(done.gradient, None, expected.gradient, targets, ACCURACY[torch.float32])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_row_loss_at_any_shape_and_type(fused, shape, dtype):
    count, size, block = shape
    logits, targets = random_rows(count, size)
    tokens = tokens_around(logits, targets, 0.7)
    for name in ("truncated", "all"):
        expected = expected_loss(logits, tokens, CONFIGS[name], 0.7)
        done = fused(block).row_loss(logits.clone(), tokens, CONFIGS[name], temperature=0.7, dtype=dtype)
        torch.testing.assert_close(done.loss.double(), expected.loss, rtol=1e-5, atol=2e-6)
        assert done.gradient.dtype == dtype and done.gradient.shape == (count, size)
        assert_gradient(done.gradient, done.row_scale, expected.gradient, targets, ACCURACY[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_row_gradient_is_the_derivative(fused, shape, with_entropy, dtype):
    count, size, block = shape
    logits, targets = random_rows(count, size)
    by_logprob = torch.tensor([1.0, -0.5, 0.0, 2.0, -3.0]).repeat(2)[:count]
    by_entropy = torch.tensor([0.3, 0.0, -0.7, 1.0, -0.2]).repeat(2)[:count] if with_entropy else None
    expected = expected_gradient(logits, targets, by_logprob, by_entropy, 0.7)
    found = fused(block).row_gradient(logits, targets, by_logprob, by_entropy, temperature=0.7, dtype=dtype)
    assert found[0].dtype == dtype and found[0].shape == (count, size)
    assert_gradient(found[0], found[1], expected, targets, ACCURACY[dtype])


@pytest.mark.parametrize(("temperature", "scale"), [(1.0, 0.1), (0.7, 3.0), (3.0, 40.0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_row_statistics_are_the_definition(fused, shape, scale, temperature):
    count, size, block = shape
    logits, targets = random_rows(count, size, scale)
    _, logprobs, entropy = distribution(logits, targets, temperature)
    found = fused(block).row_statistics(logits, targets, temperature=temperature)
    torch.testing.assert_close(found[0].double(), logprobs.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1].double(), entropy.detach(), rtol=1e-5, atol=1e-6)


def test_by_hand(fused):
    # logits (0, ln 4) at temperature 2: p = (1/3, 2/3); A = 3, weight 0.5, on-policy: g = -1.5, over T
    logits, targets = torch.tensor([[0.0, math.log(4)]]), torch.tensor([1])
    tokens = LossTokens(
        targets=targets,
        advantages=torch.tensor([3.0]),
        weights=torch.tensor([0.5]),
        behavior=torch.tensor([math.log(2 / 3)]),
        proximal=None,
        reference=None,
        sequence_index=torch.tensor([0]),
        num_sequences=1,
    )
    done = fused(8).row_loss(logits, tokens, AlgorithmConfig(), temperature=2.0, dtype=torch.float32)
    assert done.logprobs.tolist() == pytest.approx([math.log(2 / 3)], rel=1e-6)
    assert done.entropy.tolist() == pytest.approx([-(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3], rel=1e-6)
    assert done.loss.tolist() == pytest.approx([-3.0], rel=1e-6)
    assert done.gradient[0].tolist() == pytest.approx([0.25, -0.25], rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["all", "masked", "cispo"])
def test_agrees_with_the_torch_twin(fused, name, dtype):
    logits, targets = random_rows(6, 101)
    tokens = tokens_around(logits, targets, 0.7)
    arguments = {"temperature": 0.7, "dtype": dtype}
    twin = row.row_loss(logits.clone(), tokens, CONFIGS[name], **arguments)
    done = fused(32).row_loss(logits.clone(), tokens, CONFIGS[name], **arguments)
    for found, expected in zip(done[:3], twin[:3], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    difference = whole(done.gradient, done.row_scale) - whole(twin.gradient, twin.row_scale)
    assert difference.norm() < ACCURACY[dtype] * whole(twin.gradient, twin.row_scale).norm()
    g, g_entropy = torch.linspace(-2, 1, 6), torch.linspace(1, 0.5, 6)
    twin_gradient = whole(*row.row_gradient(logits.clone(), targets, g, g_entropy, **arguments))
    difference = whole(*fused(32).row_gradient(logits.clone(), targets, g, g_entropy, **arguments)) - twin_gradient
    assert difference.norm() < ACCURACY[dtype] * twin_gradient.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_gradient_is_a_view_of_the_logits(fused, dtype):
    logits, targets = random_rows(5, 37)
    found, _ = fused(16).row_gradient(logits, targets, torch.ones(5), None, temperature=1.0, dtype=dtype)
    assert found.data_ptr() == logits.data_ptr() and found.stride() == (2 * 37, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("weight", [1e-7, 1e6])
def test_the_size_of_the_weights_costs_no_accuracy_in_16_bits(fused, weight, with_entropy, dtype):
    logits, targets = random_rows(4, 37)
    g = weight * torch.tensor([1.0, -0.5, 0.0, 2.0])
    g_entropy = weight * torch.tensor([0.1, 0.0, -0.7, 3.0]) if with_entropy else None
    found = fused(16).row_gradient(logits.clone(), targets, g, g_entropy, temperature=1.0, dtype=dtype)
    expected = expected_gradient(logits, targets, g, g_entropy, 1.0)
    assert_gradient(found[0], found[1], expected, targets, ACCURACY[dtype])


@pytest.mark.parametrize("name", ["kl_k3", "kl_weighted_k3"])
def test_k3_and_its_slope_are_exact_at_any_distance(fused, name):
    """With V = 2 and equal logits lp = -log 2, and the slope is twice the second entry of the gradient over -weight."""
    sizes = [1e-7, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.34, 0.36, 0.7, 0.99, 1.0, 1.01, 1.5, 3.0, 7.0, 15.0, 19.9, 21.0, 90.0]
    lp = torch.tensor(-math.log(2.0))
    reference = torch.stack([lp + sign * size for size, sign in itertools.product(sizes, (1, -1))])
    count = len(reference)
    tokens = LossTokens(
        targets=torch.zeros(count, dtype=torch.int64),
        advantages=torch.zeros(count),
        weights=torch.ones(count),
        behavior=lp.expand(count).clone(),
        proximal=None,
        reference=reference,
        sequence_index=torch.arange(count),
        num_sequences=count,
    )
    config = replace(CONFIGS[name], kl_coefficient=1.0)
    done = fused(8).row_loss(torch.zeros(count, 2), tokens, config, temperature=1.0, dtype=torch.float32)
    d = (reference - done.logprobs).double()
    held = d.clamp(max=20)
    # expm1 alone loses the digits of k3 in float64 too, 11 of 16 at 1e-5: the series takes over there.
    k3 = torch.where(d.abs() < 1e-3, d * d / 2 * (1 + d / 3 * (1 + d / 4)), torch.expm1(held) - held)
    slope = torch.where(d > 20, 0.0, -torch.expm1(held))
    if name == "kl_weighted_k3":  # the ratio is 1, and its own derivative adds k3
        slope = torch.where(d > 20, k3, -d)
    torch.testing.assert_close(done.loss.double(), k3, rtol=5e-7, atol=0)
    torch.testing.assert_close(-2 * done.gradient[:, 1].double(), slope, rtol=5e-7, atol=0)


def test_ratios_are_bounded_and_have_no_gradient_beyond(fused):
    """A policy 30 nats from the anchor: r = exp(20), without gradient; 30 nats below: exp(-20)."""
    logits, targets = random_rows(2, 9)
    tokens = tokens_around(logits, targets, 1.0)
    lp = distribution(logits, targets, 1.0)[1].detach().float()
    tokens = replace(tokens, advantages=torch.tensor([-1.0, 1.0]), proximal=lp + torch.tensor([-30.0, 30.0]))
    config = AlgorithmConfig(importance=Importance.none)
    expected = expected_loss(logits, tokens, config, 1.0)
    done = fused(16).row_loss(logits, tokens, config, temperature=1.0, dtype=torch.float32)
    assert done.loss.tolist() == pytest.approx([math.exp(20), -math.exp(-20)], rel=1e-5)
    torch.testing.assert_close(done.gradient.double(), expected.gradient, rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [
        AlgorithmConfig(ratio_level=RatioLevel.sequence),
        AlgorithmConfig(importance=Importance.sequence_truncate),
        AlgorithmConfig(importance=Importance.sequence_mask),
        AlgorithmConfig(off_policy_threshold=1.0),
    ],
)
def test_row_loss_refuses_what_is_not_token_level(fused, config):
    logits, targets = random_rows(3, 9)
    with pytest.raises(AssertionError):
        fused(8).row_loss(logits, tokens_around(logits, targets, 1.0), config, temperature=1.0, dtype=torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows_start_no_kernel(fused, monkeypatch, dtype):
    module, (logits, targets) = fused(8), random_rows(0, 9)
    for kernel in ("_statistics_kernel", "_gradient_kernel", "_loss_kernel"):
        monkeypatch.setattr(module, kernel, None)
    found = module.row_statistics(logits, targets, temperature=1.0)
    assert [f.shape for f in found] == [(0,), (0,)]
    found, _ = module.row_gradient(logits, targets, torch.ones(0), None, temperature=1.0, dtype=dtype)
    assert found.shape == (0, 9) and found.dtype == dtype
    tokens = tokens_around(logits, targets, 1.0)
    done = module.row_loss(logits, tokens, CONFIGS["all"], temperature=1.0, dtype=dtype)
    assert done.gradient.shape == (0, 9) and done.loss.shape == (0,)


# Robustness. Rows of 7 logits, in blocks that split them.

EXTREME = {
    "masked": [1.0, -INF, 2.0, -INF, 0.5, -INF, -INF],
    "masked_with_the_smallest_float": [1.0, -LARGEST, 2.0, -LARGEST, 0.5, -LARGEST, -1e30],
    "one_left": [-INF, -INF, 3.0, -INF, -INF, -INF, -INF],
    "all_masked": [-INF] * 7,
    "all_masked_either_way": [-INF, -LARGEST] * 3 + [-INF],
    "infinite": [1.0, 2.0, INF, 0.0, -5.0, -INF, 1e30],
    "two_infinite": [1.0, INF, INF, 0.0, -5.0, -INF, 1e30],
    "all_infinite": [INF] * 7,
    "huge": [1e30, -1e30, 1e30, 0.0, -1.0, 1.0, -1e30],
    "strongly_negative": [-1e4, -1e4 - 1, -1e4 + 2, -1e4, -2e4, -1e4, -1e4],
    "large": [1e4, 1e4 - 1, 1e4 + 2, 1e4, -1e4, 1e4 + 1, 1e4],
    "rising": [0.0, 100.0, 2e4, 300.0, 4e4, 500.0, 6e4],
    "equal": [2.5] * 7,
}


@pytest.mark.parametrize(("temperature", "block"), [(1.0, 4), (0.7, 4), (3.0, 8)])
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_rows(fused, name, temperature, block):
    ordinary, _ = random_rows(2, 7)
    logits, targets = torch.stack([ordinary[0], torch.tensor(EXTREME[name]), ordinary[1]]), torch.tensor([3, 2, 5])
    _, logprobs, entropy = distribution(logits, targets, temperature)
    module = fused(block)
    found = module.row_statistics(logits.clone(), targets, temperature=temperature)
    torch.testing.assert_close(found[0].double(), logprobs.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1].double(), entropy.detach(), rtol=1e-5, atol=1e-6)
    assert (found[1] >= 0).all()
    g, g_entropy = torch.tensor([0.5, -2.0, 1.0]), torch.tensor([0.1, 0.3, -0.2])
    for second in (None, g_entropy):
        expected = expected_gradient(logits, targets, g, None, temperature)
        if second is not None:  # autograd of an entry of probability 0 is 0 * inf; the formula says 0
            p = torch.softmax(logits.double().clamp(-LARGEST, LARGEST) / temperature, -1)
            expected = expected - second[:, None] * torch.xlogy(p, p).add(p * entropy[:, None]) / temperature
        found = module.row_gradient(logits.clone(), targets, g, second, temperature=temperature, dtype=torch.float32)
        torch.testing.assert_close(found[0].double(), expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", ["masked", "infinite", "huge"])
def test_an_impossible_target_has_no_nan(fused, name, temperature):
    logits, target = torch.tensor([EXTREME[name]]), torch.tensor([1 if name != "infinite" else 5])
    tokens = replace(tokens_around(torch.zeros(1, 7), target, 1.0), advantages=torch.zeros(1))
    for config in CONFIGS["all"], CONFIGS["cispo"]:
        done = fused(4).row_loss(logits.clone(), tokens, config, temperature=temperature, dtype=torch.float32)
        assert done.logprobs[0] <= -1e30 and torch.isfinite(done.gradient).all() and not done.loss.isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("other", [0.0, INF, -INF])
def test_nan_stays_nan_in_its_row_and_nowhere_else(fused, other, dtype):
    logits, targets = random_rows(3, 7)
    logits[1, 4], logits[1, 1] = NAN, other
    tokens = tokens_around(logits.nan_to_num(), targets, 1.0)
    done = fused(4).row_loss(logits, tokens, CONFIGS["all"], temperature=1.0, dtype=dtype)
    for values in (done.logprobs, done.entropy, done.loss):
        assert values.isnan().tolist() == [False, True, False]
    assert done.gradient[1].isnan().all() and torch.isfinite(done.gradient[[0, 2]]).all()


def test_entropy_is_precise_when_small(fused):
    """As the difference of the log-normaliser and the mean logit it would be a rounding of 1e4."""
    logits = torch.full((1, 9), 1e4)
    logits[0, 4] += 16.0
    _, _, expected = distribution(logits, torch.tensor([4]), 1.0)
    _, entropy = fused(4).row_statistics(logits, torch.tensor([4]), temperature=1.0)
    assert entropy.tolist() == pytest.approx(expected.tolist(), rel=1e-5, abs=2e-7)


# What is launched and compiled.


@pytest.mark.parametrize(
    ("size", "num_warps"),
    [
        (1, 4),
        (4096, 4),
        (16_384, 4),
        (16_385, 8),
        (32_000, 8),
        (50_257, 16),
        (65_537, 32),
        (128_256, 32),
        (1 << 20, 32),
    ],
)
def test_launch_shape(interpreted, size, num_warps):
    assert interpreted.launch_shape(size) == (512 * num_warps, num_warps)


def test_the_interpreter_is_left_to_these_tests(interpreted):
    assert "TRITON_INTERPRET" not in os.environ
    assert type(interpreted._loss_kernel).__name__ == "InterpretedFunction"


def _compiled_for_hopper(fused_row: ModuleType, element: str, *, is_plain: bool) -> str:
    """PTX of `_loss_kernel` at V = 128,256; compiling needs no GPU."""
    compiler, backends = (importlib.import_module(f"triton.{m}") for m in ("compiler", "backends.compiler"))
    size = 128_256
    block, num_warps = fused_row.launch_shape(size)
    constants = {"SURROGATE": "clip", "TO_BEHAVIOR": False, "HAS_DUAL_CLIP": not is_plain, "NUM_COLUMNS": size}
    constants |= {"IMPORTANCE": "token_truncate", "KL": "none" if is_plain else "weighted_k3", "BLOCK": block}
    constants |= {"HAS_ENTROPY": not is_plain}
    constants |= {"proximal": None, "reference": None} if is_plain else {}
    constants |= {} if element == "fp16" else {"scales": None}
    signature, attributes = {}, {}
    numbers = [
        "inverse_temperature",
        "power",
        "low",
        "high",
        "dual_clip",
        "floor",
        "cap",
        "kl_coefficient",
        "entropy_coefficient",
    ]
    for position, name in enumerate(fused_row._loss_kernel.arg_names):
        kinds = {"targets": "*i64", "gradient": f"*{element}", **dict.fromkeys(numbers, "fp32")}
        signature[name] = "constexpr" if name in constants else kinds.get(name, "*fp32")
        if name in ("logits", "gradient"):
            attributes[position,] = [["tt.divisibility", 16]]
    source = compiler.ASTSource(fused_row._loss_kernel, signature, constants, attributes)
    target = backends.GPUTarget("cuda", 90, 32)
    options = {"num_warps": num_warps, "num_stages": 1, "maxnreg": 64}
    return compiler.compile(source, target=target, options=options).asm["ptx"]


@pytest.mark.parametrize(("element", "is_plain"), [("bf16", True), ("fp16", False), ("fp32", False)])
def test_compiled_loads_are_wide_and_ahead_of_the_barrier(element, is_plain, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    ptx = _compiled_for_hopper(importlib.import_module("grpo.kernels.fused_row"), element, is_plain=is_plain)
    loads = re.findall(r"ld\.global\S*evict\S*", ptx)
    assert loads and all(".v4.b32" in load for load in loads)
    # What stands between the second pass's last loads and its first stores.
    stores = [m.start() for m in re.finditer(r"st\.global\S*evict_first", ptx)]
    last_load = max(m.start() for m in re.finditer(r"ld\.global\S*evict_first", ptx))
    assert last_load < stores[0]
    assert ("bar.sync" in ptx[last_load : stores[0]]) == (element != "fp32")
    assert "bar.sync" in ptx[stores[-1] :], "the target's entry is written after all others"
