"""The row pass against its formulas in float64: values, gradients, and logits that are masked, huge or infinite."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grpo.config import AlgorithmConfig, Importance, KLEstimator, RatioTo, Surrogate
from grpo.kernels import row
from tests import oracles
from tests.oracles import make_case

C, V = 5, 7
INF, NAN = math.inf, math.nan
TEMPERATURES = [0.7, 1.0, 3.0]


@pytest.fixture(params=[1, 2 * V, 300_000], ids=["block_of_1_row", "block_of_2_rows", "one_block"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are worked on in blocks; here of fewer elements than a row, of two rows, and of all."""
    monkeypatch.setitem(row._BLOCK_ELEMENTS, "cpu", request.param)


def random_rows(scale: float = 3.0, seed: int = 0, shape: tuple[int, int] = (C, V)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator) * scale
    return logits, torch.randint(0, shape[1], shape[:1], generator=generator)


def statistics(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[list[float], list[float]]:
    logprobs, entropy = row.row_statistics(logits.clone(), targets, temperature=temperature)
    assert logprobs.dtype == entropy.dtype == torch.float32
    return logprobs.tolist(), entropy.tolist()


def expected_statistics(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[list[float], list[float]]:
    found = [oracles.distribution(values, temperature) for values in logits.double().tolist()]
    return [f[1][y] for f, y in zip(found, targets.tolist(), strict=True)], [f[2] for f in found]


def whole(gradient: Tensor, scale: Tensor | None) -> Tensor:
    """d total / d logits, put together in float64."""
    return gradient.double() if scale is None else gradient.double() * scale.double()[:, None]


def gradient(logits, targets, by_logprob, by_entropy=None, temperature=1.0, dtype=torch.float32) -> Tensor:
    found, scale = row.row_gradient(
        logits.clone(), targets, by_logprob, by_entropy, temperature=temperature, dtype=dtype
    )
    assert found.dtype == dtype and found.shape == logits.shape
    assert scale is None or (scale.dtype == torch.float32 and scale.shape == targets.shape)
    return whole(found, scale)


def expected_gradient(logits, targets, by_logprob, by_entropy=None, temperature=1.0) -> Tensor:
    by_entropy = torch.zeros_like(by_logprob) if by_entropy is None else by_entropy
    rows = zip(logits.double().tolist(), targets.tolist(), by_logprob.tolist(), by_entropy.tolist(), strict=True)
    return torch.tensor([oracles.row_gradient(*r, temperature) for r in rows], dtype=torch.float64)


G, GE = torch.tensor([1.0, -0.5, 0.0, 2.0, -3.0]), torch.tensor([0.3, 0.0, -0.7, 1.0, -0.2])


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


# Robustness. Rows of V = 7 with targets that have some probability, unless a test says otherwise.

LARGEST = torch.finfo(torch.float32).max
ROWS = {
    "masked": [1.0, -INF, 2.0, -INF, 0.5, -INF, -INF],
    "masked_with_the_smallest_float": [1.0, -LARGEST, 2.0, -LARGEST, 0.5, -LARGEST, -1e30],
    "one_left": [-INF, -INF, 3.0, -INF, -INF, -INF, -INF],
    "all_masked": [-INF] * V,
    "all_smallest": [-LARGEST] * V,
    "infinite": [1.0, 2.0, INF, 0.0, -5.0, -INF, 1e30],
    "two_infinite": [1.0, INF, INF, 0.0, -5.0, -INF, 1e30],
    "all_infinite": [INF] * V,
    "huge": [1e30, -1e30, 1e30, 0.0, -1.0, 1.0, -1e30],
    "strongly_negative": [-1e4, -1e4 - 1, -1e4 + 2, -1e4, -2e4, -1e4, -1e4],
    "large": [1e4, 1e4 - 1, 1e4 + 2, 1e4, -1e4, 1e4 + 1, 1e4],
    "equal": [2.5] * V,
    "zeros": [0.0] * V,
}


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", ROWS)
def test_extreme_rows_alone_and_beside_others(name, temperature):
    ordinary, _ = random_rows()
    logits = torch.stack([ordinary[0], torch.tensor(ROWS[name]), ordinary[1]])
    targets = torch.tensor([3, 2, 5])
    by_logprob, by_entropy = torch.tensor([0.5, -2.0, 1.0]), torch.tensor([0.1, 0.3, -0.2])
    for kept in (slice(1, 2), slice(0, 3)):
        part = logits[kept], targets[kept]
        logprobs, entropy = statistics(*part, temperature)
        expected_logprobs, expected_entropy = expected_statistics(*part, temperature)
        assert logprobs == pytest.approx(expected_logprobs, rel=1e-6, abs=1e-6)
        assert entropy == pytest.approx(expected_entropy, rel=1e-5, abs=1e-6)
        assert min(entropy) >= 0
        for second in (None, by_entropy[kept]):
            found = gradient(*part, by_logprob[kept], second, temperature)
            expected = expected_gradient(*part, by_logprob[kept], second, temperature)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["masked", "infinite", "huge"])
def test_an_impossible_target_has_no_nan(name):
    """Nothing samples it; if it is there all the same, its logprob is a very large negative number."""
    logits, target = torch.tensor([ROWS[name]]), torch.tensor([1 if name != "infinite" else 5])
    logprobs, entropy = statistics(logits, target)
    assert logprobs[0] <= -1e30
    assert entropy[0] >= 0
    assert torch.isfinite(gradient(logits, target, torch.ones(1), torch.ones(1))).all()


@pytest.mark.parametrize("other", [0.0, INF, -INF])
def test_nan_stays_nan_in_its_row_and_nowhere_else(other):
    logits, targets = random_rows()
    clean_logprobs, clean_entropy = statistics(logits, targets)
    logits[2, 4], logits[2, 1] = NAN, other
    logprobs, entropy = statistics(logits, targets)
    found = gradient(logits, targets, G + 1, GE + 1)
    assert math.isnan(logprobs[2]) and math.isnan(entropy[2]) and found[2].isnan().all()
    for t in (0, 1, 3, 4):
        assert (logprobs[t], entropy[t]) == pytest.approx((clean_logprobs[t], clean_entropy[t]), rel=1e-6)
        assert torch.isfinite(found[t]).all()


@pytest.mark.parametrize("shape", [(0, 7), (1, 7), (1, 1), (3, 1), (4, 2), (2, 1023), (3, 131)])
@pytest.mark.parametrize("block", [64, 300_000])
def test_any_number_of_rows_and_entries(shape, block, monkeypatch):
    monkeypatch.setitem(row._BLOCK_ELEMENTS, "cpu", block)
    logits, targets = random_rows(shape=shape)
    logprobs, entropy = statistics(logits, targets)
    expected_logprobs, expected_entropy = expected_statistics(logits, targets)
    assert logprobs == pytest.approx(expected_logprobs, rel=1e-5, abs=1e-6)
    assert entropy == pytest.approx(expected_entropy, rel=1e-5, abs=1e-6)
    by_logprob, by_entropy = torch.linspace(-1, 2, shape[0]), torch.linspace(1, 0.3, shape[0])
    found = gradient(logits, targets, by_logprob, by_entropy)
    expected = expected_gradient(logits, targets, by_logprob, by_entropy).reshape(shape)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    tokens = make_case(logprobs, entropy, sequence_index=range(shape[0])).tokens(targets)
    done = row.row_loss(logits, tokens, CONFIGS[2], temperature=1.0, dtype=torch.float32)
    assert done.loss.shape == done.logprobs.shape == shape[:1] and done.gradient.shape == shape


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 50_257])
@pytest.mark.parametrize("level", [0.0, 1e4, -1e4, -INF])
def test_entropy_of_uniform_is_log_v(size, level):
    logits = torch.full((2, size), level)
    logprobs, entropy = statistics(logits, torch.tensor([0, size - 1]))
    assert entropy == pytest.approx([math.log(size)] * 2, rel=1e-6, abs=1e-7)
    assert logprobs == pytest.approx([-math.log(size)] * 2, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("level", [0.0, 1e4, -1e4])
def test_entropy_of_certain_is_0(level):
    logits = torch.full((1, 1000), level)
    logits[0, 3] += 200.0
    assert statistics(logits, torch.tensor([3])) == ([0.0], [0.0])


@given(seed=st.integers(0, 999), gap=st.floats(0, 60), level=st.sampled_from([-1e4, -50.0, 0.0, 50.0, 1e4]))
def test_entropy_is_never_negative_and_precise_when_small(seed, gap, level):
    """As lse - E[z] it would be the difference of two numbers of the size of the logits."""
    logits, targets = random_rows(1.0, seed, (2, 9))
    logits = logits + level
    logits[:, 4] += gap
    _, entropy = statistics(logits, targets)
    _, expected = expected_statistics(logits, targets)
    assert min(entropy) >= 0
    # log(1 + x) in float32 knows x only to a rounding of 1.
    assert entropy == pytest.approx(expected, rel=1e-5, abs=2e-7)
