"""The reward curve as a PNG."""

# matplotlib's types leave most keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from grpo.report.figure import BLUE, GREEN, GREY, ORANGE, new_figure, save, style
from grpo.report.figure import title as head
from grpo.report.series import column, is_recorded, reward_terms, rolling_mean

_TERM_COLOURS = (ORANGE, "#8b4fc0", "#b8860b", "#c23a6b", "#2a8fa3")


def write_reward_curve(path: Path, metrics: Sequence[Mapping[str, float]], *, title: str = "Reward") -> None:
    """Draw mean reward, reward terms and pass rate over completion length, one point a step.

    Args:
        path: the PNG; rewritten atomically.
        metrics: as from `read_metrics`; may be empty.
        title: above the picture.
    """
    figure = new_figure()
    rewards, lengths = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    steps = [row["step"] for row in metrics]
    _draw_rewards(rewards, steps, metrics)
    _draw_lengths(lengths, steps, metrics)
    head(rewards, title)
    lengths.set_xlabel("step")
    lengths.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    save(figure, path)


def _draw_rewards(axes: Axes, steps: Sequence[float], metrics: Sequence[Mapping[str, float]]) -> None:
    style(axes, "reward")
    mean = column(metrics, "reward/mean")
    terms = reward_terms(metrics)
    # With a single term, its line would lie on the total's.
    for term, colour in zip(terms if len(terms) > 1 else [], _TERM_COLOURS * len(terms), strict=False):
        axes.plot(steps, rolling_mean(column(metrics, f"reward/{term}/mean")), color=colour, lw=1.3, label=term)
    passed = column(metrics, "reward/pass_rate")
    if is_recorded(passed):
        axes.plot(steps, rolling_mean(passed), color=GREEN, lw=1.5, ls=(0, (4, 2)), label="pass rate")
    if is_recorded(mean):
        axes.plot(steps, mean, color=BLUE, lw=0.8, marker="o", ms=2.5, alpha=0.4, label="mean reward of each step")
        axes.plot(steps, rolling_mean(mean), color=BLUE, lw=2.4, label="mean reward")
    if axes.get_lines():
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1],
            labels[::-1],
            title="lines: mean of 5 steps",
            title_fontsize=8,
            alignment="left",
            fontsize=8.5,
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
    else:
        axes.text(0.5, 0.5, "no step finished yet", transform=axes.transAxes, ha="center", color=GREY)


def _draw_lengths(axes: Axes, steps: Sequence[float], metrics: Sequence[Mapping[str, float]]) -> None:
    style(axes, "completion length\n(tokens)")
    mean, longest = (column(metrics, f"rollout/completion_length_{kind}") for kind in ("mean", "max"))
    if is_recorded(longest):
        axes.plot(steps, longest, color=GREY, lw=1.0, ls=(0, (1, 1.5)), label="longest")
    if is_recorded(mean):
        axes.plot(steps, mean, color=BLUE, lw=1.6, label="mean")
    if axes.get_lines():
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
