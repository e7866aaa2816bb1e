"""The metrics of one step, from its scored groups and the learners' reports. Definitions in docs/metrics.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from grpo.records import FinishReason, ScoredGroup, StepReport, WeightUpdate
from grpo.schedule.staleness import staleness
from rewards.base import Outcome, Verdict


def rollout_metrics(groups: Sequence[ScoredGroup], domains: Sequence[str] = ()) -> dict[str, float]:
    """``reward/``, ``advantage/``, ``rollout/`` and ``domain/`` quantities of one step.

    Args:
        domains: domains of the run's tasks; with two or more, each that the step drew from has metrics of its own.
    """
    completions = [c for scored in groups for c in scored.group.completions]
    lengths = np.asarray([len(c.token_ids) for c in completions])
    prompt_tokens = sum(len(s.group.prompt.token_ids) * len(s.group.completions) for s in groups)
    advantages = np.concatenate([s.advantages for s in groups]).astype(np.float64)
    metrics = {
        "rollout/completion_length_mean": float(lengths.mean()),
        "rollout/completion_length_max": float(lengths.max()),
        "rollout/truncated_share": _share([c.finish_reason is FinishReason.LENGTH for c in completions]),
        "rollout/num_tokens": float(lengths.sum()),
        "rollout/prefix_cache_hit_rate": sum(s.group.num_cached_prompt_tokens for s in groups) / prompt_tokens,
        "rollout/generate_s": max(s.group.latency_s for s in groups),
        "advantage/mean": float(advantages.mean()),
        "advantage/std": float(advantages.std()),
        "advantage/min": float(advantages.min()),
        "advantage/max": float(advantages.max()),
        "advantage/zero_share": float((advantages == 0).mean()),
    }
    metrics |= _reward_metrics(groups)
    if len(domains) > 1:
        for domain in domains:
            metrics |= _domain_metrics([s for s in groups if s.group.prompt.task.domain == domain], domain, len(groups))
    return metrics


def staleness_metrics(groups: Sequence[ScoredGroup], step: int) -> dict[str, float]:
    """How old the tokens are that `step` trains on, in updates; see `grpo.schedule.staleness`."""
    completions = [c for scored in groups for c in scored.group.completions]
    tokens = np.concatenate([np.full(n, staleness(step, v)) for c in completions for v, n in c.version_spans])
    return {
        "staleness/mean": float(tokens.mean()) if len(tokens) else 0.0,
        "staleness/max": float(max(staleness(step, c.first_policy_version) for c in completions)),
        "staleness/mixed_share": _share([len(c.version_spans) > 1 for c in completions]),
    }


def _domain_metrics(groups: Sequence[ScoredGroup], domain: str, num_groups: int) -> dict[str, float]:
    share = {f"domain/{domain}/share": len(groups) / num_groups}
    if not groups:
        return share
    lengths = [len(c.token_ids) for s in groups for c in s.group.completions]
    own = {"rollout/completion_length_mean": float(np.mean(lengths)), **_reward_metrics(groups)}
    return share | {f"domain/{domain}/{name}": value for name, value in own.items()}


def _reward_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    rewards = np.concatenate([s.rewards for s in groups]).astype(np.float64)
    valid = rewards[np.isfinite(rewards)]
    metrics = {
        "reward/mean": _mean(valid),
        "reward/std": _std(valid),
        "reward/zero_variance_share": _share([not s.has_signal for s in groups]),
        "reward/unscored_share": _share([int(np.isfinite(s.rewards).sum()) < 2 for s in groups]),
    }
    for term in dict.fromkeys(name for s in groups for name in s.verdicts):
        verdicts = [v for s in groups for v in s.verdicts.get(term, ())]
        metrics |= _term_metrics(term, verdicts)
        tested = [v for v in verdicts if v.details.get("tests_total")]
        if tested:
            metrics["reward/pass_rate"] = _share([_passed(v) for v in tested])
    for term in dict.fromkeys(name for s in groups for name in s.num_gated):
        metrics[f"reward/{term}/gated"] = float(sum(s.num_gated.get(term, 0) for s in groups))
    return metrics


def _term_metrics(term: str, verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Of one term, as it judged: raw, whatever it weighs."""
    values = np.asarray([v.value for v in verdicts if v.outcome is Outcome.VALID])
    reasons = Counter(v.reason for v in verdicts if v.outcome is Outcome.FAILED)
    return {
        f"reward/{term}/mean": _mean(values),
        f"reward/{term}/std": _std(values),
        f"reward/{term}/failed": float(reasons.total()),
        f"reward/{term}/absent": float(sum(v.outcome is Outcome.ABSENT for v in verdicts)),
        **{f"reward/{term}/failed/{reason}": float(count) for reason, count in sorted(reasons.items())},
    }


def _passed(verdict: Verdict) -> bool:
    return verdict.details["tests_passed"] == verdict.details["tests_total"]


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _std(values: np.ndarray) -> float:
    return float(values.std()) if len(values) else float("nan")


def merge_reports(reports: Sequence[StepReport]) -> dict[str, float]:
    """``learner/`` quantities from the ranks' reports: metrics are equal on all of them, tokens add up."""
    metrics = dict(reports[0].metrics)
    metrics["learner/num_tokens"] = float(sum(r.num_tokens for r in reports))
    metrics["learner/compute_s"] = max(r.compute_s for r in reports)
    return metrics


def sync_metrics(received: Sequence[WeightUpdate]) -> dict[str, float]:
    """``sync/`` quantities of one weight sync: of the engine process that took longest, and what all share.

    Args:
        received: the account of every engine process.
    """
    slowest = max(received, key=lambda update: update.transfer_s + update.load_s)
    metrics = {
        "sync/transfer_s": slowest.transfer_s,
        "sync/load_s": slowest.load_s,
        "sync/num_bytes": float(slowest.num_bytes),
    }
    if slowest.changed_share is not None:
        metrics["sync/changed_share"] = slowest.changed_share
    if slowest.probe_max_abs_difference is not None:
        metrics["sync/probe_max_abs_difference"] = slowest.probe_max_abs_difference
    return metrics
