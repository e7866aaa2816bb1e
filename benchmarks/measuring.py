"""Time and peak memory of steps that are to be compared: all in one run, on a CPU or a GPU."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

Step = Callable[[], object]


def interleaved(
    steps: Mapping[str, Step], *, rounds: int, device: torch.device, warm_up: int = 1, reset: Step | None = None
) -> dict[str, list[float]]:
    """Seconds of every step in every round.

    A round runs each step once, and every other round in the opposite order: what slows the machine down for a while
    falls on all of them. `reset` runs before every step and isn't counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-warm_up, rounds):
        names = list(steps)
        for name in names if number % 2 == 0 else reversed(names):
            if reset is not None:
                reset()
            elapsed = _seconds(steps[name], device)
            if number >= 0:
                seconds[name].append(elapsed)
    return seconds


def _seconds(step: Step, device: torch.device) -> float:
    if device.type == "cuda":
        started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        started.record()
        step()
        ended.record()
        torch.cuda.synchronize(device)
        return started.elapsed_time(ended) / 1e3
    started_at = time.perf_counter()
    step()
    return time.perf_counter() - started_at


def summary(seconds: Mapping[str, list[float]], yardstick: str) -> dict[str, dict[str, Any]]:
    """Medians, and how they compare with that of the yardstick.

    Returns:
        For each step `seconds` (all), `median_s`, `spread` (interquartile range over median), `ratio` (of the medians)
        and `paired_ratio` (median over the rounds of the ratio in that round, which a drifting clock moves less).
    """
    base = seconds[yardstick]
    found: dict[str, dict[str, Any]] = {}
    for name, values in seconds.items():
        low, middle, high = quantiles(values, n=4, method="inclusive")
        found[name] = {
            "median_s": middle,
            "spread": (high - low) / middle,
            "ratio": middle / median(base),
            "paired_ratio": median(value / other for value, other in zip(values, base, strict=True)),
            "seconds": values,
        }
    return found


class PeakMemory:
    """Bytes that the body of a `with` takes at its peak, above what was there before it.

    On CUDA those of torch's allocator; on a CPU the resident set of the whole process. A CPU step has to have run once
    at a small size before, or the libraries it loads are counted too.

    Attributes:
        extra_bytes: after the body, that peak; None where this kernel doesn't reset its record of it.
        total_bytes: the same without subtracting what was there before.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = None
        self.extra_bytes: int | None = None
        self.total_bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            return self
        with contextlib.suppress(OSError, AttributeError):  # no glibc: freed memory may count as there before
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status_bytes("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        on_cuda = self._device.type == "cuda"
        self.total_bytes = torch.cuda.max_memory_allocated(self._device) if on_cuda else _status_bytes("VmHWM")
        self.extra_bytes = self.total_bytes - self._before


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def in_fresh_process(script: str, arguments: Sequence[object]) -> dict[str, Any]:
    """What a benchmark prints as the last line of its output, in JSON, when run again with these arguments.

    GPU memory that this process no longer uses is given back before.

    Raises:
        RuntimeError: it failed; the message ends with what it wrote.
    """
    gc.collect()
    torch.cuda.empty_cache()
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
