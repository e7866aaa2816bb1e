"""The output head and the loss in one: [tokens x vocabulary] never exists, only a chunk of tokens at a time.

logits = hidden @ weight.T is the largest tensor of a training step by far. Here it is made, used and overwritten by its
own gradient chunk by chunk, and the gradients of `hidden` and `weight` are finished when the forward pass ends:

- one pass, where a token's loss depends on its own logprob alone: three GEMMs a chunk (6 L H V operations in all);
- two passes, where it depends on the whole sequence (GSPO, sequence weights and masks): logprobs of all tokens first,
  then the logits are made again (8 L H V).

Products of 16-bit operands are summed and handed on in float32: rounding logits to bfloat16 is one of the ways in which
engine and learner come to disagree (https://arxiv.org/abs/2510.13786, section 3.2).
"""

# torch leaves some of its signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from grpo.config import AlgorithmConfig
from grpo.kernels import gemm, row
from grpo.kernels.objective import is_token_level, objective
from grpo.records import LossTokens


class HeadLoss(NamedTuple):
    """Result of `head_loss`.

    Attributes:
        loss: scalar float32, sum of weights * token losses; with gradient.
        logprobs: [L] float32 of the targets, without gradient, nats.
        entropy: [L] float32, without gradient, nats.
    """

    loss: Tensor
    logprobs: Tensor
    entropy: Tensor


class _Rows(Protocol):
    """The three functions of grpo/kernels/row.py, in torch or as kernels."""

    def row_statistics(self, logits: Tensor, targets: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]: ...
    def row_gradient(
        self,
        logits: Tensor,
        targets: Tensor,
        logprob_gradient: Tensor,
        entropy_gradient: Tensor | None,
        *,
        temperature: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]: ...
    def row_loss(
        self, logits: Tensor, tokens: LossTokens, config: AlgorithmConfig, *, temperature: float, dtype: torch.dtype
    ) -> row.RowPass: ...


def head_loss(
    hidden: Tensor,
    weight: Tensor,
    tokens: LossTokens,
    config: AlgorithmConfig,
    *,
    temperature: float,
    chunk_tokens: int,
    bias: Tensor | None = None,
) -> HeadLoss:
    """Loss of `tokens` under the policy softmax((hidden @ weight.T + bias) / temperature), gradients made on the way.

    Args:
        hidden: [L, H], what predicts each loss token; float32, bfloat16 or float16.
        weight: [V, H] of the same type; may be the embedding (tied).
        tokens: what the loss knows of them.
        config: the algorithm; decides between one pass and two.
        temperature: > 0, that the engine samples with.
        chunk_tokens: tokens whose logits exist at one time.
        bias: [V] or None.

    Returns:
        The loss, to be summed over micro-batches and ranks. It can be differentiated once.
    """
    assert hidden.ndim == 2 and weight.ndim == 2 and len(hidden) == len(tokens)
    if not torch.is_grad_enabled():
        logprobs, entropy = head_logprobs(
            hidden, weight, tokens.targets, temperature=temperature, chunk_tokens=chunk_tokens, bias=bias
        )
        losses = objective(logprobs, entropy, tokens, config).loss
        return HeadLoss((losses * tokens.weights).sum(), logprobs, entropy)
    return HeadLoss(*_Head.apply(hidden, weight, bias, tokens, config, temperature, chunk_tokens))


@torch.no_grad()
def head_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    chunk_tokens: int,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logprobs of the targets and entropy, [L] float32 each, without gradient. Arguments as in `head_loss`."""
    assert hidden.ndim == 2 and weight.ndim == 2 and targets.shape == hidden.shape[:1]
    rows = _rows(hidden.device)
    logprobs, entropy = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(2))
    for part, logits in _chunks(hidden, weight, bias, chunk_tokens):
        logprobs[part], entropy[part] = rows.row_statistics(logits, targets[part], temperature=temperature)
    return logprobs, entropy


class _Inputs(NamedTuple):
    """Arguments of `head_loss`."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    tokens: LossTokens
    config: AlgorithmConfig
    temperature: float
    chunk_tokens: int


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: LossTokens,
        config: AlgorithmConfig,
        temperature: float,
        chunk_tokens: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradients = _Gradients(hidden, weight, bias, ctx.needs_input_grad)
        passes = _one_pass if is_token_level(config) else _two_passes
        losses, logprobs, entropy = passes(
            _Inputs(hidden, weight, bias, tokens, config, temperature, chunk_tokens), gradients
        )
        ctx.gradients = gradients.finished(weight.dtype)
        ctx.mark_non_differentiable(logprobs, entropy)
        return (losses * tokens.weights).sum(), logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the argument's name
        ctx: Any, *outer: Tensor
    ) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "the gradients of a head are made once, with its loss, and used once"
        # A loss that is only summed has an outer gradient of 1; on a CPU finding out saves a pass over [V, H].
        if not (outer[0].is_cpu and outer[0].item() == 1.0):
            gradients = tuple(g if g is None else g.mul_(outer[0]) for g in gradients)
        return (*gradients, None, None, None, None)


# Each returns (losses, logprobs, entropy), [L], and fills `gradients`. Functions of their own, so that no name still
# holds a chunk's logits when the gradients are rounded.


def _one_pass(given: _Inputs, gradients: _Gradients) -> tuple[Tensor, Tensor, Tensor]:
    hidden, tokens = given.hidden, given.tokens
    rows, dtype = _rows(hidden.device), gemm.gradient_dtype(hidden)
    losses, logprobs, entropy = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3))
    for part, logits in _chunks(hidden, given.weight, given.bias, given.chunk_tokens):
        chunk = tokens.slice(part.start, part.stop)
        done = rows.row_loss(logits, chunk, given.config, temperature=given.temperature, dtype=dtype)
        losses[part], logprobs[part], entropy[part] = done.loss, done.logprobs, done.entropy
        gradients.add(part, done.gradient, done.row_scale)
    return losses, logprobs, entropy


def _two_passes(given: _Inputs, gradients: _Gradients) -> tuple[Tensor, Tensor, Tensor]:
    hidden, tokens = given.hidden, given.tokens
    rows, temperature = _rows(hidden.device), given.temperature
    logprobs, entropy = head_logprobs(
        hidden,
        given.weight,
        tokens.targets,
        temperature=temperature,
        chunk_tokens=given.chunk_tokens,
        bias=given.bias,
    )
    losses, by_logprob, by_entropy = row.objective_gradients(logprobs, entropy, tokens, given.config)
    for part, logits in _chunks(hidden, given.weight, given.bias, given.chunk_tokens if gradients.wanted else 0):
        by = by_logprob[part], None if by_entropy is None else by_entropy[part]
        gradient, scale = rows.row_gradient(
            logits, tokens.targets[part], *by, temperature=temperature, dtype=gemm.gradient_dtype(hidden)
        )
        gradients.add(part, gradient, scale)
    return losses, logprobs, entropy


class _Gradients:
    """d hidden, d weight and d bias of the whole, filled chunk by chunk; those that nobody needs stay None."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: tuple[bool, ...]) -> None:
        self._hidden, self._weight = hidden, weight
        self.wanted = any(needed[:3])
        self._by_hidden = torch.empty_like(hidden) if needed[0] else None
        self._by_weight = gemm.weight_gradient_buffer(weight) if needed[1] else None
        self._by_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needed[2] else None
        self._empty = True

    def add(self, part: slice, gradient: Tensor, scale: Tensor | None) -> None:
        """Add what a chunk's d logits = scale * gradient gives."""
        if self._by_hidden is not None:
            gemm.hidden_gradient(gradient, self._weight, scale, out=self._by_hidden[part])
        if self._by_weight is not None:
            gemm.weight_gradient(gradient, self._hidden[part], scale, out=self._by_weight, add=not self._empty)
        if self._by_bias is not None:
            ones = gradient.new_ones(len(gradient)) if scale is None else scale.to(gradient.dtype)
            self._by_bias += gradient.T @ ones
        self._empty = False

    def finished(self, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """(d hidden, d weight, d bias), each in the type of what it is the gradient of."""
        if self._empty and self._by_weight is not None:
            self._by_weight.zero_()
        weight, bias = (None if g is None else g.to(dtype) for g in (self._by_weight, self._by_bias))
        return self._by_hidden, weight, bias


def _chunks(hidden: Tensor, weight: Tensor, bias: Tensor | None, chunk_tokens: int) -> Iterator[tuple[slice, Tensor]]:
    """(part, logits of that part) for parts of equal size, at most `chunk_tokens`; all logits lie in one buffer."""
    if not len(hidden) or not chunk_tokens:
        return
    size = -(-len(hidden) // -(-len(hidden) // chunk_tokens))
    buffer = gemm.logits_buffer(size, weight)
    for start in range(0, len(hidden), size):
        part = slice(start, min(start + size, len(hidden)))
        logits = gemm.logits(hidden[part], weight, out=buffer[: part.stop - start])
        yield part, logits if bias is None else logits.add_(bias)


def _rows(device: torch.device) -> _Rows:
    if device.type == "cuda":
        try:
            from grpo.kernels import fused_row
        except ModuleNotFoundError:  # a torch without Triton: right, but slower
            return row
        return fused_row
    return row
