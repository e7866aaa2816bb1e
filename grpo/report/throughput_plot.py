"""Latencies and tokens per second of several arms as a PNG."""

# matplotlib's types leave most keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from grpo.report.figure import BLUE, GREY, new_figure, save, style, title

_COLOURS = (BLUE, GREY)


def write_throughput_plot(
    path: Path,
    latencies_s: Mapping[str, Sequence[float]],
    over_time: Mapping[str, Sequence[Sequence[float]]],
    *,
    heading: str,
) -> None:
    """Draw how many completions took at most how long, above the tokens per second in the course of a round.

    Args:
        path: the PNG; rewritten atomically.
        latencies_s: seconds of each completion, by arm.
        over_time: tokens/s of each round in equal parts of its duration, by arm; drawn is the mean over rounds.
        heading: above the picture.
    """
    figure = new_figure()
    above, below = figure.subplots(2, 1)
    style(above, "completions done")
    style(below, "tokens/s")
    for (name, values), colour in zip(latencies_s.items(), _COLOURS, strict=False):
        above.ecdf(values, color=colour, lw=1.8, label=name)
    for (name, rounds), colour in zip(over_time.items(), _COLOURS, strict=False):
        means = [fmean(part) for part in zip(*rounds, strict=True)]
        below.stairs(means, [i / len(means) for i in range(len(means) + 1)], color=colour, lw=1.6, label=name)
    above.set_xlabel("seconds from admission to the last token")
    below.set_xlabel("share of the round")
    below.set_ylim(bottom=0)
    above.legend(fontsize=8.5, frameon=False)
    title(above, heading)
    save(figure, path)
