"""A worker that dies at start-up is reported with its own traceback."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from tests.integration.runs import LEARNABLE, leftovers, start, train, wait_for_step

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


@pytest.mark.chaos
@pytest.mark.slow
def test_a_killed_rollout_worker_ends_the_run_with_a_checkpoint_and_a_reason(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    process = start(directory, *LEARNABLE, "steps=1000")
    wait_for_step(process, directory, 2)
    _kill(process.pid, "ray::RolloutWorker")
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1, output
    # The kill may fall into a weight transfer; then it is the sender that notices first.
    assert "The run failed" in output and re.search("rollout.0|weight sync", output), output
    assert list((directory / "checkpoints").glob("step_*/files.json")), output
    assert leftovers(str(tmp_path)) == []


def _kill(driver: int, name: str) -> None:
    (process,) = [p for p in psutil.Process(driver).children(recursive=True) if p.cmdline()[0].startswith(name)]
    process.kill()
