"""What looks wrong in a step's metrics, said once and with what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from grpo.report.series import column, format_number, reward_terms

#: Of the worst token. Engine and learner in bfloat16 differ by tenths there; a wrong temperature, by far more.
MAX_RATIO_DEVIATION = 0.5
MAX_TRUNCATED_SHARE = 0.5
MAX_KL_BEHAVIOR_POLICY = 0.1
MIN_ENTROPY = 0.05
GRAD_NORM_SPIKE = 10.0
_MIN_GRAD_NORM_HISTORY = 3


def look_wrong(
    metrics: Mapping[str, float], history: Sequence[Mapping[str, float]], *, updates_per_step: int = 1
) -> list[str]:
    """Warnings about one step; empty where nothing looks wrong. Missing metrics are passed over.

    Args:
        metrics: this step's.
        history: earlier steps', oldest first, this one not included.
        updates_per_step: above 1 the ratio may leave 1, so its check is off.
    """
    return [
        *_not_finite(metrics),
        *_signal(metrics),
        *_failed_rewards(metrics),
        *_truncation(metrics),
        *_mismatch(metrics, updates_per_step),
        *_optimisation(metrics, history),
    ]


def _not_finite(metrics: Mapping[str, float]) -> Iterator[str]:
    # A term that applies to no task of the step has no mean; that is no fault.
    def is_idle(name: str) -> bool:
        return metrics.get(f"{name.rpartition('/')[0]}/absent", 0.0) > 0

    broken = sorted(name for name, value in metrics.items() if not math.isfinite(value) and not is_idle(name))
    if broken:
        shown = ", ".join(broken[:4]) + (f" and {len(broken) - 4} more" if len(broken) > 4 else "")
        yield f"Not a finite number: {shown}. Look for failed rewards, then lower learner.lr or use float32 parameters."


def _signal(metrics: Mapping[str, float]) -> Iterator[str]:
    if metrics.get("reward/zero_variance_share", 0.0) >= 1.0:
        yield (
            "No group holds a learning signal: within each, all rewards are equal, so the step trains on nothing. "
            "Use easier or more varied tasks, a larger rollout.group_size, or a graded reward."
        )


def _failed_rewards(metrics: Mapping[str, float]) -> Iterator[str]:
    for term in reward_terms([metrics]):
        failed = metrics.get(f"reward/{term}/failed", 0.0)
        if failed > 0:
            yield (
                f"Reward term {term} failed on {failed:g} completions, which are left out of the step. "
                f"The reasons are in column {term}_reason of the step's rollouts."
            )


def _truncation(metrics: Mapping[str, float]) -> Iterator[str]:
    share = metrics.get("rollout/truncated_share", 0.0)
    if share > MAX_TRUNCATED_SHARE:
        yield (
            f"{share:.0%} of the completions hit the length limit. Raise rollout.max_new_tokens, add a stop string, "
            "or set algorithm.mask_truncated=true."
        )


def _mismatch(metrics: Mapping[str, float], updates_per_step: int) -> Iterator[str]:
    stale = metrics.get("staleness/max", 0.0)
    deviation = metrics.get("learner/ratio_max_deviation", 0.0)
    if updates_per_step == 1 and not stale and deviation > MAX_RATIO_DEVIATION:
        yield (
            f"The ratio is off 1 by {format_number(deviation)} though the step is on-policy: engine and learner give "
            "the same token other probabilities. Check rollout.engine_args, or use float32 parameters."
        )
    divergence = metrics.get("learner/kl_behavior_policy", 0.0)
    if divergence > MAX_KL_BEHAVIOR_POLICY and stale:
        yield (
            f"KL(behavior||policy) is {format_number(divergence)} nats a token with completions up to {stale:g} "
            "updates old: the policy moves faster than that allows. Lower learner.lr or schedule.max_staleness."
        )
    elif divergence > MAX_KL_BEHAVIOR_POLICY:
        yield (
            f"KL(behavior||policy) is {format_number(divergence)} nats a token: engine and learner disagree. Check "
            "that model.rollout_dtype equals model.param_dtype, top_p is 1 and top_k is -1, and the weight sync."
        )


def _optimisation(metrics: Mapping[str, float], history: Sequence[Mapping[str, float]]) -> Iterator[str]:
    entropy = metrics.get("learner/entropy", math.inf)
    if entropy < MIN_ENTROPY:
        yield (
            f"Entropy fell to {format_number(entropy)} nats: the policy hardly explores any more. Lower learner.lr, "
            "raise algorithm.clip_high or algorithm.entropy_coefficient, or stop here if the reward is good enough."
        )
    norm = metrics.get("learner/grad_norm", math.nan)
    earlier = [value for value in column(history, "learner/grad_norm") if math.isfinite(value)]
    if len(earlier) >= _MIN_GRAD_NORM_HISTORY and norm > GRAD_NORM_SPIKE * median(earlier) > 0:
        yield (
            f"Gradient norm {format_number(norm)} is {norm / median(earlier):.0f} times its median so far. One spike "
            "is clipped by learner.max_grad_norm; if they recur, lower learner.lr."
        )
