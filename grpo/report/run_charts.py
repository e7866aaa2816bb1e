"""The charts of a run, from its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grpo.report.charts import Line, line_chart, stacked_chart
from grpo.report.series import TIME_PARTS, column, reward_terms, rolling_mean

_PART_COLOURS = dict(zip(TIME_PARTS, (1, 2, 3, 4, 8), strict=True))

Rows = Sequence[Mapping[str, float]]


def charts_section(rows: Rows) -> str:
    """All charts for which metrics were recorded; each is left out without."""
    steps = [row["step"] for row in rows]
    figures = [
        _rewards(steps, rows),
        _shares(steps, rows),
        _chart("Completion length", "tokens", True, steps, rows, mean="rollout/completion_length_mean",
               longest="rollout/completion_length_max"),
        _chart("KL divergence", "nats per token", True, steps, rows,
               **{"behavior || policy": "learner/kl_behavior_policy", "to the reference": "learner/kl_reference"}),
        _chart("Entropy", "nats per token", True, steps, rows, entropy="learner/entropy"),
        _chart("Clipped tokens", "%", True, steps, rows, low="learner/clip_low_share", high="learner/clip_high_share"),
        _chart("Gradient norm", "", True, steps, rows, norm="learner/grad_norm"),
        _times(steps, rows),
        _chart("Throughput", "tokens/s", True, steps, rows, rollout="rollout/tokens_per_s",
               learner="learner/tokens_per_s"),
    ]  # fmt: skip
    drawn = "".join(figures) or '<p class="soft">No step finished yet.</p>'
    return f'<section><h2>Course of the run</h2><div class="charts">{drawn}</div></section>'


def _chart(title: str, unit: str, zero: bool, steps: Sequence[float], rows: Rows, **names: str) -> str:
    lines = [
        Line(label=label.replace("_", " "), values=column(rows, name), colour=colour)
        for colour, (label, name) in enumerate(names.items(), start=1)
    ]
    return line_chart(title, steps, lines, unit=unit, zero=zero)


def _rewards(steps: Sequence[float], rows: Rows) -> str:
    mean = column(rows, "reward/mean")
    terms = reward_terms(rows)
    lines = [Line(label="each step", values=mean, colour=1, faint=True)]
    # With a single term, its line would lie on the total's.
    for index, term in enumerate(terms if len(terms) > 1 else []):
        values = rolling_mean(column(rows, f"reward/{term}/mean"))
        lines.append(Line(label=term, values=values, colour=2 + index % 7))
    lines.append(Line(label="mean reward", values=rolling_mean(mean), colour=1))
    return line_chart("Reward", steps, lines, unit="mean of 5 steps", wide=True)


def _shares(steps: Sequence[float], rows: Rows) -> str:
    passed = column(rows, "reward/pass_rate")
    lines = [
        Line(label="each step", values=passed, colour=3, faint=True),
        Line(label="pass rate (mean of 5)", values=rolling_mean(passed), colour=3),
        Line(label="groups without signal", values=column(rows, "reward/zero_variance_share"), colour=8),
        Line(label="truncated", values=column(rows, "rollout/truncated_share"), colour=2),
    ]
    return line_chart("Pass rate and lost samples", steps, lines, unit="%", zero=True)


def _times(steps: Sequence[float], rows: Rows) -> str:
    layers = [
        Line(label=part, values=column(rows, f"time/{part}_s"), colour=_PART_COLOURS[part]) for part in TIME_PARTS
    ]
    return stacked_chart("Time of a step", steps, layers, unit="s")
