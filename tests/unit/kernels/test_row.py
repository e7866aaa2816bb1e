"""The row pass against its formulas in float64: statistics, gradients, and the loss in between."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.config import AlgorithmConfig, Importance, KLEstimator, RatioTo, Surrogate
from grpo.kernels import row
from tests import oracles
from tests.oracles import make_case
from tests.unit.kernels.rows import (
    GE,
    TEMPERATURES,
    C,
    G,
    expected_gradient,
    expected_statistics,
    gradient,
    random_rows,
    statistics,
    whole,
)


@pytest.fixture(params=[1, 2 * C, 1 << 20], ids=["blocks_of_1_entry", "blocks_of_2_entries", "one_block"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vocabulary is worked on in stretches: here of one entry, of a few with some left over, and all of it."""
    monkeypatch.setattr(row, "_BLOCK_ELEMENTS", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_statistics_match_the_definition(scale, temperature):
    logits, targets = random_rows(scale)
    logprobs, entropy = statistics(logits, targets, temperature)
    expected_logprobs, expected_entropy = expected_statistics(logits, targets, temperature)
    assert logprobs == pytest.approx(expected_logprobs, rel=1e-6, abs=1e-6)
    assert entropy == pytest.approx(expected_entropy, rel=1e-5, abs=1e-6)


@given(seed=st.integers(0, 999), scale=st.sampled_from([0.1, 3.0, 40.0]), temperature=st.floats(0.2, 5.0))
def test_statistics_match_on_random_rows(seed, scale, temperature):
    logits, targets = random_rows(scale, seed, (3, 11))
    logprobs, entropy = statistics(logits, targets, temperature)
    expected_logprobs, expected_entropy = expected_statistics(logits, targets, temperature)
    assert logprobs == pytest.approx(expected_logprobs, rel=1e-5, abs=1e-6)
    assert entropy == pytest.approx(expected_entropy, rel=1e-4, abs=1e-6)


def test_temperature_by_hand():
    # logits (0, ln 4) at temperature 2: (0, ln 2) -> p = (1/3, 2/3)
    logprobs, entropy = statistics(torch.tensor([[0.0, math.log(4)]]), torch.tensor([1]), 2.0)
    assert logprobs == pytest.approx([math.log(2 / 3)], rel=1e-6)
    assert entropy == pytest.approx([-(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3], rel=1e-6)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("by_entropy", [None, GE], ids=["logprob", "logprob_and_entropy"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(
    ("dtype", "accuracy"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8), (torch.float16, 2**-10)]
)
def test_gradient_matches_the_definition(dtype, accuracy, temperature, by_entropy):
    logits, targets = random_rows()
    found = gradient(logits, targets, G, by_entropy, temperature, dtype)
    expected = expected_gradient(logits, targets, G, by_entropy, temperature)
    torch.testing.assert_close(found, expected, rtol=accuracy, atol=accuracy)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_matches_autograd_in_float64(temperature):
    logits, targets = random_rows()
    moving = logits.double().requires_grad_()
    everything = (moving / temperature).log_softmax(-1)
    chosen = everything.gather(1, targets[:, None])[:, 0]
    entropy = -(everything.exp() * everything).sum(-1)
    ((G * chosen).sum() + (GE * entropy).sum()).backward()
    assert moving.grad is not None
    torch.testing.assert_close(gradient(logits, targets, G, GE, temperature), moving.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by_entropy", [None, torch.zeros(C)], ids=["logprob", "logprob_and_entropy"])
def test_without_derivatives_the_gradient_is_exactly_0(by_entropy):
    logits, targets = random_rows()
    assert (gradient(logits, targets, torch.zeros(C), by_entropy) == 0).all()


@pytest.mark.parametrize("by_entropy", [None, GE], ids=["logprob", "logprob_and_entropy"])
def test_rows_of_a_gradient_sum_to_0(by_entropy):
    """A constant added to all logits of a row changes nothing."""
    logits, targets = random_rows()
    torch.testing.assert_close(
        gradient(logits, targets, G, by_entropy).sum(-1), torch.zeros(C).double(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("weight", [1e-7, 1e6])
def test_the_size_of_the_weights_costs_no_accuracy_in_16_bits(weight, with_entropy, dtype):
    """Weights are 1 over the tokens of a step: in float16 such numbers would be lost or overflow."""
    logits, targets = random_rows()
    by_entropy = weight * GE if with_entropy else None
    found = gradient(logits, targets, weight * G, by_entropy, dtype=dtype)
    expected = expected_gradient(logits, targets, weight * G, by_entropy)
    torch.testing.assert_close(found / weight, expected / weight, rtol=2**-8, atol=2**-8)


def test_a_flat_row_of_a_large_vocabulary_fits_into_16_bits():
    """Its exponentials are all 1 and sum to more than float16 can hold."""
    logits, targets = torch.zeros(2, 70_001), torch.tensor([5, 70_000])
    found = gradient(logits, targets, G[:2], dtype=torch.float16)
    expected = -G[:2, None].double() / 70_001 * torch.ones_like(logits)
    expected[[0, 1], targets] += G[:2]
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)


def test_logits_may_lie_with_the_tokens_as_neighbours():
    logits, targets = random_rows()
    across = logits.T.contiguous().T
    assert across.stride() == (1, C)
    found, scale = row.row_gradient(across, targets, G, GE, temperature=0.7, dtype=torch.float32)
    assert found.data_ptr() == across.data_ptr()
    expected = expected_gradient(logits, targets, G, GE, 0.7)
    torch.testing.assert_close(whole(found, scale), expected, rtol=1e-5, atol=1e-6)


CONFIGS = [
    AlgorithmConfig(importance_cap=1.5),
    AlgorithmConfig(importance=Importance.token_mask, importance_cap=1.5, importance_floor=0.7, dual_clip=1.5),
    AlgorithmConfig(surrogate=Surrogate.cispo, entropy_coefficient=0.05),
    AlgorithmConfig(ratio_to=RatioTo.behavior, importance=Importance.none),
    AlgorithmConfig(surrogate=Surrogate.reinforce, importance=Importance.none, entropy_coefficient=0.2),
    *(
        AlgorithmConfig(kl_coefficient=0.3, kl_estimator=estimator, entropy_coefficient=0.05)
        for estimator in KLEstimator
    ),
]


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("proximal", [True, False], ids=["several_updates", "one_update"])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_row_loss_is_the_objective_and_its_gradient(config, temperature, proximal):
    logits, targets = random_rows()
    logprobs, entropy = expected_statistics(logits, targets, temperature)
    case = make_case(logprobs, entropy, sequence_index=[0, 0, 1, 2, 2], proximal=proximal, seed=4)
    case = replace(case, logprobs=logprobs, entropy=entropy)  # not rounded
    done = row.row_loss(logits.clone(), case.tokens(targets), config, temperature=temperature, dtype=torch.float32)
    assert done.logprobs.tolist() == pytest.approx(logprobs, rel=1e-6)
    assert done.entropy.tolist() == pytest.approx(entropy, rel=1e-6)
    assert done.loss.tolist() == pytest.approx(oracles.token_losses(case, config), rel=1e-5, abs=1e-6)
    by_logprob = torch.tensor(oracles.gradient(case, config))
    by_entropy = -config.entropy_coefficient * torch.tensor(case.weights)
    expected = expected_gradient(logits, targets, by_logprob, by_entropy, temperature)
    torch.testing.assert_close(whole(done.gradient, done.row_scale), expected, rtol=1e-4, atol=1e-7)


def test_row_loss_refuses_what_is_not_token_level():
    logits, targets = random_rows()
    tokens = make_case(sequence_index=[0, 0, 1, 2, 2]).tokens(targets)
    config = AlgorithmConfig(importance=Importance.sequence_mask)
    with pytest.raises(AssertionError):
        row.row_loss(logits, tokens, config, temperature=1.0, dtype=torch.float32)


def test_the_logits_are_overwritten_and_the_gradient_stands_in_their_place():
    logits, targets = random_rows()
    found, _ = row.row_gradient(logits, targets, G, None, temperature=1.0, dtype=torch.float32)
    assert found.data_ptr() == logits.data_ptr()
