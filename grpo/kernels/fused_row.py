"""The functions of grpo/kernels/row.py for CUDA, each one kernel, in Triton.

A program works on one row, in two passes: the first finds its log-normaliser and entropy, then the loss of its token
and that loss's derivative are a few scalars, and the second reads the row again and writes its gradient over it.
Bytes moved for each logit, where the second reading of the row finds it in a cache / where it does not:

===============================  ==============  =================
`row_statistics`                 4               4
16 bits: gradient or loss        4 + 2 = 6       4 + 4 + 2 = 10
float32: gradient or loss        4 + 4 = 8       4 + 4 + 4 = 12
===============================  ==============  =================

To find it there the first pass goes backwards, so that the second begins with what was read last. A Hopper has 132
multiprocessors and 50 MB (H100) or 60 MB (H200) of L2. A row of 128,256 logits is 513 KB: with one program on each
multiprocessor 68 MB are being worked on, of which at any time the half counts that is still to be read again, 34 MB;
besides, up to 200 KB of each row are still in the L1 cache of its own multiprocessor. Two programs on each would be too
much. So `launch_shape` gives long rows 1024 threads of 64 registers, which fill a multiprocessor, and shorter ones
fewer, so that about half a megabyte is being worked on at each. Loads of the first pass ask to stay in the cache, those
of the second to go. All this is reckoned; how often the second reading does find its row has not been measured.

Nothing is tuned by trial: a kernel that overwrites its input can't be run twice.
"""

# triton has no types: what it hands out, and the parameters of what it compiles, are unknown to pyright.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from grpo.config import AlgorithmConfig, RatioTo
from grpo.kernels.fused_softmax import distribution, overwrite
from grpo.kernels.fused_token_loss import corrected, penalised, surrogate_loss
from grpo.kernels.objective import has_kl_loss, is_token_level
from grpo.kernels.row import RowPass
from grpo.records import LossTokens


def launch_shape(num_columns: int) -> tuple[int, int]:
    """(logits of a row that a program reads at a time, warps of a program).

    16 logits a thread: 64 KB of loads under way on each multiprocessor, twice what the memory's latency needs.
    """
    num_warps = min(32, max(4, 1 << ((num_columns - 1) // 4096).bit_length()))
    return 512 * num_warps, num_warps


def row_statistics(logits: Tensor, targets: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """As in grpo/kernels/row.py, but the logits are left as they are."""
    found = logprobs, entropy = _empty(logits), _empty(logits)
    _launch(_statistics_kernel, logits, (targets, *found), temperature)
    return logprobs, entropy


def row_gradient(
    logits: Tensor,
    targets: Tensor,
    logprob_gradient: Tensor,
    entropy_gradient: Tensor | None,
    *,
    temperature: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """As in grpo/kernels/row.py; where the gradient lies, `row_loss` says."""
    gradient, scale = _gradient_buffers(logits, dtype)
    rows = scale, targets, logprob_gradient, entropy_gradient
    _launch(_gradient_kernel, logits, rows, temperature, gradient=gradient)
    return gradient, scale


def row_loss(
    logits: Tensor, tokens: LossTokens, config: AlgorithmConfig, *, temperature: float, dtype: torch.dtype
) -> RowPass:
    """As in grpo/kernels/row.py.

    The gradient lies in the storage of `logits`: in float32 where they were, in 16 bits in the first half of each row,
    so that its rows are 2 V apart. `row_scale` is None but for float16, whose range is too short for weights of 1 over
    the tokens of a step.
    """
    assert is_token_level(config)
    reference = tokens.reference if has_kl_loss(config) else None
    assert reference is not None or not has_kl_loss(config)
    gradient, scale = _gradient_buffers(logits, dtype)
    logprobs, entropy, loss = _empty(logits), _empty(logits), _empty(logits)
    known = tokens.targets, tokens.advantages, tokens.weights, tokens.behavior, tokens.proximal, reference
    _launch(
        _loss_kernel,
        logits,
        (scale, *known, logprobs, entropy, loss),
        temperature,
        gradient=gradient,
        low=1.0 - config.clip_low,
        high=1.0 + config.clip_high,
        dual_clip=config.dual_clip or 0.0,
        floor=config.importance_floor,
        cap=config.importance_cap,
        kl_coefficient=config.kl_coefficient,
        entropy_coefficient=config.entropy_coefficient,
        SURROGATE=config.surrogate.value,
        TO_BEHAVIOR=config.ratio_to is RatioTo.behavior,
        HAS_DUAL_CLIP=config.dual_clip is not None,
        IMPORTANCE=config.importance.value,
        KL=config.kl_estimator.value if has_kl_loss(config) else "none",
        HAS_ENTROPY=config.entropy_coefficient > 0,
    )
    return RowPass(logprobs, entropy, loss, gradient, scale)


def _empty(logits: Tensor) -> Tensor:
    return logits.new_empty(len(logits))


def _gradient_buffers(logits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    if dtype == torch.float32:
        return logits, None
    assert dtype.itemsize == 2
    gradient = logits.view(dtype)[:, : logits.shape[1]]
    return gradient, _empty(logits) if dtype == torch.float16 else None


def _launch(
    kernel: Any, logits: Tensor, rows: tuple[Tensor | None, ...], temperature: float, **settings: Tensor | float | str
) -> None:
    """Start `kernel`, one program a row; `rows` have one element for each."""
    assert logits.ndim == 2 and logits.dtype == torch.float32 and logits.is_contiguous()
    for values in rows:
        assert values is None or (values.shape == logits.shape[:1] and values.is_contiguous())
    if not len(logits):
        return
    block, num_warps = launch_shape(logits.shape[1])
    with torch.cuda.device_of(logits):
        kernel[(len(logits),)](
            logits,
            *rows,
            inverse_temperature=1.0 / temperature,
            power=math.log2(math.e) / temperature,  # the hardware's exponential is that of 2
            **settings,
            NUM_COLUMNS=logits.shape[1],
            BLOCK=block,
            num_warps=num_warps,
            num_stages=1,  # the passes order their loads themselves
            maxnreg=64,
        )


# A chunk of tokens may start at any address: one compilation is to serve all.
_TOKENS = ["targets", "advantages", "weights", "behavior", "proximal", "reference", "by_logprobs", "by_entropies"]
_RESULTS = ["logprobs", "entropies", "losses", "scales"]


@triton.jit(do_not_specialize_on_alignment=[*_TOKENS, *_RESULTS])
def _statistics_kernel(
    logits,
    targets,
    logprobs,
    entropies,
    inverse_temperature,
    power,
    NUM_COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0)
    row = logits + index.to(tl.int64) * NUM_COLUMNS
    target = tl.load(targets + index)
    found = distribution(row, target, inverse_temperature, power, NUM_COLUMNS, BLOCK, "evict_first")
    tl.store(logprobs + index, found[0])
    tl.store(entropies + index, found[1])


@triton.jit(do_not_specialize_on_alignment=[*_TOKENS, *_RESULTS])
def _gradient_kernel(
    logits,
    scales,
    targets,
    by_logprobs,
    by_entropies,
    gradient,
    inverse_temperature,
    power,
    NUM_COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0)
    row = logits + index.to(tl.int64) * NUM_COLUMNS
    target = tl.load(targets + index)
    by_logprob = tl.load(by_logprobs + index)
    by_entropy = _given(by_entropies, index, by_logprob)
    found = distribution(row, target, inverse_temperature, power, NUM_COLUMNS, BLOCK, "evict_last")
    HAS_ENTROPY: tl.constexpr = by_entropies is not None
    by_logprob, by_entropy, factor = _split(by_logprob, by_entropy, inverse_temperature, scales, index, HAS_ENTROPY)
    out = _gradient_row(gradient, index, NUM_COLUMNS)
    overwrite(row, out, target, found, by_logprob, by_entropy, factor, power, NUM_COLUMNS, BLOCK, HAS_ENTROPY)


@triton.jit(do_not_specialize_on_alignment=[*_TOKENS, *_RESULTS])
def _loss_kernel(
    logits,
    scales,
    targets,
    advantages,
    weights,
    behavior,
    proximal,
    reference,
    logprobs,
    entropies,
    losses,
    gradient,
    inverse_temperature,
    power,
    low,
    high,
    dual_clip,
    floor,
    cap,
    kl_coefficient,
    entropy_coefficient,
    SURROGATE: tl.constexpr,
    TO_BEHAVIOR: tl.constexpr,
    HAS_DUAL_CLIP: tl.constexpr,
    IMPORTANCE: tl.constexpr,
    KL: tl.constexpr,
    HAS_ENTROPY: tl.constexpr,
    NUM_COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0)
    row = logits + index.to(tl.int64) * NUM_COLUMNS
    # What the loss needs is asked for before the first pass, so that nothing is waited for after it.
    target = tl.load(targets + index)
    advantage = tl.load(advantages + index)
    weight = tl.load(weights + index)
    b = tl.load(behavior + index)
    p = _given(proximal, index, b)
    r = _given(reference, index, b)
    found = distribution(row, target, inverse_temperature, power, NUM_COLUMNS, BLOCK, "evict_last")
    lp = found[0]
    if proximal is None:
        p = lp
    loss, slope = surrogate_loss(
        lp, lp - (b if TO_BEHAVIOR else p), advantage, low, high, dual_clip, SURROGATE, HAS_DUAL_CLIP
    )
    loss, slope = corrected(loss, slope, p - b, floor, cap, IMPORTANCE)
    loss, slope = penalised(loss, slope, lp, b, r, kl_coefficient, KL)
    if HAS_ENTROPY:
        loss -= entropy_coefficient * found[1]
    tl.store(logprobs + index, lp)
    tl.store(entropies + index, found[1])
    tl.store(losses + index, loss)
    by_logprob, by_entropy, factor = _split(
        weight * slope, -weight * entropy_coefficient, inverse_temperature, scales, index, HAS_ENTROPY
    )
    out = _gradient_row(gradient, index, NUM_COLUMNS)
    overwrite(row, out, target, found, by_logprob, by_entropy, factor, power, NUM_COLUMNS, BLOCK, HAS_ENTROPY)


@triton.jit
def _given(values, index, otherwise):
    """The row's value, or `otherwise` where there are none."""
    value = otherwise
    if values is not None:
        value = tl.load(values + index)
    return value


@triton.jit
def _gradient_row(gradient, index, NUM_COLUMNS: tl.constexpr):
    STRIDE: tl.constexpr = NUM_COLUMNS * (32 // gradient.dtype.element_ty.primitive_bitwidth)
    return gradient + index.to(tl.int64) * STRIDE


@triton.jit
def _split(by_logprob, by_entropy, inverse_temperature, scales, index, HAS_ENTROPY: tl.constexpr):
    """(g, g_H, their factor in the gradient); where there are `scales`, the row's takes the size of all three."""
    factor = inverse_temperature
    if scales is not None:
        size = tl.abs(by_logprob)
        if HAS_ENTROPY:
            size = tl.maximum(size, tl.abs(by_entropy))
        size = tl.where(size > 0.0, size, 1.0)
        tl.store(scales + index, size * inverse_temperature)
        by_logprob = by_logprob / size
        by_entropy = by_entropy / size
        factor = 1.0
    return by_logprob, by_entropy, factor
