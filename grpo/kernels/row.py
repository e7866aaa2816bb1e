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

#: Elements worked on at a time. On a CPU a block and its scratch stay in the second-level cache, so that five passes
#: cost one trip to memory; on a GPU a block only has to be large enough to fill it.
_BLOCK_ELEMENTS = {"cpu": 300_000, "cuda": 1 << 25}
_LARGEST = torch.finfo(torch.float32).max


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
        logits: [C, V] float32, contiguous; overwritten. Infinite ones are read as the largest finite number of their
            sign: -inf is a masked entry of probability 0, a row of nothing else is uniform. NaN stays NaN.
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
        logits: [C, V] float32, contiguous; overwritten, read as in `row_statistics`.
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
        logits: [C, V] float32, contiguous; overwritten, read as in `row_statistics`.
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
    count, vocabulary = logits.shape
    total, moment, chosen = (logits.new_empty(count) for _ in range(3))
    rows = max(1, round(_BLOCK_ELEMENTS.get(logits.device.type, 1 << 25) / vocabulary))
    scratch = logits.new_empty(min(rows, count), vocabulary)
    for start in range(0, count, rows):
        block = logits[start : start + rows]
        part = slice(start, start + len(block))
        shifted = _shift(block, temperature, scratch[: len(block)])
        torch.exp(shifted, out=block)
        torch.sum(block, -1, out=total[part])
        moment[part] = _moment(block, shifted)
        chosen[part] = shifted.gather(1, targets[part, None])[:, 0]
    log_total = total.log()
    # log s - sum(p x) with x <= 0: both terms are positive, so nothing cancels. Rounding may still end below 0.
    return _Exponentials(total, chosen - log_total, (log_total - moment / total).clamp(min=0.0))


def _shift(block: Tensor, temperature: float, out: Tensor) -> Tensor:
    """(z - max z) / temperature, so that the largest is exactly 0."""
    highest = block.amax(-1, keepdim=True)
    # On a CPU looking costs nothing, on a GPU it would wait for the device.
    if not block.is_cpu or not math.isfinite(float(highest.sum())):
        block.clamp_(-_LARGEST, _LARGEST)
        highest = block.amax(-1, keepdim=True)
    torch.sub(block, highest, out=out)
    return out if temperature == 1.0 else out.mul_(1.0 / temperature)


def _moment(exponentials: Tensor, shifted: Tensor) -> Tensor:
    """sum(e x) of each row; 0 * -inf counts 0. May change `shifted` where e is 0."""
    found = torch.linalg.vecdot(exponentials, shifted)
    if not found.is_cpu or not math.isfinite(float(found.sum())):
        found = torch.linalg.vecdot(exponentials, shifted.clamp_(min=-_LARGEST))
    return found


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
        rows = max(1, round(_BLOCK_ELEMENTS.get(gradient.device.type, 1 << 25) / gradient.shape[1]))
        for start in range(0, len(gradient), rows):
            block, part = gradient[start : start + rows], slice(start, start + rows)
            entropic = torch.xlogy(block, block).mul_(by_entropy[part, None])
            block.mul_(factor[part, None]).sub_(entropic)
        gradient.scatter_add_(1, targets[:, None], (by_logprob * found.total)[:, None])
        scale = size / (found.total * temperature)
    else:
        gradient.scatter_add_(1, targets[:, None], -found.total[:, None])
        scale = -by_logprob / (found.total * temperature)
    if dtype == torch.float32:
        return gradient, scale
    # In 16 bits the range is short: only what is of the size of a probability is rounded.
    return gradient.div_(found.total[:, None]).to(dtype), scale * found.total
