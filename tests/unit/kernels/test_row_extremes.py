"""The row pass on logits that are masked, huge or infinite, and on any number of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.config import AlgorithmConfig, Importance, KLEstimator, Surrogate
from grpo.kernels import row
from tests.oracles import LARGEST, make_case
from tests.unit.kernels.rows import (
    GE,
    TEMPERATURES,
    G,
    V,
    expected_gradient,
    expected_statistics,
    gradient,
    random_rows,
    statistics,
    whole,
)

INF, NAN = math.inf, math.nan
TOKEN_LEVEL = [
    AlgorithmConfig(surrogate=Surrogate.cispo, entropy_coefficient=0.05),
    AlgorithmConfig(surrogate=Surrogate.reinforce, importance=Importance.none, entropy_coefficient=0.05),
    *(AlgorithmConfig(kl_coefficient=0.3, kl_estimator=estimator) for estimator in KLEstimator),
]


@pytest.fixture(params=[1, 6, 1 << 20], ids=["blocks_of_1_entry", "of_a_few", "one_block"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vocabulary is worked on in stretches: here of one entry, of a few with some left over, and all of it."""
    monkeypatch.setattr(row, "_BLOCK_ELEMENTS", request.param)


#: Rows of V logits. The target has some probability, unless a test says otherwise.
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


@pytest.mark.usefixtures("_blocks")
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
    tokens = make_case(sequence_index=[0], proximal=False).tokens(target)
    for config in TOKEN_LEVEL:
        done = row.row_loss(logits.clone(), tokens, config, temperature=0.7, dtype=torch.float32)
        assert not done.loss.isnan().any()  # but it may be infinite
        if config.kl_estimator is not KLEstimator.k2:  # a square, and nothing bounds its slope
            assert torch.isfinite(whole(done.gradient, done.row_scale)).all()


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
@pytest.mark.parametrize("block", [64, 1 << 20])
def test_any_number_of_rows_and_entries(shape, block, monkeypatch):
    monkeypatch.setattr(row, "_BLOCK_ELEMENTS", block)
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
    done = row.row_loss(logits, tokens, TOKEN_LEVEL[0], temperature=1.0, dtype=torch.float32)
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
