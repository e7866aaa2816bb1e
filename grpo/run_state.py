"""Checkpoints of a run: written aside and renamed, checked before anything expensive starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grpo.config import RunConfig
from grpo.errors import CheckpointError

_NAME = re.compile(r"step_(\d{6})")
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What the controller needs to go on.

    Attributes:
        step: steps finished.
        prompts: state of the prompt stream.
        identity: the parts of the configuration that a resumed run must share.
    """

    step: int
    prompts: dict[str, Any]
    identity: dict[str, Any]


def identity(config: RunConfig) -> dict[str, Any]:
    """The parts of a configuration that make a checkpoint this run's own: model, data, seed and batch shape."""
    return {
        "model.path": config.model.path,
        "model.revision": config.model.revision,
        "data": {k: str(v) for k, v in asdict(config.data).items()},
        "seed": config.seed,
        "rollout.prompts_per_step": config.rollout.prompts_per_step,
        "rollout.group_size": config.rollout.group_size,
    }


class CheckpointWriter:
    """One checkpoint in the making: a directory aside that `commit` checks off and renames."""

    def __init__(self, root: Path, step: int) -> None:
        self._final = root / f"step_{step:06d}"
        self.directory = root / f".step_{step:06d}.incomplete"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)

    def commit(self, state: RunState) -> Path:
        """Write the state and the list of files with their checksums, make all durable, and give it its name."""
        (self.directory / "state.json").write_text(json.dumps({"format": _FORMAT, **asdict(state)}, indent=1))
        files = {
            str(file.relative_to(self.directory)): {"size": file.stat().st_size, "crc32": _crc32(file)}
            for file in sorted(self.directory.rglob("*"))
            if file.is_file()
        }
        (self.directory / "files.json").write_text(json.dumps(files, indent=1))
        for file in self.directory.rglob("*"):
            flush(file)
        flush(self.directory)
        replaced = self.directory.with_suffix(".replaced")
        if self._final.exists():
            os.replace(self._final, replaced)
        os.replace(self.directory, self._final)
        flush(self._final.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        return self._final


def rotate(root: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for old in list_checkpoints(root)[:-keep]:
        shutil.rmtree(old)


def list_checkpoints(root: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(p for p in root.glob("step_*") if _NAME.fullmatch(p.name)) if root.is_dir() else []


def find_checkpoint(resume: str) -> Path:
    """The checkpoint that `resume` names: itself, or the newest of a run directory.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(resume).expanduser().resolve()
    if not path.exists():
        raise CheckpointError(f"resume={resume!r}: no such directory. Name a run directory or one of its checkpoints.")
    if (path / "state.json").exists() or _NAME.fullmatch(path.name):
        return path
    found = list_checkpoints(path / "checkpoints") or list_checkpoints(path)
    if not found:
        raise CheckpointError(
            f"resume={resume!r}: holds no checkpoint (expected {path / 'checkpoints'}/step_NNNNNN). "
            "A run writes its first one after checkpoint_every steps, when it is stopped, or at its end."
        )
    return found[-1]


def load_state(checkpoint: Path, config: RunConfig) -> RunState:
    """Check a checkpoint file by file and read its state.

    Raises:
        CheckpointError: a file is missing, torn or changed, or the checkpoint belongs to another run; names it.
    """
    try:
        state = _read(checkpoint)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # JSON of any other form
        raise CheckpointError(
            f"{checkpoint} is no Keel checkpoint, or is torn ({type(error).__name__}: {error}). {_other(checkpoint)}"
        ) from error
    for key, ours in json.loads(json.dumps(identity(config))).items():
        if state.identity.get(key) != ours:
            raise CheckpointError(
                f"{checkpoint} belongs to another run: its {key} is {state.identity.get(key)!r}, here it is {ours!r}. "
                "Set it alike, or start afresh without resume."
            )
    if state.step >= config.steps:
        raise CheckpointError(
            f"{checkpoint} is at step {state.step}, and steps={config.steps}: nothing is left to do. Raise steps."
        )
    return state


def _read(checkpoint: Path) -> RunState:
    listed = json.loads((checkpoint / "files.json").read_text()).items()
    files = {name: (entry["size"], entry["crc32"]) for name, entry in listed}
    for name in ("state.json", *files):
        _check_file(checkpoint, name, *files[name])
    raw = json.loads((checkpoint / "state.json").read_text())
    if raw["format"] != _FORMAT:
        raise CheckpointError(f"{checkpoint} has format {raw['format']}; this version reads {_FORMAT}.")
    return RunState(**{name: raw[name] for name in ("step", "prompts", "identity")})


def _check_file(checkpoint: Path, name: str, expected_size: int, expected_crc32: int) -> None:
    file = checkpoint / name
    if not file.is_file():
        raise CheckpointError(f"{checkpoint} is corrupt: {name} is missing. {_other(checkpoint)}")
    size = file.stat().st_size
    if size != expected_size:
        raise CheckpointError(
            f"{checkpoint} is corrupt: {name} has {size} bytes, expected {expected_size}. {_other(checkpoint)}"
        )
    if _crc32(file) != expected_crc32:
        raise CheckpointError(f"{checkpoint} is corrupt: the content of {name} has changed. {_other(checkpoint)}")


def _other(checkpoint: Path) -> str:
    others = [p.name for p in list_checkpoints(checkpoint.parent) if p != checkpoint]
    return f"Others there: {', '.join(others)}." if others else "There is no other checkpoint beside it."


def _crc32(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def flush(path: Path) -> None:
    """Have a file or a directory written to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
