"""Small line and area charts as inline SVG, coloured by the page's style sheet so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from grpo.report.series import format_number, mean

_WIDTH, _WIDE, _HEIGHT = 560, 1160, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 10, 34
#: More points than this are averaged into bins: a line has no room for them.
_MAX_POINTS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series of a chart.

    Attributes:
        label: in the legend.
        values: one a step; NaN leaves a gap.
        colour: which of the style sheet's eight series colours, 1 to 8.
        faint: drawn thin and pale, without a legend entry, e.g. raw values under their mean.
    """

    label: str
    values: Sequence[float]
    colour: int
    faint: bool = False


def line_chart(
    title: str, steps: Sequence[float], lines: Sequence[Line], *, unit: str = "", zero: bool = False, wide: bool = False
) -> str:
    """Lines over steps as an HTML figure; empty where no line holds a finite number.

    Args:
        unit: after the title; "%" shows shares as per cent.
        zero: have the y axis include 0.
        wide: twice as wide, for the chart that matters most.
    """
    lines = [line for line in lines if any(map(math.isfinite, line.values))]
    if not lines:
        return ""
    steps, columns = _thin(steps, [line.values for line in lines])
    frame = _Frame.around(
        steps, [value for values in columns for value in values], zero=zero, percent=unit == "%", wide=wide
    )
    marks = [_polyline(frame, values, line) for line, values in zip(lines, columns, strict=True)]
    named = [(line, values) for line, values in zip(lines, columns, strict=True) if not line.faint]
    return _figure(title, unit, frame, marks, [(line.label, line.colour, values) for line, values in named])


def stacked_chart(title: str, steps: Sequence[float], layers: Sequence[Line], *, unit: str = "") -> str:
    """Layers piled on each other over steps as an HTML figure, the first one at the bottom; NaN counts as 0."""
    layers = [layer for layer in layers if any(value > 0 for value in layer.values)]
    if not layers:
        return ""
    steps, columns = _thin(steps, [[value if math.isfinite(value) else 0.0 for value in y.values] for y in layers])
    base = [0.0] * len(steps)
    edges = [base]
    for values in columns:
        base = [low + value for low, value in zip(base, values, strict=True)]
        edges.append(base)
    frame = _Frame.around(steps, base, zero=True, percent=False)
    marks = [
        f'<path class="area c{layer.colour}" d="{_band(frame, edges[index], edges[index + 1])}"/>'
        for index, layer in enumerate(layers)
    ]
    keys = [(layer.label, layer.colour, values) for layer, values in zip(layers, columns, strict=True)]
    return _figure(title, unit, frame, marks, keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """Where values lie in the picture."""

    steps: Sequence[float]
    ticks: Sequence[float]
    percent: bool
    width: int

    @classmethod
    def around(
        cls, steps: Sequence[float], values: Sequence[float], *, zero: bool, percent: bool, wide: bool = False
    ) -> _Frame:
        finite = [value for value in values if math.isfinite(value)]
        low, high = min(finite), max(finite)
        low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
        if high - low <= 1e-9 * max(abs(high), abs(low)):
            margin = abs(high) * 0.1 or 1.0
            low, high = (low - (0.0 if zero and low == 0 else margin), high + margin)
        return cls(steps=steps, ticks=nice_ticks(low, high), percent=percent, width=_WIDE if wide else _WIDTH)

    @property
    def right(self) -> int:
        return self.width - _RIGHT

    def x(self, index: int) -> float:
        first, last = self.steps[0], self.steps[-1]
        share = (self.steps[index] - first) / (last - first) if last > first else 0.5
        return _LEFT + share * (self.right - _LEFT)

    def y(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def point(self, index: int, value: float) -> str:
        return f"{self.x(index):.1f},{self.y(value):.1f}"

    def shown(self, value: float) -> str:
        if self.percent and math.isfinite(value):
            return f"{value * 100:.3g}%"
        return format_number(value)


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers from at or below `low` to at or above `high`; needs low < high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _thin(steps: Sequence[float], columns: Sequence[Sequence[float]]) -> tuple[list[float], list[list[float]]]:
    size = math.ceil(len(steps) / _MAX_POINTS)
    starts = range(0, len(steps), max(size, 1))
    # A bin stands at its last step, so that the axis ends at the run's last.
    thinned = [steps[min(start + size, len(steps)) - 1] for start in starts]
    return thinned, [[mean(values[start : start + size]) for start in starts] for values in columns]


def _polyline(frame: _Frame, values: Sequence[float], line: Line) -> str:
    runs: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if math.isfinite(value):
            runs[-1].append(frame.point(index, value))
        elif runs[-1]:
            runs.append([])
    kind = f"line c{line.colour}" + (" faint" if line.faint else "")
    drawn = "".join(f'<polyline class="{kind}" points="{" ".join(run)}"/>' for run in runs if len(run) > 1)
    # A line of one point has no length to see.
    dots = (run[0].split(",") for run in runs if len(run) == 1)
    return drawn + "".join(f'<circle class="dot c{line.colour}" cx="{x}" cy="{y}" r="3"/>' for x, y in dots)


def _band(frame: _Frame, lower: Sequence[float], upper: Sequence[float]) -> str:
    there = [frame.point(index, value) for index, value in enumerate(upper)]
    back = [frame.point(index, value) for index, value in enumerate(lower)]
    if len(there) == 1:  # one step fills the width
        left, right = _LEFT, frame.right
        low, high = frame.y(lower[0]), frame.y(upper[0])
        return f"M{left},{low:.1f}L{left},{high:.1f}L{right},{high:.1f}L{right},{low:.1f}Z"
    return "M" + "L".join(there + back[::-1]) + "Z"


def _figure(
    title: str, unit: str, frame: _Frame, marks: Sequence[str], keys: Sequence[tuple[str, int, Sequence[float]]]
) -> str:
    legend = "".join(f'<span class="key"><i class="c{colour}"></i>{escape(label)}</span>' for label, colour, _ in keys)
    unit_text = f' <span class="unit">{escape(unit)}</span>' if unit and unit != "%" else ""
    wide = ' class="wide"' if frame.width == _WIDE else ""
    return (
        f'<figure{wide}><figcaption><b>{escape(title)}</b>{unit_text}<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {frame.width} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{_axes(frame)}{''.join(marks)}{_hover(frame, keys)}</svg></figure>"
    )


def _axes(frame: _Frame) -> str:
    drawn: list[str] = []
    for tick in frame.ticks:
        y = frame.y(tick)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{frame.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f"{tick * 100:.4g}%" if frame.percent else _axis_number(tick)
        drawn.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for index in _label_positions(frame.steps):
        drawn.append(
            f'<text x="{frame.x(index):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{frame.steps[index]:.0f}</text>"
        )
    drawn.append(f'<text x="{(_LEFT + frame.right) / 2}" y="{_HEIGHT - 3}" text-anchor="middle">step</text>')
    return "".join(drawn)


def _axis_number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def _label_positions(steps: Sequence[float]) -> list[int]:
    if len(steps) <= 6:
        return list(range(len(steps)))
    return sorted({round(part * (len(steps) - 1) / 5) for part in range(6)})


def _hover(frame: _Frame, keys: Sequence[tuple[str, int, Sequence[float]]]) -> str:
    """A strip for each step with its values as a tooltip: the page runs no script."""
    width = (frame.right - _LEFT) / max(len(frame.steps) - 1, 1)
    strips: list[str] = []
    for index, step in enumerate(frame.steps):
        lines = [f"step {step:.0f}", *(f"{label} {frame.shown(values[index])}" for label, _, values in keys)]
        strips.append(
            f'<rect class="hit" x="{frame.x(index) - width / 2:.1f}" y="{_TOP}" width="{width:.1f}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}"><title>{escape(chr(10).join(lines))}</title></rect>'
        )
    return "".join(strips)
