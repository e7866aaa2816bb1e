"""`grpo doctor`: what this machine has for a run, what is wrong with it, and how to mend that."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from grpo.report.environment import describe_environment
from rewards.base import RewardError

_MIN_DISK_GIB = 10.0
_MIN_SHARED_MEMORY_GIB = 1.0
_GIB = float(1 << 30)


class Health(StrEnum):
    """How a finding stands."""

    GOOD = "good"
    WARNING = "warning"  #: a run works, with less
    BAD = "bad"  #: a run does not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what it is.
        health: how it stands.
        text: what was found; more lines may follow.
        remedy: what to do, if something is to be done.
    """

    subject: str
    health: Health
    text: str
    remedy: str = ""


def main(arguments: list[str]) -> None:
    """Print all findings; exits with 1 if one is bad."""
    parser = argparse.ArgumentParser(prog="grpo doctor", description=__doc__)
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the findings there too")
    options = parser.parse_args(arguments)
    findings: list[Finding] = []
    for finding in examine():
        findings.append(finding)
        print(_lines(finding), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    worst = [finding for finding in findings if finding.health is Health.BAD]
    print(f"\n{len(worst)} of {len(findings)} need mending." if worst else "\nNothing needs mending.")
    sys.exit(1 if worst else 0)


def examine() -> Iterator[Finding]:
    """Everything that is looked at, the quick things first."""
    yield from _packages()
    yield _device()
    yield _space("disk", os.getcwd(), _MIN_DISK_GIB, "Free some, or set output_dir to a larger disk.")
    yield _space("shared memory", "/dev/shm", _MIN_SHARED_MEMORY_GIB, "In a container: --shm-size=8g or --ipc=host.")
    yield from _sandbox()


def _packages() -> Iterator[Finding]:
    found = describe_environment()
    versions = found["packages"]
    assert isinstance(versions, dict)
    yield Finding(subject="python", health=Health.GOOD, text=f"{found['python']} on {found['platform']}")
    for name, version in versions.items():
        if version is None:
            yield Finding(subject=name, health=Health.BAD, text="not installed", remedy="make setup")
        else:
            yield Finding(subject=name, health=Health.GOOD, text=str(version))


def _device() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0))
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding(
            subject="device", health=Health.GOOD, text=f"{len(names)} GPUs ({', '.join(names)}), {cores} cores"
        )
    driver = shutil.which("nvidia-smi") is not None
    return Finding(
        subject="device",
        health=Health.WARNING if driver else Health.GOOD,
        text=f"no CUDA GPU that torch {torch.__version__} sees, {cores} cores",
        remedy="There is a driver: install the CUDA packages with make setup." if driver else "",
    )


def _space(subject: str, path: str, least_gib: float, remedy: str) -> Finding:
    try:
        free = shutil.disk_usage(path).free / _GIB
    except OSError as error:
        return Finding(subject=subject, health=Health.WARNING, text=f"{path}: {error.strerror}", remedy=remedy)
    enough = free >= least_gib
    return Finding(
        subject=subject,
        health=Health.GOOD if enough else Health.WARNING,
        text=f"{free:.1f} GiB free in {path}",
        remedy="" if enough else remedy,
    )


def _sandbox() -> Iterator[Finding]:
    """Whether model-written code can be run here: every layer, and the attacks tried."""
    from rewards.sandbox.pool import Sandbox

    try:
        with Sandbox(1, allow_unsafe=True) as sandbox:
            survey = sandbox.survey
    except RewardError as error:
        yield Finding(subject="sandbox", health=Health.BAD, text=str(error), remedy="See docs/sandbox.md.")
        return
    missing = survey.missing()
    yield Finding(
        subject="sandbox",
        health=Health.BAD if missing else Health.GOOD,
        text="\n".join(["refuses to run programs: " + "; ".join(missing) if missing else "isolates", survey.table()]),
        remedy="docs/sandbox.md says what each layer needs." if missing else "",
    )


def _lines(finding: Finding) -> str:
    first, *rest = finding.text.split("\n")
    mark = {Health.GOOD: "ok  ", Health.WARNING: "note", Health.BAD: "BAD "}[finding.health]
    lines = [f"{mark} {finding.subject:14} {first}", *(f"     {'':14} {line}" for line in rest)]
    return "\n".join([*lines, f"     {'':14} -> {finding.remedy}"] if finding.remedy else lines)
