"""Hostile programs: none gets out, none is judged passed, none chooses to be a fault of the sandbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rewards.sandbox.pool import Sandbox
from rewards.sandbox.survey import Layer

sys.path.insert(0, str(Path(__file__).parent))
from attacks import read_attacks
from contained import LIMITS, attack_all

NOBODY = 12345
NAMESPACES = {Layer.MOUNT_NAMESPACE, Layer.PID_NAMESPACE, Layer.NETWORK_NAMESPACE, Layer.IPC_NAMESPACE}
#: Two tries at the wall limit for a sleeper, and time for a crowded machine to start and end processes.
MOST_SECONDS = 2 * LIMITS.wall_time_s + 10


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the sandbox puts its own; other users can pass through."""
    path = Path(tempfile.mkdtemp(prefix="keel-test-", dir="/tmp"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def public_interpreter() -> str:
    """One that any user may start: this one lies in a home directory at times."""
    if os.geteuid() != 0:
        return sys.executable
    for name in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        path = Path(name).resolve()
        if path.exists() and all(part.stat().st_mode & 0o1 for part in (path, *path.parents)):
            version = subprocess.run(
                [name, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True
            )
            if version.stdout == b"True\n":
                return name
    pytest.skip("no Python 3.11 here that another user may run")


def contained(
    directory: Path, *, uid: int | None = None, container: bool = False, without: Sequence[Layer] = (), rounds: int = 1
) -> dict[str, Any]:
    settings: dict[str, Any] = {"uid": uid, "container": container, "without": list(without), "rounds": rounds}
    settings["directory"] = str(directory)
    interpreter = sys.executable if uid is None else public_interpreter()
    done = subprocess.run(
        [
            interpreter,
            str(Path(__file__).with_name("contained.py")),
            json.dumps(settings),
        ],
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["fine"]
    assert (report["left"], report["shared"], report["children"]) == ([], [], False)
    return report


def assert_held(outcomes: list[dict[str, Any]]) -> None:
    problems = [
        outcome
        for outcome in outcomes
        if outcome["kind"] in ("passed", "sandbox_fault")
        or "ESCAPED" in outcome["output"]
        or outcome["seconds"] > MOST_SECONDS
    ]
    assert problems == []


def test_there_are_attacks_on_every_form() -> None:
    attacks = read_attacks()
    assert len(attacks) > 150
    assert len({attack.name for attack in attacks}) == len(attacks)
    assert {attack.form.value for attack in attacks} == {"asserts", "check", "test_file", "stdin", "calls"}


def test_attacks_on_all_layers() -> None:
    with Sandbox(2) as sandbox:
        outcomes = attack_all(sandbox)
        assert_held(outcomes)
    # An attack that is refused says so; one that did not run at all would not show anything.
    reached = {outcome["name"]: outcome["output"] for outcome in outcomes if "HELD" in outcome["output"]}
    assert len(reached) == sum(": " not in attack.name for attack in read_attacks())


def test_attacks_where_a_container_forbids_namespaces(directory: Path) -> None:
    report = contained(directory, container=True)
    assert not NAMESPACES.intersection(report["layers"])
    assert Layer.FILE_ACCESS in report["layers"]
    assert_held(report["outcomes"])


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("container", [False, True], ids=["namespaces", "container"])
def test_attacks_as_another_user(directory: Path, container: bool) -> None:
    report = contained(directory, uid=NOBODY, container=container)
    assert NAMESPACES.isdisjoint(report["layers"]) is container
    assert_held(report["outcomes"])


@pytest.mark.slow
def test_attacks_without_landlock(directory: Path) -> None:
    report = contained(directory, without=[Layer.FILE_ACCESS])
    if Layer.MOUNT_NAMESPACE not in report["layers"]:
        pytest.skip("no namespaces here")
    assert_held(report["outcomes"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_is_left_after_five_thousand_jobs(directory: Path) -> None:
    rounds = -(-5000 // len(read_attacks()))
    report = contained(directory, rounds=rounds)
    assert len(report["outcomes"]) >= 5000
    assert_held(report["outcomes"])
