"""Metrics of a step from two small groups, every number by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from grpo.config import AdvantageKind, AlgorithmConfig, KLPlacement
from grpo.records import FinishReason, ScoredGroup, StepReport
from grpo.step_metrics import merge_reports, rollout_metrics
from rewards.base import Verdict
from tests.builders import make_completion, make_group, make_scored

NAN = math.nan


def test_rollout_quantities():
    first = ScoredGroup(
        group=make_group(
            [make_completion([1] * 3), make_completion([1] * 5, finish_reason=FinishReason.LENGTH)],
            prompt=[1, 2, 3, 4],
            latency_s=2.0,
            num_cached_prompt_tokens=4,
        ),
        verdicts={"unit_tests": (Verdict.valid(0.0), Verdict.valid(1.0))},
        num_gated={},
        rewards=make_scored([0.0, 1.0]).rewards,
        advantages=make_scored([0.0, 1.0]).advantages,
        has_signal=True,
    )
    second = ScoredGroup(
        group=make_group(
            [make_completion([1] * 8), make_completion([], finish_reason=FinishReason.ABORTED)],
            prompt=[1, 2],
            latency_s=3.5,
            num_cached_prompt_tokens=2,
        ),
        verdicts={"unit_tests": (Verdict.valid(0.5), Verdict.valid(0.5))},
        num_gated={},
        rewards=make_scored([0.5, 0.5]).rewards,
        advantages=make_scored([0.5, 0.5]).advantages,
        has_signal=False,
    )
    metrics = rollout_metrics([first, second])
    assert metrics["rollout/completion_length_mean"] == 4.0
    assert metrics["rollout/completion_length_max"] == 8.0
    assert metrics["rollout/num_tokens"] == 16.0
    assert metrics["rollout/truncated_share"] == 0.25
    assert metrics["rollout/prefix_cache_hit_rate"] == 6 / 12  # 2 x 4 + 2 x 2 prompt tokens were asked for
    assert metrics["rollout/generate_s"] == 3.5
    # Advantages (-a, a, 0, 0), a = 0.5 / (sqrt(0.5) + 1e-4)
    assert metrics["advantage/mean"] == pytest.approx(0.0, abs=1e-7)
    assert metrics["advantage/std"] == pytest.approx(0.5 / (math.sqrt(0.5) + 1e-4) / math.sqrt(2), rel=1e-5)
    highest = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert metrics["advantage/max"] == -metrics["advantage/min"] == pytest.approx(highest, rel=1e-6)
    assert metrics["advantage/zero_share"] == 0.5
    assert all(isinstance(value, float) for value in metrics.values())


def test_advantages_at_their_extremes():
    config = AlgorithmConfig(advantage=AdvantageKind.group_mean)
    groups = [make_scored(rewards, config=config) for rewards in ([0.0, 1.0, 5.0], [4.0, NAN, 6.0], [1.0, 2.0, 3.0])]
    metrics = rollout_metrics(groups)
    assert (metrics["advantage/min"], metrics["advantage/max"]) == (-2.0, 3.0)
    assert metrics["advantage/zero_share"] == pytest.approx(2 / 9)  # the failed one, and the one that is the mean


def test_unscored_groups_are_part_of_those_without_signal():
    groups = [make_scored(r) for r in ([0.0, 1.0, NAN], [2.0, 2.0, NAN], [1.0, NAN, NAN], [None, None, 3.0])]
    metrics = rollout_metrics(groups)
    assert metrics["reward/unscored_share"] == 0.5
    assert metrics["reward/zero_variance_share"] == 0.75


def test_terms_that_scoring_adds_have_rows_of_their_own():
    config = AlgorithmConfig(overlong_share=0.5, kl_in=KLPlacement.reward, kl_coefficient=0.5)
    scored = make_scored(
        [1.0, 0.0, None],
        [make_completion([1] * n) for n in (8, 6, 8)],
        config=config,
        max_new_tokens=8,
        kl_penalties=[0.25, -0.75, 9.0],
    )
    metrics = rollout_metrics([scored])
    assert metrics["reward/overlong/mean"] == -0.75
    assert metrics["reward/kl/mean"] == -0.25
    assert metrics["reward/overlong/absent"] == metrics["reward/kl/absent"] == 1.0
    assert metrics["reward/mean"] == pytest.approx((1 - 1 - 0.125 + 0 - 0.5 + 0.375) / 2)
    assert "reward/overlong/mean" not in rollout_metrics([make_scored([1.0, 0.0])])


def test_rewards_leave_out_failures():
    metrics = rollout_metrics([make_scored([1.0, NAN, 0.0]), make_scored([2.0, 2.0, NAN])])
    assert metrics["reward/mean"] == 1.25
    assert metrics["reward/std"] == pytest.approx(math.sqrt((0.0625 + 1.5625 + 2 * 0.5625) / 4))
    assert metrics["reward/unit_tests/mean"] == 1.25
    assert metrics["reward/unit_tests/failed"] == 2.0
    assert metrics["reward/unit_tests/absent"] == 0.0
    assert metrics["reward/zero_variance_share"] == 0.5
    assert "reward/pass_rate" not in metrics


def test_every_term_is_counted_raw_also_one_of_weight_0():
    weights = {"unit_tests": 2.0, "brevity": 0.0, "tone": 0.5}
    scored = make_scored(
        [1.0, 0.0, 1.0],
        weights=weights,
        others={"brevity": [0.25, NAN, 0.75], "tone": [None, None, 4.0]},
    )
    metrics = rollout_metrics([scored])
    assert metrics["reward/mean"] == pytest.approx((2 + 0 + 4) / 3)
    assert metrics["reward/unit_tests/mean"] == pytest.approx(2 / 3)
    assert metrics["reward/brevity/mean"] == 0.5
    assert metrics["reward/brevity/failed"] == 1.0
    assert metrics["reward/tone/mean"] == 4.0
    assert metrics["reward/tone/absent"] == 2.0


def test_signal_is_looked_for_in_the_terms_since_they_may_cancel():
    weights = {"unit_tests": 1.0, "tone": 1.0}
    cancelling = make_scored([1.0, 0.0], weights=weights, others={"tone": [0.0, 1.0]})
    assert cancelling.rewards.tolist() == [1.0, 1.0]
    assert rollout_metrics([cancelling])["reward/zero_variance_share"] == 0.0


def test_a_term_that_is_only_logged_is_no_signal():
    weights = {"unit_tests": 1.0, "tone": 0.0}
    scored = make_scored([1.0, 1.0], weights=weights, others={"tone": [0.0, 1.0]})
    assert rollout_metrics([scored])["reward/zero_variance_share"] == 1.0


def test_nothing_valid_is_nan_not_0():
    metrics = rollout_metrics([make_scored([NAN, NAN])])
    for name in ("reward/mean", "reward/std", "reward/unit_tests/mean"):
        assert math.isnan(metrics[name])
    assert metrics["reward/zero_variance_share"] == 1.0
    assert metrics["advantage/std"] == 0.0


def test_pass_rate_counts_completions_that_pass_all_of_their_tests():
    verdicts = (
        Verdict.valid(1.0, {"tests_passed": 4, "tests_total": 4}),
        Verdict.valid(0.75, {"tests_passed": 3, "tests_total": 4}),
        Verdict.failed("sandbox died"),
        Verdict.valid(0.0, {"tests_passed": 0, "tests_total": 4}),
    )
    base = make_scored([1.0, 0.75, NAN, 0.0])
    assert rollout_metrics([replace(base, verdicts={"unit_tests": verdicts})])["reward/pass_rate"] == pytest.approx(
        1 / 3
    )


def test_reports_of_ranks_are_merged():
    reports = [
        StepReport(metrics={"learner/loss": 0.5}, num_tokens=100, compute_s=1.0),
        StepReport(metrics={"learner/loss": 0.5}, num_tokens=150, compute_s=1.5),
    ]
    assert merge_reports(reports) == {"learner/loss": 0.5, "learner/num_tokens": 250.0, "learner/compute_s": 1.5}
    assert reports[0].metrics == {"learner/loss": 0.5}
