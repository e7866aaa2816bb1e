"""The directory of one run: who holds it, what lies where, and what a resumed run takes over."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from grpo.errors import ConfigError
from grpo.report.environment import describe_environment
from grpo.report.files import replacing, write_text

#: What a run that never finished a step leaves behind; a new run may write over it.
_START_UP_FILES = {"config.yaml", "environment.json", "run.log", "metrics.jsonl", "tensorboard", "logs", "failures"}
_ROLLOUT_NAME = re.compile(r"step_(\d+)\.parquet")


class RunDirectory:
    """Layout of a run directory. Constructing it claims nothing; `claim` does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.rollouts = path / "rollouts"
        self.checkpoints = path / "checkpoints"
        self.policy = path / "policy"
        self.reward_curve = path / "reward_curve.png"
        self.report = path / "report.html"
        self.run_log = path / "run.log"
        self._lock: int | None = None

    @classmethod
    def claim(cls, path: Path, *, config_text: str, resumed_step: int | None = None) -> RunDirectory:
        """Create or take over `path`, hold it until `release`, and write config.yaml and environment.json.

        Args:
            config_text: the resolved configuration as YAML.
            resumed_step: last finished step of the checkpoint this run goes on from; metrics and rollouts of
                later steps are dropped. Null: a new run, which needs an empty directory.

        Raises:
            ConfigError: the directory can't be made, is held by a living process, or holds an earlier run.
        """
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            run._take_lock()
        except OSError as error:
            raise ConfigError(
                "output_dir", str(path), f"can't be written ({error.strerror})", "Choose another output_dir."
            ) from error
        try:
            if resumed_step is None:
                run._refuse_earlier_run()
            else:
                run._drop_steps_after(resumed_step)
            run._write_start(config_text, resumed_step)
        except BaseException:
            run.release()
            raise
        return run

    def rollout_file(self, step: int) -> Path:
        """Where the rollouts of `step` are."""
        return self.rollouts / f"step_{step:06d}.parquet"

    def failures_file(self, step: int) -> Path:
        """Where the failed verdicts of `step` go if they pause the run."""
        return self.path / "failures" / f"step_{step:06d}.jsonl"

    def rollout_steps(self) -> list[int]:
        """Steps with a rollout file, ascending."""
        names = (_ROLLOUT_NAME.fullmatch(file.name) for file in self.rollouts.glob("step_*.parquet"))
        return sorted(int(name[1]) for name in names if name)

    def release(self) -> None:
        """Let other processes have the directory. May be called twice."""
        # The file stays: were it unlinked, two processes could each hold a lock on a different `.lock`.
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _take_lock(self) -> None:
        lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # The kernel drops the lock with its process, so a killed run never leaves a stale one.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise ConfigError(
                "output_dir",
                str(self.path),
                f"in use by another run (process {holder})",
                "Wait for it, stop it, or choose another output_dir.",
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def _refuse_earlier_run(self) -> None:
        visible = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")}
        has_steps = self.metrics.exists() and self.metrics.stat().st_size > 0
        if has_steps or visible - _START_UP_FILES - {entry.name for entry in self._empty_directories()}:
            raise ConfigError(
                "output_dir",
                str(self.path),
                f"not empty (holds {', '.join(sorted(visible)[:4])})",
                f"Choose another output_dir, or go on with the run in it: resume={self.path}.",
            )

    def _empty_directories(self) -> list[Path]:
        return [entry for entry in self.path.iterdir() if entry.is_dir() and not any(entry.iterdir())]

    def _drop_steps_after(self, step: int) -> None:
        for later in (found for found in self.rollout_steps() if found > step):
            self.rollout_file(later).unlink()
        # Kept, but under a name that neither rotation nor the next resume takes for this run's newest checkpoint.
        for checkpoint in sorted(self.checkpoints.glob("step_*")):
            if checkpoint.name > f"step_{step:06d}":
                aside = checkpoint.with_name(f"superseded_{checkpoint.name}")
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(checkpoint, aside)
        if not self.metrics.exists():
            return
        lines = self.metrics.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and _step_of(line) <= step]
        if kept != lines:
            with replacing(self.metrics) as aside:
                aside.write_bytes(b"".join(kept))

    def _write_start(self, config_text: str, resumed_step: int | None) -> None:
        environment = describe_environment()
        if resumed_step is not None:
            environment["resumed_after_step"] = resumed_step
            if self.environment.exists():
                earlier = cast("dict[str, Any]", json.loads(self.environment.read_text(encoding="utf-8")))
                environment["earlier_starts"] = [*earlier.pop("earlier_starts", []), earlier]
            if self.config.exists() and self.config.read_text(encoding="utf-8") != config_text:
                os.replace(self.config, self.path / f"config.until_step_{resumed_step:06d}.yaml")
        for directory in (self.rollouts, self.checkpoints):
            directory.mkdir(exist_ok=True)
        write_text(self.config, config_text)
        write_text(self.environment, json.dumps(environment, indent=2) + "\n")


def _step_of(line: bytes) -> float:
    """Step of a metrics line; infinite for a line that was torn, so that it is dropped."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
