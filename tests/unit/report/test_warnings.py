from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from grpo.report.warnings import look_wrong

if TYPE_CHECKING:
    from .conftest import MetricsMaker


def test_healthy_step_and_empty_step_are_quiet(step_metrics: MetricsMaker) -> None:
    assert look_wrong(step_metrics(3), [step_metrics(1), step_metrics(2)]) == []
    assert look_wrong({}, []) == []


@pytest.mark.parametrize(
    ("name", "value", "said", "remedy"),
    [
        ("reward/zero_variance_share", 1.0, "No group holds", "rollout.group_size"),
        ("learner/ratio_max_deviation", 0.6, "ratio is off 1 by 0.600", "float32"),
        ("learner/loss", math.nan, "Not a finite number: learner/loss", "learner.lr"),
        ("learner/grad_norm", math.inf, "Not a finite number: learner/grad_norm", "learner.lr"),
        ("rollout/truncated_share", 0.51, "51% of the completions", "rollout.max_new_tokens"),
        ("reward/brevity/failed", 2.0, "brevity failed on 2", "brevity_reason"),
        ("learner/kl_behavior_policy", 0.11, "KL(behavior||policy) is 0.110", "rollout_dtype"),
        ("learner/entropy", 0.04, "Entropy fell to 0.0400", "clip_high"),
    ],
)
def test_each_fault_is_said_once(step_metrics: MetricsMaker, name: str, value: float, said: str, remedy: str) -> None:
    (message,) = look_wrong(step_metrics(3) | {name: value}, [])
    assert said in message
    assert remedy in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reward/zero_variance_share", 0.99),
        ("learner/ratio_max_deviation", 0.5),
        ("rollout/truncated_share", 0.5),
        ("learner/kl_behavior_policy", 0.1),
        ("learner/entropy", 0.05),
    ],
)
def test_limits_themselves_are_quiet(step_metrics: MetricsMaker, name: str, value: float) -> None:
    assert look_wrong(step_metrics(3) | {name: value}, []) == []


def test_ratio_may_leave_1_after_the_first_update(step_metrics: MetricsMaker) -> None:
    metrics = step_metrics(3) | {"learner/ratio_max_deviation": 5.0}
    assert look_wrong(metrics, [], updates_per_step=2) == []


def test_gradient_spike_is_judged_by_the_median() -> None:
    history = [{"learner/grad_norm": norm} for norm in (1.0, 100.0, 2.0, math.nan)]
    assert look_wrong({"learner/grad_norm": 20.0}, history) == []
    (message,) = look_wrong({"learner/grad_norm": 21.0}, history)
    assert "10 times its median" in message
    assert look_wrong({"learner/grad_norm": 21.0}, history[:2]) == []


def test_term_absent_from_every_task_is_no_fault() -> None:
    metrics = {"reward/style/mean": math.nan, "reward/style/absent": 8.0, "reward/style/failed": 0.0}
    assert look_wrong(metrics, []) == []
    assert look_wrong(metrics | {"reward/style/absent": 0.0}, []) != []


def test_old_completions_are_another_matter(step_metrics: MetricsMaker) -> None:
    metrics = step_metrics(3) | {"learner/ratio_max_deviation": 5.0, "learner/kl_behavior_policy": 0.2}
    (message,) = look_wrong(metrics | {"staleness/max": 2.0}, [])
    assert "up to 2 updates old" in message and "schedule.max_staleness" in message
    assert len(look_wrong(metrics | {"staleness/max": 0.0}, [])) == 2
