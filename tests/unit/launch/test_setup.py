"""The parts of launch/setup.py that decide: what to install, with what, and whether there is anything to do."""

from __future__ import annotations

import ast
import json
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from launch import setup

ROOT = Path(__file__).parents[3]
Usage = namedtuple("Usage", "total used free")


def no_driver() -> None:
    return None


class TestChooseDevice:
    def test_driver_means_gpu(self) -> None:
        assert setup.choose_device({}, lambda: "nvidia-smi lists a GPU") == ("gpu", "nvidia-smi lists a GPU")

    def test_no_driver_means_cpu_and_says_so(self) -> None:
        assert setup.choose_device({}, no_driver) == ("cpu", "no NVIDIA driver found")

    @pytest.mark.parametrize("wanted", ["cpu", "gpu", " GPU "])
    def test_environment_overrides(self, wanted: str) -> None:
        device, reason = setup.choose_device({"KEEL_DEVICE": wanted}, no_driver)
        assert device == wanted.strip().lower()
        assert "KEEL_DEVICE" in reason

    def test_unknown_device_is_named(self) -> None:
        with pytest.raises(setup.SetupError, match="'tpu' is neither cpu nor gpu"):
            setup.choose_device({"KEEL_DEVICE": "tpu"}, no_driver)

    @pytest.mark.parametrize(("said", "found"), [("GPU 0: H200 (UUID: x)", True), ("No devices were found", False)])
    def test_nvidia_smi_must_list_a_gpu(
        self, said: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = tmp_path / "nvidia-smi"
        fake.write_text(f"#!/bin/sh\necho '{said}'\n")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setattr(setup.os.path, "exists", lambda path: False)
        assert (setup.nvidia_driver() is not None) is found


class TestFindPython:
    def test_running_interpreter_comes_first(self) -> None:
        found = setup.find_python(
            {}, running="/a/python3", which=lambda name: "/b/" + name, version=lambda p: (3, 12, 1)
        )
        assert found == "/a/python3"

    def test_old_running_interpreter_gives_way(self) -> None:
        versions = {"/old": (3, 9, 18), "/b/python3.12": (3, 12, 1)}
        found = setup.find_python({}, running="/old", which=lambda name: "/b/" + name, version=versions.get)
        assert found == "/b/python3.12"

    def test_missing_python_is_explained(self) -> None:
        with pytest.raises(setup.SetupError) as caught:
            setup.find_python({}, running="/old", which=lambda name: None, version=lambda p: (3, 9, 18))
        message = str(caught.value)
        assert "needs Python 3.11 or newer" in message
        assert "/old is 3.9.18" in message
        assert "KEEL_PYTHON" in message

    def test_a_named_interpreter_is_not_replaced(self) -> None:
        versions = {"/mine": (3, 10, 0), "/good": (3, 11, 7)}
        with pytest.raises(setup.SetupError, match=r"/mine is 3\.10\.0"):
            setup.find_python({"KEEL_PYTHON": "/mine"}, running="/good", version=versions.get)

    def test_version_of_a_program_that_does_not_run(self, tmp_path: Path) -> None:
        broken = tmp_path / "python3"
        broken.write_text("#!/bin/sh\nexit 127\n")
        broken.chmod(0o755)
        assert setup.version_of(str(broken)) is None
        assert setup.version_of(str(tmp_path / "absent")) is None
        assert setup.version_of(sys.executable) == sys.version_info[:3]


class TestVenvModule:
    def test_there(self) -> None:
        setup.check_venv_module(sys.executable)

    def test_missing(self) -> None:
        with pytest.raises(setup.SetupError, match=r"/usr/bin/python3 can't make virtual environments.*python3-venv"):
            setup.check_venv_module("/usr/bin/python3", call=lambda *_, **__: 1)


class TestDisk:
    def test_enough(self) -> None:
        setup.check_disk("cpu", "/x", lambda path: Usage(0, 0, 7 * 10**9))

    def test_too_little_says_how_much(self) -> None:
        with pytest.raises(setup.SetupError, match=r"gpu environment needs about 20 GB and /x has 7\.0 GB free"):
            setup.check_disk("gpu", "/x", lambda path: Usage(0, 0, 7 * 10**9))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with two locks and a pyproject.toml."""
    (tmp_path / "launch/locks").mkdir(parents=True)
    for device in ("cpu", "gpu"):
        (tmp_path / f"launch/locks/{device}.txt").write_text(f"torch==2.13.0  # {device}\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return tmp_path


@pytest.fixture
def venv(checkout: Path) -> str:
    """A finished CPU environment of `checkout`, as far as `state_of` looks."""
    made = checkout / ".venv"
    for name in setup.IMPORTED:
        (made / "lib/python3.11/site-packages" / name).mkdir(parents=True)
    (made / "bin").mkdir()
    (made / "bin/grpo").touch()
    stamp = dict(setup.fingerprint(str(checkout), "cpu"), python="3.11.7", venv=str(made))
    setup.write_stamp(str(made), stamp)
    return str(made)


def state(checkout: Path, venv: str, device: str = "cpu", python: tuple[int, ...] | None = (3, 11, 7)) -> str:
    return setup.state_of(venv, setup.fingerprint(str(checkout), device), lambda path: python)


class TestStamp:
    def test_nothing_there(self, checkout: Path) -> None:
        assert state(checkout, str(checkout / ".venv")) == "unusable"

    def test_ready(self, checkout: Path, venv: str) -> None:
        assert state(checkout, venv) == "ready"

    @pytest.mark.parametrize("changed", ["launch/locks/cpu.txt", "pyproject.toml"])
    def test_a_changed_input_is_installed_over_it(self, checkout: Path, venv: str, changed: str) -> None:
        (checkout / changed).write_text("other")
        assert state(checkout, venv) == "outdated"

    def test_the_other_lock_does_not_matter(self, checkout: Path, venv: str) -> None:
        (checkout / "launch/locks/gpu.txt").write_text("other")
        assert state(checkout, venv) == "ready"

    def test_other_device_is_made_anew(self, checkout: Path, venv: str) -> None:
        assert state(checkout, venv, "gpu") == "unusable"

    @pytest.mark.parametrize("python", [None, (3, 12, 1)])
    def test_broken_or_replaced_interpreter(self, checkout: Path, venv: str, python: tuple[int, ...] | None) -> None:
        assert state(checkout, venv, python=python) == "unusable"

    def test_missing_package(self, checkout: Path, venv: str) -> None:
        (Path(venv) / "lib/python3.11/site-packages/vllm").rmdir()
        assert state(checkout, venv) == "unusable"

    def test_missing_command_is_put_back(self, checkout: Path, venv: str) -> None:
        (Path(venv) / "bin/grpo").unlink()
        assert state(checkout, venv) == "outdated"

    @pytest.mark.parametrize("content", ["", "{", "[]"])
    def test_torn_stamp(self, checkout: Path, venv: str, content: str) -> None:
        Path(setup.stamp_path(venv)).write_text(content)
        assert state(checkout, venv) == "unusable"

    def test_moved_checkout(self, checkout: Path, venv: str) -> None:
        stamp = json.loads(Path(setup.stamp_path(venv)).read_text())
        setup.write_stamp(venv, dict(stamp, venv="/elsewhere/.venv"))
        assert state(checkout, venv) == "unusable"


class TestExplain:
    @pytest.mark.parametrize(
        "line",
        [
            "Retrying: NewConnectionError('Failed to establish a new connection: [Errno 111] Connection refused')",
            "Temporary failure in name resolution",
            "Max retries exceeded with url: /simple/torch/",
        ],
    )
    def test_no_registry(self, line: str) -> None:
        message = setup.explain("An install failed", f"Collecting torch\n{line}\n", "/x.log")
        assert message.startswith("The package registry could not be reached")
        assert "/x.log" in message
        assert line in message

    def test_disk_filled_on_the_way(self) -> None:
        assert setup.explain("An install failed", "OSError: No space left on device", "/x").startswith(
            "The disk is full"
        )

    def test_other_failures_keep_their_tail_only(self) -> None:
        log = "\n".join(f"line {i}" for i in range(30))
        message = setup.explain("An install failed", log, "/x.log")
        assert message.startswith("An install failed. Whole output: /x.log.")
        assert "line 29" in message
        assert "line 5" not in message

    def test_progress(self) -> None:
        log = "Collecting a==1\n  Downloading a\nCollecting b==2\n"
        assert setup.progress(log, 5) == "... 2 of 5 packages fetched"
        assert setup.progress(log + "Installing collected packages: a, b\n", 5) == "... unpacking"


def test_child_environment_stays_in_the_venv() -> None:
    kept = setup.child_environ({"PIP_USER": "1", "PYTHONPATH": "/x", "PIP_INDEX_URL": "http://mirror", "HOME": "/h"})
    assert kept == {"PIP_INDEX_URL": "http://mirror", "HOME": "/h", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def test_an_old_python_can_read_it() -> None:
    ast.parse((ROOT / "launch/setup.py").read_text(), feature_version=(3, 5))


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_locks_are_plain_pins(device: str) -> None:
    lines = (ROOT / f"launch/locks/{device}.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    assert {"ray", "transformers", "pytest", "ruff", "pyright", "import-linter", "hatchling"} <= set(pins)
    assert not any("+" in version or "/" in version for version in pins.values())
    assert ("torchvision" in pins) is (device == "gpu")
