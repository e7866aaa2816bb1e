"""The row kernels on a CUDA device: full vocabularies, and what an interpreter can't show, races above all."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from grpo.config import AlgorithmConfig, Importance, KLEstimator, RatioTo, Surrogate
from grpo.kernels import row
from grpo.kernels.objective import objective
from grpo.records import LossTokens
from tests.unit.kernels.rows import assert_gradient, whole

fused_row = pytest.importorskip("grpo.kernels.fused_row", exc_type=ImportError)
pytestmark = pytest.mark.gpu

INF, NAN = math.inf, math.nan
LARGEST = torch.finfo(torch.float32).max
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: Half a unit in the last place, and what a logprob's own rounding (3e-6 at lp = -24) makes of the loss's derivative,
#: which may be the small difference of two.
_ROUNDING = 5e-5
ACCURACY = {torch.float32: _ROUNDING, torch.bfloat16: 2**-8 + _ROUNDING, torch.float16: 2**-11 + _ROUNDING}
#: Llama 3, Qwen 2.5, and sizes that are no multiple of a block or of 4, larger and smaller than one.
SIZES = [128_256, 151_936, 151_937, 50_257, 32_001, 2050, 1000, 7, 1]
CONFIGS = {
    "default": AlgorithmConfig(),
    "all": AlgorithmConfig(dual_clip=1.4, kl_coefficient=0.3, entropy_coefficient=0.05, importance_cap=1.2),
    "masked": AlgorithmConfig(importance=Importance.token_mask, importance_floor=0.7, importance_cap=1.3),
    "cispo": AlgorithmConfig(surrogate=Surrogate.cispo, kl_coefficient=0.1, kl_estimator=KLEstimator.k3),
    "reinforce": AlgorithmConfig(surrogate=Surrogate.reinforce, kl_coefficient=0.1, kl_estimator=KLEstimator.k2),
    "to_behavior": AlgorithmConfig(ratio_to=RatioTo.behavior, importance=Importance.none),
}


def random_rows(count: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(size)
    logits = torch.randn(count, size, generator=generator, device="cuda") * 3
    return logits, torch.randint(0, size, (count,), generator=generator, device="cuda")


def tokens_around(logits: Tensor, targets: Tensor, temperature: float, *, proximal: bool = True) -> LossTokens:
    count = len(targets)
    lp = torch.log_softmax(logits / temperature, -1).gather(1, targets[:, None])[:, 0]
    spread = torch.tensor([0.9, -0.9, 0.1, -0.1, 0.45, -0.45, 0.0], device="cuda").repeat(count)[:count]
    return LossTokens(
        targets=targets,
        advantages=torch.tensor([1.5, -0.7, -1.2, 0.8, -2.0, 1.1, 0.0, 0.6], device="cuda").repeat(count)[:count],
        weights=torch.tensor([0.2, 0.13, 0.31, 0.0, 0.07], device="cuda").repeat(count)[:count],
        behavior=lp - spread.flip(0) + 0.03,
        proximal=lp - spread if proximal else None,
        reference=lp + spread.roll(2) + 0.2,
        sequence_index=torch.arange(count, device="cuda"),
        num_sequences=count,
    )


def expected_pass(
    logits: Tensor, tokens: LossTokens, config: AlgorithmConfig, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(logprobs, entropy, loss, gradient) by autograd in float64."""
    z = logits.double().requires_grad_()
    logprobs = torch.log_softmax(z / temperature, -1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    chosen = logprobs.gather(1, tokens.targets[:, None])[:, 0]
    loss = objective(chosen, entropy, tokens, config).loss
    (gradient,) = torch.autograd.grad((loss * tokens.weights).sum(), z)
    return chosen.detach(), entropy.detach(), loss.detach(), gradient


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_row_loss_at_full_size(size: int, dtype: torch.dtype) -> None:
    logits, targets = random_rows(33, size)
    for (name, config), temperature in zip(CONFIGS.items(), (1.0, 0.7, 1.0, 0.7, 3.0, 1.0), strict=True):
        tokens = tokens_around(logits, targets, temperature, proximal=name != "default")
        done = fused_row.row_loss(logits.clone(), tokens, config, temperature=temperature, dtype=dtype)
        logprobs, entropy, loss, gradient = expected_pass(logits, tokens, config, temperature)
        torch.testing.assert_close(done.logprobs.double(), logprobs, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(done.entropy.double(), entropy, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(done.loss.double(), loss, rtol=2e-5, atol=1e-5)
        assert_gradient(done.gradient, done.row_scale, gradient, targets, ACCURACY[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("size", [128_256, 50_257, 7])
def test_gradient_and_statistics_agree_with_the_torch_twin(size: int, with_entropy: bool, dtype: torch.dtype) -> None:
    logits, targets = random_rows(19, size)
    statistics = [f.row_statistics(logits.clone(), targets, temperature=0.7) for f in (fused_row, row)]
    torch.testing.assert_close(*statistics, rtol=1e-5, atol=1e-5)
    g = torch.linspace(-2, 1, 19, device="cuda")
    g_entropy = torch.linspace(1, 0.5, 19, device="cuda") if with_entropy else None
    arguments = {"temperature": 0.7, "dtype": dtype}
    found, expected = (
        whole(*f.row_gradient(logits.clone(), targets, g, g_entropy, **arguments)) for f in (fused_row, row)
    )
    assert (found - expected).norm() < 2 * ACCURACY[dtype] * expected.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [128_256, 151_936, 50_257, 32_001, 2050])
def test_repeated_runs_are_equal_to_the_bit(size: int, dtype: torch.dtype) -> None:
    """More rows than fit on the device at one time; a result that moves is a race."""
    logits, targets = random_rows(700, size)
    tokens = tokens_around(logits, targets, 1.0)
    buffer = torch.empty_like(logits)
    first = None
    for _ in range(20):
        done = fused_row.row_loss(buffer.copy_(logits), tokens, CONFIGS["all"], temperature=1.0, dtype=dtype)
        if first is None:
            first = done.gradient.clone()
        assert torch.equal(done.gradient, first)


@pytest.mark.parametrize("size", [128_256, 50_257, 2050])
def test_16_bits_are_float32_rounded(size: int) -> None:
    """The narrow gradient shares its storage with logits still to be read, the float32 one does not."""
    logits, targets = random_rows(700, size)
    tokens = tokens_around(logits, targets, 1.0)
    wide, narrow = (
        fused_row.row_loss(logits.clone(), tokens, CONFIGS["all"], temperature=1.0, dtype=dtype).gradient
        for dtype in (torch.float32, torch.bfloat16)
    )
    torch.testing.assert_close(narrow.float(), wide, rtol=2**-8 + 1e-5, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_rows(dtype: torch.dtype) -> None:
    """Beside ordinary rows, at a size of several blocks; the extreme entries are spread over all of them."""
    size = 40_000
    logits, _ = random_rows(9, size)
    targets = torch.full((9,), 5, device="cuda")
    logits[1, 10:] = -INF  # masked, all but 10
    logits[2] = -INF  # uniform
    logits[3, [4, 39_999]] = INF  # two share all
    logits[4] -= 1e5  # strongly negative
    logits[5, ::2] = -LARGEST
    logits[6, 17] = NAN
    logits[7, [0, 20_000]] = 1e30
    g, g_entropy = torch.linspace(0.5, 2, 9, device="cuda"), torch.linspace(0.2, -1, 9, device="cuda")
    logprobs, entropy = fused_row.row_statistics(logits, targets, temperature=1.0)
    held = logits.double().clamp(-LARGEST, LARGEST)
    everything = torch.log_softmax(held, -1)
    p = everything.exp()
    spread = -torch.xlogy(p, p).sum(-1)
    sound = [0, 1, 2, 3, 4, 5, 7, 8]
    wanted = everything.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double()[sound], wanted[sound], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double()[sound], spread[sound], rtol=1e-5, atol=1e-5)
    assert (entropy[sound] >= 0).all() and logprobs[6].isnan() and entropy[6].isnan()
    onehot = torch.zeros_like(p).scatter_(1, targets[:, None], 1.0)
    expected = g[:, None] * (onehot - p) - g_entropy[:, None] * (torch.xlogy(p, p) + p * spread[:, None])
    found, scale = fused_row.row_gradient(logits, targets, g, g_entropy, temperature=1.0, dtype=dtype)
    assert found[6].isnan().all()
    scale = None if scale is None else scale[sound]
    assert_gradient(found[sound], scale, expected[sound], targets[sound], ACCURACY[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offsets_beyond_31_bits(dtype: torch.dtype) -> None:
    size = 128_256
    count = 2**31 // size + 40
    if torch.cuda.mem_get_info()[0] < count * size * 4 * 1.25:
        pytest.skip("not enough memory on the device")
    logits = torch.zeros(count, size, device="cuda")
    rows, few_targets = random_rows(50, size)
    logits[-50:] = rows
    targets = torch.zeros(count, dtype=torch.int64, device="cuda")
    targets[-50:] = few_targets
    g = torch.linspace(-1, 1, count, device="cuda")
    arguments = {"temperature": 1.0, "dtype": dtype}
    few, _ = fused_row.row_gradient(rows, few_targets, g[-50:].clone(), None, **arguments)
    many, _ = fused_row.row_gradient(logits, targets, g, None, **arguments)
    assert torch.equal(many[-50:], few)
    assert many[0, 1].item() == pytest.approx(1 / size, rel=1e-2)  # g = -1 there


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_that_of_the_logits(dtype: torch.dtype) -> None:
    logits, targets = random_rows(256, 128_256)
    tokens = tokens_around(logits, targets, 1.0)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    done = fused_row.row_loss(logits, tokens, CONFIGS["all"], temperature=1.0, dtype=dtype)
    assert done.gradient.data_ptr() == logits.data_ptr()
    assert torch.cuda.max_memory_allocated() - before < 64 * 1024  # a few numbers a row


def test_one_compilation_serves_chunks_that_start_anywhere() -> None:
    """Slices of the tokens are aligned to 4 bytes only."""
    logits, targets = random_rows(9, 5000)
    tokens = tokens_around(logits, targets, 1.0)
    config = CONFIGS["masked"]
    done = fused_row.row_loss(logits.clone(), tokens, config, temperature=1.0, dtype=torch.bfloat16)
    compiled = sum(len(c[0]) for c in fused_row._loss_kernel.device_caches.values())
    part = fused_row.row_loss(logits[3:8].clone(), tokens.slice(3, 8), config, temperature=1.0, dtype=torch.bfloat16)
    assert sum(len(c[0]) for c in fused_row._loss_kernel.device_caches.values()) == compiled
    assert torch.equal(part.gradient, done.gradient[3:8]) and torch.equal(part.loss, done.loss[3:8])
