# tensorboard ships no types.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from grpo.errors import DataError
from grpo.report.metrics_log import MetricsLog, read_metrics


def _scalars(directory: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(directory))  # pyright: ignore[reportUnknownVariableType]
    events.Reload()  # pyright: ignore[reportUnknownMemberType]
    found = events.Scalars(tag)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return [(event.step, event.value) for event in found]  # pyright: ignore


def test_lines_and_tensorboard_agree(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard")
    log.append(1, 0, {"reward/mean": 0.25, "learner/loss": math.nan})
    log.append(2, 1, {"reward/mean": 0.5, "learner/loss": math.inf})
    log.close()
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 1, "policy_version": 0, "reward/mean": 0.25, "learner/loss": None}
    assert lines[1]["learner/loss"] is None
    assert _scalars(tmp_path / "tensorboard", "reward/mean") == [(1, 0.25), (2, 0.5)]
    assert [row["reward/mean"] for row in log.history] == [0.25, 0.5]


def test_null_reads_as_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 4, "policy_version": 3, "learner/loss": null}\n')
    (row,) = read_metrics(path)
    assert row["step"] == 4
    assert math.isnan(row["learner/loss"])


@pytest.mark.parametrize("torn", ['{"step": 2, "rew', "{", "17", '{"reward/mean": 1.0}\n'])
def test_torn_last_line_is_left_out(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + torn)
    assert read_metrics(path) == [{"step": 1}]


def test_damage_before_the_last_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        read_metrics(path)


def test_appending_after_a_torn_line_does_not_glue_to_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1.0}\n{"step": 2, "a"')
    log = MetricsLog(path, tmp_path / "tensorboard")
    log.append(2, 2, {"a": 2.0})
    log.close()
    assert [row["a"] for row in read_metrics(path)] == [1.0, 2.0]
    assert [row["a"] for row in log.history] == [1.0, 2.0]


def test_complete_last_line_without_its_line_end_is_dropped_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    log = MetricsLog(path, tmp_path / "tensorboard")
    log.append(2, 2, {"a": 2.0})
    log.close()
    assert [row["step"] for row in log.history] == [1, 2]
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


def test_resumed_steps_replace_those_in_tensorboard(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsLog(path, tmp_path / "tensorboard")
    for step in (1, 2, 3):
        first.append(step, step, {"a": float(step)})
    first.close()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    second = MetricsLog(path, tmp_path / "tensorboard")
    second.append(2, 2, {"a": 20.0})
    second.close()
    assert _scalars(tmp_path / "tensorboard", "a") == [(1, 1.0), (2, 20.0)]
