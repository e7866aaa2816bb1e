from __future__ import annotations

import io
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from grpo.report.display import Display, LiveDisplay, PlainDisplay, RunPlan, make_display
from grpo.report.panel import draw, sparkline, split_cells
from grpo.report.panel_state import PanelState
from grpo.report.plan import Progress
from grpo.report.run_log import RunLog, read_warnings

if TYPE_CHECKING:
    from .conftest import MetricsMaker

PLAN = RunPlan(experiment="python_tasks", model="some-model", output_dir="/tmp/" + "long/" * 30 + "run-7", num_steps=40)


def _console(width: int, height: int = 24) -> Console:
    return Console(record=True, width=width, height=height, force_terminal=True, file=io.StringIO())


def _text(state: PanelState, width: int, height: int = 24) -> str:
    console = _console(width, height)
    console.print(draw(state, width=width, height=height, now=time.monotonic()))
    return console.export_text()


@pytest.mark.parametrize("width", [64, 80, 120, 200])
def test_panel_shows_the_numbers(step_metrics: MetricsMaker, width: int) -> None:
    state = PanelState(plan=PLAN)
    for step in range(1, 13):
        state.finish_step(step_metrics(step))
    state.set_phase("sampling", 3, 8)
    state.warnings.add("KL is 0.2")
    state.warnings.add("KL is 0.3")
    shown = _text(state, width)
    metrics = step_metrics(12)
    for expected in (
        "python_tasks",
        "some-model",
        "run-7",
        "step 12/40",
        "sampling 3/8 groups",
        f"{metrics['reward/mean']:.3f}",
        f"{metrics['reward/unit_tests/mean']:.3f}",
        f"{metrics['reward/pass_rate']:.0%}",
        f"{metrics['learner/kl_behavior_policy']:.4f}",
        f"{metrics['rollout/tokens_per_s']:,.0f} tokens/s",
        "1.0e-06",
        "256 max",
        "rollout 6",
        "KL is 0.3 (x2)",
    ):
        assert expected in shown
    assert all(len(line) <= width for line in shown.splitlines())


@pytest.mark.parametrize("num_terms", [1, 4, 9])
def test_panel_fits_80_by_24(step_metrics: MetricsMaker, num_terms: int) -> None:
    state = PanelState(plan=PLAN)
    terms = {f"reward/a_reward_term_with_a_long_name_{index}/mean": 0.5 for index in range(num_terms)}
    state.finish_step(step_metrics(1) | terms)
    for kind in "abc":
        state.warnings.add(f"{kind} " + "a long warning " * 30)
    assert len(_text(state, 80).splitlines()) <= 24


def test_panel_before_the_first_step_and_without_metrics() -> None:
    state = PanelState(plan=PLAN)
    assert "step 0/40" in _text(state, 80)
    state.finish_step({})
    assert "step 1/40" in _text(state, 80)
    state.finish_step({"reward/mean": float("nan"), "time/step_s": float("nan"), "learner/entropy": float("inf")})
    assert "inf" in _text(state, 80)


@pytest.mark.parametrize("width", [80, 120])
def test_live_display_goes_through_a_run(tmp_path: Path, step_metrics: MetricsMaker, width: int) -> None:
    console = _console(width)
    display: Display = LiveDisplay(console, RunLog(tmp_path / "run.log"))
    display.warn("before the start")
    display.start(PLAN)
    display.phase("starting engines", 0, 2)
    display.note("noted [bold]literally[/bold]\x1b[31m")
    display.step(step_metrics(1))
    display.warn("watch [this]\nand that")
    display.close()
    display.close()
    shown = console.export_text()
    assert "noted [bold]literally[/bold]" in shown
    assert "step 1/40" in shown
    assert "! watch [this] and that" in shown
    log = (tmp_path / "run.log").read_text()
    assert "NOTE noted [bold]literally[/bold]\n" in log
    assert "STEP step 1/40 | reward 0.4" in log
    assert "\x1b" not in log
    assert read_warnings(tmp_path / "run.log") == [("watch [this]", 1), ("before the start", 1)]


def test_live_display_gives_the_cursor_back_in_an_exception() -> None:
    file = io.StringIO()
    display = LiveDisplay(Console(width=80, height=24, force_terminal=True, file=file), RunLog(None))

    def run() -> None:
        with closing(display):
            display.start(PLAN)
            display.phase("sampling", 1, 8)
            raise RuntimeError("engine died")

    with pytest.raises(RuntimeError, match="engine died"):
        run()
    written = file.getvalue()
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1
    assert "ended in: sampling" in written


def test_plain_display_writes_one_line_a_step(tmp_path: Path, step_metrics: MetricsMaker) -> None:
    lines: list[str] = []
    display = PlainDisplay(RunLog(tmp_path / "run.log"), lines.append)
    display.start(RunPlan(experiment="e", model="m", output_dir="o", num_steps=4, first_step=3))
    display.phase("sampling", 1, 8)
    display.step(step_metrics(12))
    display.step({})
    display.warn("careful")
    display.note("by the way")
    display.close()
    assert lines[0] == "e: m, 4 steps, writing to o"
    assert lines[1] == (
        "step 3/4 | reward 0.716 (unit_tests 0.616, brevity 0.448) | pass 52% | length 114 | truncated 14% | kl 0.0015 "
        "| entropy 0.780 | grad 1.000 | lr 1.0e-06 | 10.6 s (rollout 61% reward 2% learner 31% sync 4% idle 3%) "
        "| left 0:11"
    )
    assert lines[2].startswith("step 4/4 | 0.")
    assert lines[3:] == ["warning: careful", "by the way"]
    log = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(" ")[1] for line in log] == ["NOTE", "STEP", "STEP", "WARNING", "NOTE"]


def test_plain_display_needs_no_start() -> None:
    lines: list[str] = []
    PlainDisplay(RunLog(None), lines.append).step({"step": 7.0, "reward/mean": 0.5})
    assert lines[0].startswith("step 7/7 | reward 0.500 |")


def test_no_terminal_or_quiet_makes_a_plain_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    display = make_display(False, tmp_path / "run.log")
    assert isinstance(display, PlainDisplay)
    display.close()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setattr("rich.console.Console.encoding", "utf-8")
    assert isinstance(make_display(False, None), LiveDisplay)
    assert isinstance(make_display(True, None), PlainDisplay)
    monkeypatch.setenv("COLUMNS", "40")
    assert isinstance(make_display(False, None), PlainDisplay)


def test_remaining_time_counts_down_from_the_mean_step() -> None:
    progress = Progress(plan=RunPlan(experiment="e", model="m", output_dir="o", num_steps=10, first_step=5))
    assert progress.remaining_s() != progress.remaining_s()  # NaN: nothing to go by
    progress.finish_step({"time/step_s": 4.0}, 99.0)
    progress.finish_step({}, 6.0)
    assert progress.step == 6
    assert progress.remaining_s() == 20.0
    assert progress.remaining_s(3.0) == 17.0
    assert progress.remaining_s(30.0) == 0.0


def test_cells_fill_the_width() -> None:
    assert split_cells({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 10) == {"a": 4, "b": 3, "c": 3}


def test_sparkline_of_hard_values() -> None:
    assert sparkline([], 80).plain == ""
    assert "▁█ ▁" in sparkline([0.0, 1.0, float("nan"), 0.0], 80).plain
    assert "▁▁" in sparkline([0.5, 0.5], 80).plain
    assert len(sparkline([0.1] * 1000, 80).plain) <= 80
