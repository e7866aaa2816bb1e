"""A worker that dies at start-up is reported with its own traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.runs import LEARNABLE, leftovers, train

pytestmark = pytest.mark.integration


def test_an_engine_that_cannot_start_shows_why(tmp_path: Path) -> None:
    run = train(tmp_path / "run", *LEARNABLE, "rollout.engine_args={max_num_batched_tokens: 1}")
    assert run.code == 1
    assert "rollout worker 0" in run.output and "max_num_batched_tokens" in run.output
    assert "Traceback" in run.output and "rollout_0.log" in run.output
    assert leftovers(str(tmp_path)) == []


def test_an_engine_process_that_dies_shows_the_traceback_of_that_process(tmp_path: Path) -> None:
    extension = "rollout.engine_args={worker_extension_cls: tests.integration.corruption.NoSuchReceiver}"
    run = train(tmp_path / "run", *LEARNABLE, extension)
    assert run.code == 1
    assert "NoSuchReceiver" in run.output and "Traceback" in run.output
    assert leftovers(str(tmp_path)) == []
