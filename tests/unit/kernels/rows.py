"""Rows of logits, what the row pass makes of them, and what it should."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo.kernels import row
from tests import oracles

C, V = 5, 7
TEMPERATURES = [0.7, 1.0, 3.0]
#: Derivatives by logprobs and by entropies.
G, GE = torch.tensor([1.0, -0.5, 0.0, 2.0, -3.0]), torch.tensor([0.3, 0.0, -0.7, 1.0, -0.2])


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


def assert_gradient(gradient: Tensor, scale: Tensor | None, expected: Tensor, targets: Tensor, accuracy: float) -> None:
    """Each entry to `accuracy`, and to float32's rounding of its row's largest: the targets' aside, which dwarf all
    others. float16 has a smallest number, too."""
    largest = expected.scatter(1, targets[:, None], 0.0).abs().amax(-1, keepdim=True)
    floor = (2e-6 * largest).expand(expected.shape).scatter(1, targets[:, None], 2e-6 * expected.abs().amax(-1, True))
    if gradient.dtype == torch.float16:
        assert scale is not None
        floor = floor + 6e-8 * scale.double()[:, None]
    excess = (whole(gradient, scale) - expected).abs() - expected.abs() * accuracy - floor
    assert (excess <= 1e-30).all(), excess.max()


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
