"""The two passes over a row of logits on a GPU: its log-softmax and entropy, and the gradient in its place.

Device functions of grpo/kernels/fused_row.py, which says what they cost. A program has one row, and B logits of it at
a time: its block.
"""

# triton has no types: what it hands out, and the parameters of what it compiles, are unknown to pyright.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math

import triton
import triton.language as tl

_LARGEST = tl.constexpr(3.4028234663852886e38)  # the largest finite float32
_LN_2 = tl.constexpr(math.log(2.0))
_LEAST_POWER = tl.constexpr(-200.0)  # 2^-200 is 0 in float32, and 0 * -200 is 0 where 0 * -inf would be NaN
_LEAST_LOGPROB = tl.constexpr(-150.0)  # exp(-150) is 0 too
_WIDTH = tl.constexpr(4)  # neighbours that one thread holds: 16 bytes of float32, the widest load


@triton.jit
def _columns(start, BLOCK: tl.constexpr):
    """[B / 4, 4]: a thread holds whole rows of it, so that a reduction along them stays inside the thread."""
    return start + tl.arange(0, BLOCK // _WIDTH)[:, None] * _WIDTH + tl.arange(0, _WIDTH)[None, :]


@triton.jit
def _finite(logits):
    return tl.clamp(logits, -_LARGEST, _LARGEST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def distribution(
    row, target, inverse_temperature, power, NUM_COLUMNS: tl.constexpr, BLOCK: tl.constexpr, EVICTION: tl.constexpr
):
    """First pass: (logprob of the target, entropy, largest logit, sum of the exponentials above it).

    Each thread keeps the maximum, the sum s of 2^x and the moment -sum(2^x x) of its own logits, with x = power (z -
    max) <= 0; they meet once, at the end. Entropy = log s + moment / s: no term is negative, so nothing cancels.
    """
    chosen = _finite(tl.load(row + target))
    top = tl.full([BLOCK // _WIDTH], -_LARGEST, tl.float32)
    total = tl.full([BLOCK // _WIDTH], 0.0, tl.float32)
    moment = tl.full([BLOCK // _WIDTH], 0.0, tl.float32)
    NUM_WHOLE: tl.constexpr = NUM_COLUMNS // BLOCK
    if NUM_COLUMNS % BLOCK != 0:
        columns = _columns(NUM_WHOLE * BLOCK, BLOCK)
        inside = columns < NUM_COLUMNS
        logits = _finite(tl.load(row + columns, mask=inside, other=0.0, eviction_policy=EVICTION))
        top, total, moment = _accumulate(tl.where(inside, logits, float("-inf")), top, total, moment, power)
    for done in range(NUM_WHOLE):
        columns = _columns((NUM_WHOLE - 1 - done) * BLOCK, BLOCK)
        logits = _finite(tl.load(row + columns, eviction_policy=EVICTION))
        top, total, moment = _accumulate(logits, top, total, moment, power)
    highest = tl.max(top, axis=0)
    shift = tl.maximum((top - highest) * power, _LEAST_POWER)
    moment = tl.sum((moment - total * shift) * tl.exp2(shift), axis=0)
    total = tl.sum(total * tl.exp2(shift), axis=0)
    logprob = (chosen - highest) * inverse_temperature - tl.log(total)
    logprob = tl.maximum(logprob, -_LARGEST, propagate_nan=tl.PropagateNan.ALL)
    return logprob, tl.log(total) + moment / total * _LN_2, highest, total


@triton.jit
def _accumulate(logits, top, total, moment, power):
    higher = tl.maximum(top, tl.max(logits, axis=1))
    shift = tl.maximum((top - higher) * power, _LEAST_POWER)
    powers = tl.maximum((logits - higher[:, None]) * power, _LEAST_POWER, propagate_nan=tl.PropagateNan.ALL)
    terms = tl.exp2(powers)
    moment = (moment - total * shift) * tl.exp2(shift) - tl.sum(terms * powers, axis=1)
    total = total * tl.exp2(shift) + tl.sum(terms, axis=1)
    return higher, total, moment


@triton.jit
def overwrite(
    row,
    out,
    target,
    found,
    by_logprob,
    by_entropy,
    inverse_temperature,
    power,
    NUM_COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_ENTROPY: tl.constexpr,
):
    """Second pass: d / dz_j = (1 / T) [g (1[j = y] - p_j) - g_H p_j (log p_j + H)], written over the row.

    `found` is what `distribution` returned.

    Why nothing is overwritten that is still to be read; addresses are bytes from the start of the row:

    - Every value depends on `total`, to which all threads add behind a barrier: by then all have read all of the first
      pass, the target's logit too.
    - float32: a logit's own place takes its gradient, which depends on it.
    - 16 bits: block k is read at [4 B k, 4 B (k + 1)) and written at [2 B k, 2 B (k + 1)), where logits of block k / 2
      stand, of block 0 itself for k = 0: another thread might still have to read them. Hence the barrier. A block is
      loaded an iteration ahead, so when any thread stores block k, all have loaded the blocks up to k + 1; what
      begins later, at 4 B (k + 2), is beyond all that was written. Loads that a compiler starts still earlier, as
      pipelining would, read the same logits; and it may move neither loads nor stores over a barrier.
    - The target's entry is written twice, with a barrier between.
    """
    logprob, entropy, highest, total = found
    NARROW: tl.constexpr = out.dtype.element_ty.primitive_bitwidth == 16
    # With x_j = log2 p_j the entry is p_j (factor + entropic x_j).
    factor = -by_logprob * inverse_temperature
    entropic = -by_entropy * inverse_temperature * _LN_2
    if HAS_ENTROPY:
        factor -= by_entropy * entropy * inverse_temperature
    log_total = tl.log2(total)
    columns = _columns(0, BLOCK)
    ahead = tl.load(row + columns, mask=columns < NUM_COLUMNS, other=0.0, eviction_policy="evict_first")
    for start in range(0, NUM_COLUMNS, BLOCK):
        logits = ahead
        columns = _columns(start + BLOCK, BLOCK)
        ahead = tl.load(row + columns, mask=columns < NUM_COLUMNS, other=0.0, eviction_policy="evict_first")
        if NARROW:
            tl.debug_barrier()
        powers = (_finite(logits) - highest) * power - log_total
        slopes = factor
        if HAS_ENTROPY:
            powers = tl.maximum(powers, _LEAST_POWER, propagate_nan=tl.PropagateNan.ALL)
            slopes = factor + entropic * powers
        values = (tl.exp2(powers) * slopes).to(out.dtype.element_ty)
        columns = _columns(start, BLOCK)
        tl.store(out + columns, values, mask=columns < NUM_COLUMNS, eviction_policy="evict_first")
    # The target's entry once more and whole: to look for it among all others would cost each of them a comparison.
    least = tl.maximum(logprob, _LEAST_LOGPROB, propagate_nan=tl.PropagateNan.ALL)
    p = tl.exp(least)
    value = by_logprob * (1.0 - p)
    if HAS_ENTROPY:
        value -= by_entropy * p * (least + entropy)
    tl.debug_barrier()
    tl.store(out + target, (value * inverse_temperature).to(out.dtype.element_ty))
