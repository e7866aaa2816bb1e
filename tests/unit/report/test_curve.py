from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from grpo.report.curve import write_reward_curve

if TYPE_CHECKING:
    from .conftest import MetricsMaker


@pytest.mark.parametrize("num_steps", [0, 1, 25])
def test_png_is_written_whole(tmp_path: Path, step_metrics: MetricsMaker, num_steps: int) -> None:
    path = tmp_path / "reward_curve.png"
    write_reward_curve(path, [{"step": step, **step_metrics(step)} for step in range(1, num_steps + 1)], title="a run")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["reward_curve.png"]


def test_nan_and_missing_metrics_are_survived(tmp_path: Path) -> None:
    write_reward_curve(tmp_path / "a.png", [{"step": 1, "reward/mean": math.nan}, {"step": 2}])
    assert (tmp_path / "a.png").stat().st_size > 1000
