"""The three matrix products of an output head, float32 wherever they are summed.

A GPU multiplies 16-bit operands and adds in float32. A CPU's 16-bit products are slow or round on the way, so there the
operands are converted, the weight a slice of the vocabulary at a time.
"""

# torch leaves some of its signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from grpo.kernels.host_memory import HOST_BUFFERS

#: Vocabulary entries of a 16-bit weight that are converted at a time on a CPU.
_SLICE = 4096


def gradient_dtype(hidden: Tensor) -> torch.dtype:
    """The type in which d logits enter the products."""
    return hidden.dtype if hidden.is_cuda else torch.float32


def logits_buffer(num_tokens: int, weight: Tensor) -> Tensor:
    """Uninitialised [C, V] float32 logits, laid out as this device multiplies fastest.

    On a CPU the tokens are neighbours in memory and not the vocabulary: all three products are then a few per cent
    faster, those that sum over the vocabulary by a sixth.
    """
    if weight.is_cuda:
        return weight.new_empty(num_tokens, len(weight), dtype=torch.float32)
    return HOST_BUFFERS.empty(len(weight), num_tokens).T


def weight_gradient_buffer(weight: Tensor) -> Tensor:
    """Uninitialised [V, H] float32: chunks are summed in it, and it is rounded to the weight's own type once."""
    if weight.is_cuda:
        return torch.empty_like(weight, dtype=torch.float32)
    return HOST_BUFFERS.empty(*weight.shape)


def logits(hidden: Tensor, weight: Tensor, *, out: Tensor) -> Tensor:
    """hidden [C, H] @ weight [V, H].T -> `out` [C, V], one of `logits_buffer`."""
    if weight.dtype == torch.float32:
        return torch.mm(weight, hidden.T, out=out.T).T if weight.is_cpu else torch.mm(hidden, weight.T, out=out)
    if weight.is_cuda:
        return torch.mm(hidden, weight.T, out_dtype=torch.float32, out=out)
    for part, converted in _converted(weight):
        torch.mm(converted, hidden.float().T, out=out.T[part])
    return out


def hidden_gradient(gradient: Tensor, weight: Tensor, scale: Tensor | None, *, out: Tensor) -> None:
    """scale [C] * gradient [C, V] @ weight [V, H] -> `out` [C, H]."""
    if weight.is_cuda:
        torch.mm(gradient, weight, out=out)
        if scale is not None:
            out.mul_(scale[:, None])
        return
    if weight.dtype == torch.float32:
        product = torch.mm(weight.T, gradient.T)
    else:
        product = gradient.new_zeros(weight.shape[1], len(gradient))
        for part, converted in _converted(weight):
            product.addmm_(converted.T, gradient.T[part])
    out.copy_(product.T if scale is None else product.T * scale[:, None])


def weight_gradient(gradient: Tensor, hidden: Tensor, scale: Tensor | None, *, out: Tensor, add: bool) -> None:
    """gradient [C, V].T @ (scale [C] * hidden [C, H]) -> `out` [V, H] float32, or added to it."""
    if scale is not None:
        hidden = (hidden * scale[:, None]).to(gradient.dtype)
    hidden = hidden.to(gradient.dtype)
    if gradient.dtype == torch.float32:
        torch.addmm(out, gradient.T, hidden, beta=float(add), out=out) if add else torch.mm(gradient.T, hidden, out=out)
    elif add:
        torch.addmm(out, gradient.T, hidden, out_dtype=torch.float32, out=out)
    else:
        torch.mm(gradient.T, hidden, out_dtype=torch.float32, out=out)


def _converted(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(weight), _SLICE):
        part = slice(start, start + _SLICE)
        yield part, weight[part].float()
