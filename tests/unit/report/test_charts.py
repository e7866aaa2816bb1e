from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest

from grpo.report.charts import Line, line_chart, nice_ticks, stacked_chart


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0.21, 0.83, [0.2, 0.4, 0.6, 0.8, 1.0]), (-3, 9, [-5, 0, 5, 10])],
)
def test_ticks_are_round_and_enclose(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_line_breaks_at_nan() -> None:
    chart = line_chart("t", [1, 2, 3, 4, 5], [Line(label="a", values=[1, 2, math.nan, 4, 5], colour=1)])
    assert chart.count("<polyline") == 2


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [5.0, 5.0, 5.0], [1e-12, 2e-12], [math.nan, 3.0], [-1.0, 1e9]])
@pytest.mark.parametrize("zero", [True, False])
def test_hard_values_make_well_formed_pictures(values: list[float], zero: bool) -> None:
    steps = list(range(1, len(values) + 1))
    chart = line_chart("a < b & c", steps, [Line(label="<i>", values=values, colour=1)], unit="%", zero=zero)
    ET.fromstring(chart)
    assert "nan" not in chart
    layers = stacked_chart("t", steps, [Line(label="l", values=values, colour=1)])
    if layers:
        ET.fromstring(layers)


def test_nothing_to_show_makes_no_chart() -> None:
    assert line_chart("t", [1], [Line(label="a", values=[math.nan], colour=1)]) == ""
    assert stacked_chart("t", [], []) == ""


def test_long_runs_are_thinned_to_means() -> None:
    values = [float(step % 2) for step in range(6000)]
    chart = line_chart("t", list(range(1, 6001)), [Line(label="a", values=values, colour=1)])
    assert chart.count("<title>") == 300
    assert "step 6000\na 0.500" in chart
