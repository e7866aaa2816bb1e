"""What is done to each row of logits: log-softmax, entropy, loss, and the gradient in place of the logits.

The torch form. grpo/kernels/fused_row.py has the same three functions for CUDA, each one kernel.

The gradient of a softmax is its exponentials once more, so they are left where the logits were: with s their sum and
g = d loss / d log p(y), d loss / d z = -(g / s) (e - s onehot(y)). The factor is one number a row and is handed back as
`row_scale`: multiplying the rows of [C, V] costs a pass over them, multiplying those of [C, H] next to nothing.
"""

# torch leaves some of its signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from grpo.config import AlgorithmConfig
from grpo.kernels.objective import is_token_level, objective
from grpo.records import LossTokens

#: Elements worked on at a time, a stretch of the vocabulary of all rows: on a CPU a block and its scratch stay in the
#: cache, so that what is done to them costs one trip to memory.
_BLOCK_ELEMENTS = 1 << 20
_LARGEST = torch.finfo(torch.float32).max
_SMALLEST = torch.finfo(torch.float32).tiny


class RowPass(NamedTuple):
    """Result of `row_loss`.

    Attributes:
        logprobs: [C] float32, of the targets under softmax(logits / temperature), nats.
        entropy: [C] float32, of that distribution, nats.
        loss: [C] float32, token losses, unweighted.
        gradient: [C, V] in the type asked for: d total / d logits = row_scale[:, None] * gradient.
        row_scale: [C] float32, or None where it is all ones.
    """

    logprobs: Tensor
    entropy: Tensor
    loss: Tensor
    gradient: Tensor
    row_scale: Tensor | None


class _Exponentials(NamedTuple):
    """e = exp((z - max z) / temperature) stands where the logits were; [C] each."""

    total: Tensor
    logprobs: Tensor
    entropy: Tensor


def row_statistics(logits: Tensor, targets: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Logprobs of the targets and entropy, under softmax(logits / temperature).

    Args:
        logits: [C, V] float32, of any strides; overwritten. Infinite ones are read as the largest finite number of
            their sign: -inf is a masked entry of probability 0, a row of nothing else is uniform. NaN stays NaN.
        targets: [C] int64.
        temperature: > 0.

    Returns:
        (logprobs [C], entropy [C]), float32, nats.
    """
    found = _exponentiate_(logits, targets, temperature)
    return found.logprobs, found.entropy


def row_gradient(
    logits: Tensor,
    targets: Tensor,
    logprob_gradient: Tensor,
    entropy_gradient: Tensor | None,
    *,
    temperature: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """d total / d logits from its derivatives by the targets' logprobs and by the entropies.

    With p = softmax(z / T) and H its entropy, d / dz_j = (1 / T) [g (1[j = y] - p_j) - g_H p_j (log p_j + H)].

    Args:
        logits: [C, V] float32; overwritten, read as in `row_statistics`.
        targets: [C] int64.
        logprob_gradient: g, [C] float32.
        entropy_gradient: g_H, [C] float32; None: 0.
        temperature: T > 0.
        dtype: of the gradient.

    Returns:
        (gradient [C, V], row_scale [C] or None) as in `RowPass`.
    """
    found = _exponentiate_(logits, targets, temperature)
    return _gradient_(logits, targets, found, logprob_gradient, entropy_gradient, temperature, dtype)


def row_loss(
    logits: Tensor, tokens: LossTokens, config: AlgorithmConfig, *, temperature: float, dtype: torch.dtype
) -> RowPass:
    """Logprobs, entropy, token losses and the gradient of sum(weights * loss), in one visit to each row.

    Args:
        logits: [C, V] float32; overwritten, read as in `row_statistics`.
        tokens: C of them.
        config: an algorithm whose loss is token-level.
        temperature: > 0.
        dtype: of the gradient.
    """
    assert is_token_level(config)
    found = _exponentiate_(logits, tokens.targets, temperature)
    loss, by_logprob, by_entropy = objective_gradients(found.logprobs, found.entropy, tokens, config)
    gradient, scale = _gradient_(logits, tokens.targets, found, by_logprob, by_entropy, temperature, dtype)
    return RowPass(found.logprobs, found.entropy, loss, gradient, scale)


def objective_gradients(
    logprobs: Tensor, entropy: Tensor, tokens: LossTokens, config: AlgorithmConfig
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Token losses, and the derivatives of sum(weights * loss) by logprobs and entropy.

    Args:
        logprobs, entropy: [L]; whole sequences, unless the loss is token-level.

    Returns:
        (loss [L], derivative by logprobs [L], by entropy [L] or None where the loss has no entropy in it).
    """
    with torch.enable_grad():
        logprobs = logprobs.detach().requires_grad_()
        entropy = entropy.detach().requires_grad_(config.entropy_coefficient > 0)
        loss = objective(logprobs, entropy, tokens, config).loss
        by = [logprobs, entropy] if entropy.requires_grad else [logprobs]
        found = torch.autograd.grad((loss * tokens.weights).sum(), by)
    return loss.detach(), found[0], found[1] if len(found) > 1 else None


def _exponentiate_(logits: Tensor, targets: Tensor, temperature: float) -> _Exponentials:
    assert logits.ndim == 2 and logits.dtype == torch.float32 and targets.shape == logits.shape[:1]
    highest = _highest(logits)
    # Never -inf: a ratio of two impossible tokens is 1 and not NaN.
    chosen = ((logits.gather(1, targets[:, None])[:, 0] - highest) / temperature).clamp(min=-_LARGEST)
    # Sums of blocks are added in float64, so that their number does not show.
    total, moment = (torch.zeros(len(logits), dtype=torch.float64, device=logits.device) for _ in range(2))
    scratch: Tensor | None = None
    for block in _blocks(logits):
        scratch = torch.empty_like(block) if scratch is None else scratch
        shifted = torch.sub(block, highest[:, None], out=scratch[:, : block.shape[1]])
        if temperature != 1.0:
            shifted.mul_(1.0 / temperature)
        torch.exp(shifted, out=block)
        total += block.sum(1)
        moment += _moment(block, shifted)
    log_total = total.log()
    # log s - sum(p x) with x <= 0: neither term is negative, so nothing cancels.
    entropy = log_total - moment / total
    return _Exponentials(total.float(), (chosen - log_total).float(), entropy.float())


def _blocks(logits: Tensor) -> tuple[Tensor, ...]:
    """Stretches of the vocabulary, [C, B] each but for a shorter last one."""
    return logits.split(max(1, _BLOCK_ELEMENTS // max(1, len(logits))), dim=1)


def _highest(logits: Tensor) -> Tensor:
    """Largest logit of each row, [C], after infinite ones have been made finite."""
    highest = logits.amax(1)
    # On a CPU looking costs nothing; on a GPU it would wait for the device.
    if not logits.is_cpu or not math.isfinite(float(highest.sum())):
        logits.clamp_(-_LARGEST, _LARGEST)
        highest = logits.amax(1)
    return highest


def _moment(exponentials: Tensor, shifted: Tensor) -> Tensor:
    """sum(e x) of each row; 0 * -inf counts 0. Overwrites `shifted`."""
    products = torch.mul(exponentials, shifted, out=shifted)
    found = products.sum(1) if products.is_cpu else None
    # A NaN among the logits is still in the sum of the exponentials.
    return products.nansum(1) if found is None or not math.isfinite(float(found.sum())) else found


def _gradient_(
    exponentials: Tensor,
    targets: Tensor,
    found: _Exponentials,
    by_logprob: Tensor,
    by_entropy: Tensor | None,
    temperature: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    gradient = exponentials
    if by_entropy is not None:
        # The larger of the two derivatives goes into the row's factor: a weight is 1 over the tokens of a step.
        size = torch.maximum(by_logprob.abs(), by_entropy.abs())
        size = torch.where(size > 0, size, 1.0)
        by_logprob, by_entropy = by_logprob / size, by_entropy / size
        # p_j (log p_j + H) = (e_j log e_j + e_j (H - log s)) / s, e log e taken as 0 at 0.
        factor = -by_logprob - by_entropy * (found.entropy - found.total.log())
        for block in _blocks(gradient):
            # Not xlogy, which takes three times as long. The smallest normal number stands for 0, and 0 log of it is 0.
            entropic = block.clamp(min=_SMALLEST).log_().mul_(block).mul_(by_entropy[:, None])
            block.mul_(factor[:, None]).sub_(entropic)
        gradient.scatter_add_(1, targets[:, None], (by_logprob * found.total)[:, None])
        scale = size / (found.total * temperature)
    else:
        gradient.scatter_add_(1, targets[:, None], -found.total[:, None])
        scale = -by_logprob / (found.total * temperature)
    if dtype == torch.float32:
        return gradient, scale
    # In 16 bits the range is short: only what is of the size of a probability is rounded.
    return gradient.div_(found.total[:, None]).to(dtype), scale * found.total
