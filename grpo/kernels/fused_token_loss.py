"""The loss of one token and its derivative, on a GPU: the scalars between the two passes of grpo/kernels/fused_row.py.

The formulae are those of grpo/kernels/objective.py, where their sources are. What is configured is a constant of the
compilation, so that only the chosen branch is left in the machine code.
"""

# triton has no types: what it hands out, and the parameters of what it compiles, are unknown to pyright.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false
# pyright: reportMissingTypeStubs=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from grpo.kernels.surrogate import MAX_LOG_RATIO

_BOUND = tl.constexpr(MAX_LOG_RATIO)
_LOG2_E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts; the first has 9 bits, so its product with an exponent is exact.
_LN2_HIGH = tl.constexpr(0.693359375)
_LN2_LOW = tl.constexpr(-2.121944400546905827679e-4)


@triton.jit
def expm1_and_excess(d):
    """(exp(d) - 1, exp(d) - 1 - d) for d up to 88, each to a few units in the last place.

    Triton has no expm1 of its own; and k3 as expm1(d) - d would lose half its digits at |d| of 1e-4.
    """
    # Up to |d| = 1 Taylor's series of the excess; its first term left out is below 2e-9 of the sum.
    series = 1.0 / 479001600
    series = series * d + 1.0 / 39916800
    series = series * d + 1.0 / 3628800
    series = series * d + 1.0 / 362880
    series = series * d + 1.0 / 40320
    series = series * d + 1.0 / 5040
    series = series * d + 1.0 / 720
    series = series * d + 1.0 / 120
    series = series * d + 1.0 / 24
    series = series * d + 1.0 / 6
    series = (series * d + 0.5) * d * d
    # Beyond: 2^n exp(r) with |r| <= ln 2 / 2, as one product d * log2 e would carry |d| roundings into the exponent.
    bounded = tl.maximum(d, -150.0, propagate_nan=tl.PropagateNan.ALL)
    n = tl.floor(bounded * _LOG2_E + 0.5)
    r = (bounded - n * _LN2_HIGH) - n * _LN2_LOW
    far = tl.exp2(n) * tl.exp2(r * _LOG2_E) - 1.0
    near = tl.abs(d) <= 1.0
    return tl.where(near, d + series, far), tl.where(near, series, far - d)


@triton.jit
def bounded_ratio(log_ratio):
    """(exp of the bounded log-ratio, its derivative)."""
    ratio = tl.exp(tl.clamp(log_ratio, -_BOUND, _BOUND, propagate_nan=tl.PropagateNan.ALL))
    return ratio, tl.where(tl.abs(log_ratio) > _BOUND, 0.0, ratio)


@triton.jit
def surrogate_loss(
    logprob, log_ratio, advantage, low, high, dual_clip, SURROGATE: tl.constexpr, HAS_DUAL_CLIP: tl.constexpr
):
    """(loss, derivative by logprob)."""
    if SURROGATE == "reinforce":
        loss = -advantage * logprob
        slope = -advantage
    else:
        ratio, ratio_slope = bounded_ratio(log_ratio)
        bounded = tl.clamp(ratio, low, high, propagate_nan=tl.PropagateNan.ALL)
        if SURROGATE == "cispo":
            slope = -bounded * advantage
            loss = slope * logprob
        else:
            loss = tl.maximum(-ratio * advantage, -bounded * advantage, propagate_nan=tl.PropagateNan.ALL)
            # The clip takes the gradient where it made the loss larger: above with A > 0, below with A < 0.
            clipped = ((ratio > high) & (advantage > 0)) | ((ratio < low) & (advantage < 0))
            slope = tl.where(clipped, 0.0, -advantage * ratio_slope)
            if HAS_DUAL_CLIP:
                limit = -dual_clip * advantage
                limited = (advantage < 0) & (loss > limit)
                loss = tl.where(limited, limit, loss)
                slope = tl.where(limited, 0.0, slope)
    return loss, slope


@triton.jit
def corrected(loss, slope, log_ratio, floor, cap, IMPORTANCE: tl.constexpr):
    """Surrogate loss and its derivative, times the importance weight."""
    if IMPORTANCE != "none":
        weight = importance_weight(log_ratio, floor, cap, IMPORTANCE)
        loss *= weight
        slope *= weight
    return loss, slope


@triton.jit
def importance_weight(log_ratio, floor, cap, IMPORTANCE: tl.constexpr):
    """The factor on the surrogate loss, for the tokens' two kinds."""
    weight, _ = bounded_ratio(log_ratio)
    if IMPORTANCE == "token_truncate":
        weight = tl.minimum(weight, cap, propagate_nan=tl.PropagateNan.ALL)
    else:
        weight = tl.where((weight >= floor) & (weight <= cap), weight, 0.0)
    return weight


@triton.jit
def penalised(loss, slope, logprob, behavior, reference, coefficient, KL: tl.constexpr):
    """Loss and its derivative, with the KL penalty and its own."""
    if KL != "none":
        penalty, penalty_slope = kl_penalty(logprob, behavior, reference, KL)
        loss += coefficient * penalty
        slope += coefficient * penalty_slope
    return loss, slope


@triton.jit
def kl_penalty(logprob, behavior, reference, KL: tl.constexpr):
    """(penalty, derivative by logprob)."""
    d = reference - logprob
    if KL == "k1":
        penalty = -d
        slope = d * 0.0 + 1.0
    elif KL == "k2":
        penalty = 0.5 * d * d
        slope = -d
    else:
        expm1, penalty = expm1_and_excess(tl.minimum(d, _BOUND, propagate_nan=tl.PropagateNan.ALL))
        slope = tl.where(d > _BOUND, 0.0, -expm1)
        if KL == "weighted_k3":
            ratio, ratio_slope = bounded_ratio(logprob - behavior)
            # Inside both bounds r (1 - exp d) + r (exp d - 1 - d) is - r d, without what cancels.
            inside = (d <= _BOUND) & (ratio_slope > 0)
            slope = tl.where(inside, -ratio * d, ratio * slope + ratio_slope * penalty)
            penalty = ratio * penalty
    return penalty, slope
