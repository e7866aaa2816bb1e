"""Ctrl-C and SIGTERM: a checkpoint within 20 seconds and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.runs import LEARNABLE, leftovers, start, train, wait_for_step

pytestmark = pytest.mark.integration


def _stop(process: subprocess.Popen[str], directory: Path, signal_number: int, whole_group: bool) -> str:
    wait_for_step(process, directory, 2)
    started = time.monotonic()
    (os.killpg if whole_group else os.kill)(process.pid, signal_number)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - started < 20
    assert process.returncode == 130, output
    return output


def test_ctrl_c_checkpoints_and_the_run_goes_on_from_it(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    process = start(directory, *LEARNABLE, "steps=1000")
    output = _stop(process, directory, signal.SIGINT, whole_group=True)  # a terminal signals the whole group
    assert leftovers(str(tmp_path)) == []
    (checkpoint,) = (directory / "checkpoints").iterdir()
    assert (checkpoint / "files.json").exists(), output
    step = int(checkpoint.name.removeprefix("step_"))
    resumed = train(directory, *LEARNABLE, f"resume={directory}", f"steps={step + 1}")
    assert resumed.code == 0, resumed.output
    assert [row["step"] for row in resumed.metrics] == list(range(1, step + 2))


def test_sigterm_to_the_driver(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    process = start(directory, *LEARNABLE, "steps=1000")
    _stop(process, directory, signal.SIGTERM, whole_group=False)
    assert leftovers(str(tmp_path)) == []
    assert list((directory / "checkpoints").glob("step_*/files.json"))
