"""What the PNG pictures share: their looks, and how they are written."""

# matplotlib's types leave most keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from grpo.report.files import replacing

BLUE, GREEN, GREY, ORANGE = "#2563c9", "#178a5a", "#8a8f98", "#c2571a"


def new_figure() -> Figure:
    """An empty picture."""
    # A Figure of its own, not pyplot: no global state, no window system, safe in any thread.
    figure = Figure(figsize=(9, 6.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def title(axes: Axes, text: str) -> None:
    """Head a picture by its topmost axes."""
    axes.set_title(text, loc="left", fontsize=13, fontweight="bold", pad=12)


def style(axes: Axes, label: str) -> None:
    """Label and looks of axes."""
    axes.set_ylabel(label)
    axes.grid(axis="y", color="#e3e5e8", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b5b9c0")
    axes.tick_params(color="#b5b9c0", labelsize=9)


def save(figure: Figure, path: Path) -> None:
    """Write or atomically rewrite `path` as a PNG."""
    with replacing(path) as aside:
        figure.savefig(aside, format="png")
