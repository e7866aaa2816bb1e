"""Running `grpo train` as a user does, in a process of its own, and reading what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
#: One rollout worker and one learner rank of the tiny preset, with a reward that a random model can raise.
LEARNABLE = (
    "experiment=tiny_cpu",
    "rollout.num_workers=1",
    "learner.num_ranks=1",
    "~reward.weights.unit_tests",
    "reward.weights.pattern=1",
    "reward.terms.pattern.settings.regex='[a-m]'",
)


@dataclass(frozen=True, slots=True)
class Run:
    """A finished `grpo train`."""

    code: int
    output: str
    directory: Path

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Rows of metrics.jsonl."""
        return [json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()]


def start(directory: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start a run in a process group of its own, as a shell does."""
    command = [sys.executable, "-m", "launch.cli", "train", *overrides, f"output_dir={directory}"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # the path is set in conftest.py
    return subprocess.Popen(
        command,
        cwd=directory.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def train(directory: Path, *overrides: str, timeout_s: float = 240) -> Run:
    """Run to the end."""
    process = start(directory, *overrides)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"the run took over {timeout_s} s:\n{output}") from None
    return Run(process.returncode, output, directory)


@contextmanager
def side_by_side(base: Path, runs: Mapping[str, Sequence[str]]) -> Iterator[Mapping[str, Future[Run]]]:
    """Start runs by name, two at a time: a run mostly imports, on one core. Those nobody waits for are dropped."""
    with ThreadPoolExecutor(2) as pool:
        futures = {}
        for name, overrides in runs.items():
            (base / name).mkdir()
            futures[name] = pool.submit(train, base / name / "run", *overrides)
        try:
            yield futures
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def wait_for_step(process: subprocess.Popen[str], directory: Path, step: int, timeout_s: float = 180) -> None:
    """Return once `step` is in the metrics."""
    deadline = time.monotonic() + timeout_s
    metrics = directory / "metrics.jsonl"
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count("\n") >= step:
            return
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.1)
    raise AssertionError(f"step {step} did not come in {timeout_s} s")


def leftovers(mark: str) -> list[str]:
    """Processes that have `mark` in their environment or command line, this one and its parents excepted."""
    own = {psutil.Process().pid, *(p.pid for p in psutil.Process().parents())}
    found: list[str] = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            text = " ".join(process.info["cmdline"] or []) + " ".join(process.environ().values())
            if process.info["pid"] not in own and mark in text and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.info['pid']} {' '.join(process.info['cmdline'] or [])[:120]}")
        except psutil.Error:
            continue
    return found


def unclocked(row: dict[str, float]) -> dict[str, float]:
    """A row of metrics without what a clock measured."""
    clocks = (
        "time/",
        "sync/",
        "rollout/tokens_per_s",
        "rollout/generate_s",
        "learner/tokens_per_s",
        "learner/compute_s",
    )
    return {name: value for name, value in row.items() if not name.startswith(clocks)}
