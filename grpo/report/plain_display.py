"""One line a step, for logs and terminals that can't be redrawn."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

from grpo.report.plan import Progress, RunPlan
from grpo.report.run_log import Level, RunLog, printable
from grpo.report.series import format_duration, format_number, reward_terms, time_shares


class PlainDisplay:
    """Writes one line for each step, warning and note.

    Args:
        run_log: gets every line too.
        write: takes one line; null prints it.
    """

    def __init__(self, run_log: RunLog, write: Callable[[str], None] | None = None) -> None:
        self._run_log = run_log
        self._write = _print if write is None else write
        self._progress: Progress | None = None
        self._last_step_at = time.monotonic()

    def start(self, plan: RunPlan) -> None:
        """Say what is about to run."""
        self._progress = Progress(plan=plan)
        self._last_step_at = time.monotonic()
        self._say(Level.NOTE, f"{plan.experiment}: {plan.model}, {plan.num_steps} steps, writing to {plan.output_dir}")

    def phase(self, name: str, done: int, total: int) -> None:
        """Not shown: a log would fill with it."""

    def step(self, metrics: Mapping[str, float]) -> None:
        """Write the step's line."""
        now = time.monotonic()
        if self._progress is None:
            self._progress = Progress(plan=RunPlan(experiment="run", model="", output_dir="", num_steps=0))
        self._progress.finish_step(metrics, now - self._last_step_at)
        self._last_step_at = now
        self._say(Level.STEP, step_line(self._progress, metrics))

    def warn(self, message: str) -> None:
        """Write a warning line."""
        self._say(Level.WARNING, message)

    def note(self, message: str) -> None:
        """Write a line."""
        self._say(Level.NOTE, message)

    def close(self) -> None:
        """Close run.log. May be called twice."""
        self._run_log.close()

    def _say(self, level: Level, message: str) -> None:
        self._run_log.write(level, message)
        self._write(printable(f"warning: {message}" if level is Level.WARNING else message))


def step_line(progress: Progress, metrics: Mapping[str, float]) -> str:
    """A step in one line; metrics that are missing are left out."""
    head = f"step {progress.step}/{max(progress.plan.num_steps, progress.step)}"
    parts = [head, _rewards(metrics)]
    for label, name, form in _SHOWN:
        if name in metrics:
            parts.append(f"{label} {form(metrics[name])}")
    shares = " ".join(f"{part} {share:.0%}" for part, share in time_shares(metrics).items())
    parts.append(f"{progress.step_times_s[-1]:.1f} s" + (f" ({shares})" if shares else ""))
    parts.append(f"left {format_duration(progress.remaining_s())}")
    return " | ".join(part for part in parts if part)


def _percent(value: float) -> str:
    return f"{value:.0%}"


_SHOWN: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("pass", "reward/pass_rate", _percent),
    ("length", "rollout/completion_length_mean", format_number),
    ("truncated", "rollout/truncated_share", _percent),
    ("kl", "learner/kl_behavior_policy", format_number),
    ("entropy", "learner/entropy", format_number),
    ("grad", "learner/grad_norm", format_number),
    ("lr", "learner/lr", format_number),
)


def _rewards(metrics: Mapping[str, float]) -> str:
    if "reward/mean" not in metrics:
        return ""
    terms = ", ".join(f"{term} {format_number(metrics[f'reward/{term}/mean'])}" for term in reward_terms([metrics]))
    return f"reward {format_number(metrics['reward/mean'])}" + (f" ({terms})" if terms else "")


def _print(line: str) -> None:
    # A log may be ASCII only, and a broken pipe must not end a run of hours.
    try:
        encoding = sys.stdout.encoding or "utf-8"
        print(line.encode(encoding, errors="replace").decode(encoding), flush=True)
    except BrokenPipeError:
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
