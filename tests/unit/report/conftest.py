"""Synthetic metrics and groups: what a report shows does not depend on where it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from grpo.records import Completion, FinishReason, Group, Prompt, ScoredGroup, Task
from rewards.base import Verdict

GroupMaker = Callable[..., ScoredGroup]
MetricsMaker = Callable[[int], dict[str, float]]


def _step_metrics(step: int) -> dict[str, float]:
    """A plausible step of a run that learns."""
    wave = math.sin(step * 1.7)
    passed = 0.15 + 0.5 * (1 - math.exp(-step / 12)) + 0.05 * wave
    rollout_s, learner_s = 6.0 + 0.4 * wave, 3.1 + 0.2 * math.cos(step)
    return {
        "reward/mean": 0.2 + passed,
        "reward/std": 0.31 + 0.02 * wave,
        "reward/unit_tests/mean": passed + 0.1,
        "reward/unit_tests/failed": 0.0,
        "reward/unit_tests/absent": 0.0,
        "reward/brevity/mean": 0.4 + 0.004 * step,
        "reward/brevity/failed": float(step == 7) * 2,
        "reward/brevity/absent": 0.0,
        "reward/pass_rate": passed,
        "reward/zero_variance_share": 0.25 if step % 4 else 0.5,
        "rollout/completion_length_mean": 96.0 + step + 6 * wave,
        "rollout/completion_length_max": 256.0,
        "rollout/truncated_share": 0.11 + 0.03 * wave,
        "rollout/num_tokens": 6144.0 + 30 * step,
        "rollout/tokens_per_s": 1023.4 + 40 * wave,
        "learner/tokens_per_s": 4350.0 + 100 * wave,
        "learner/loss": -0.01 * wave,
        "learner/grad_norm": 0.8 + 0.2 * wave,
        "learner/lr": 1e-6,
        "learner/entropy": 0.9 - 0.01 * step,
        "learner/clip_low_share": 0.002 + 0.001 * wave,
        "learner/clip_high_share": 0.004 + 0.001 * wave,
        "learner/ratio_max_deviation": 0.0,
        "learner/kl_behavior_policy": 0.0012 + 0.0003 * wave,
        "time/step_s": rollout_s + learner_s + 0.9,
        "time/rollout_s": rollout_s,
        "time/reward_s": 0.2,
        "time/learner_s": learner_s,
        "time/sync_s": 0.4,
        "time/idle_s": 0.3,
        "epoch": step / 40,
    }


def _scored_group(
    texts: Sequence[str] = ("    return a + b\n", "    return a\n", "    pass\n"),
    rewards: Sequence[float] = (1.0, 0.5, math.nan),
    *,
    uid: int = 5,
    prompt: str = "Write add(a, b).",
    terms: Sequence[str] = ("unit_tests",),
) -> ScoredGroup:
    """One group; a NaN reward stands for a failed first term."""
    task = Task(task_id=f"task/{uid}", domain="code", messages=(("user", prompt),), prefill="```python\n", reference={})
    completions = tuple(
        Completion(
            token_ids=np.arange(4 + index, dtype=np.int64),
            behavior_logprobs=np.full(4 + index, -0.5, dtype=np.float32),
            text=text,
            finish_reason=FinishReason.LENGTH if index else FinishReason.STOP,
            version_spans=((2, 1), (3, 3 + index)),
        )
        for index, text in enumerate(texts)
    )
    first = tuple(Verdict.failed("sandbox died") if math.isnan(reward) else Verdict.valid(reward) for reward in rewards)
    others = {term: tuple(Verdict.absent("no tests") for _ in rewards) for term in terms[1:]}
    return ScoredGroup(
        group=Group(
            prompt=Prompt(uid=uid, task=task, token_ids=np.arange(7, dtype=np.int64)),
            completions=completions,
            worker=0,
            latency_s=1.0,
            num_cached_prompt_tokens=0,
        ),
        verdicts={terms[0]: first, **others},
        num_gated={},
        rewards=np.array(rewards, dtype=np.float32),
        advantages=np.nan_to_num(np.array(rewards, dtype=np.float32) - 0.75),
        has_signal=True,
    )


@pytest.fixture
def step_metrics() -> MetricsMaker:
    """Metrics of a step by its number."""
    return _step_metrics


@pytest.fixture
def scored_group() -> GroupMaker:
    """Makes a group out of completion texts and rewards."""
    return _scored_group
