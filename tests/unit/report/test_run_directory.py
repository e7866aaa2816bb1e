from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from grpo.errors import ConfigError
from grpo.report.environment import redact
from grpo.report.run_directory import RunDirectory

_HOLD = """
import sys
from pathlib import Path
from grpo.report.run_directory import RunDirectory
run = RunDirectory.claim(Path(sys.argv[1]), config_text="steps: 1\\n")
print("held", flush=True)
sys.stdin.readline()
"""


def _finished(path: Path, steps: int) -> RunDirectory:
    run = RunDirectory.claim(path, config_text="steps: 9\n")
    lines = [json.dumps({"step": step, "reward/mean": step / 10}) + "\n" for step in range(1, steps + 1)]
    run.metrics.write_text("".join(lines))
    for step in range(1, steps + 1):
        run.rollout_file(step).write_bytes(b"rows")
    run.release()
    return run


def test_claim_writes_config_and_environment(tmp_path: Path) -> None:
    with RunDirectory.claim(tmp_path / "a" / "b", config_text="steps: 3\n") as run:
        assert run.config.read_text() == "steps: 3\n"
        environment = json.loads(run.environment.read_text())
        assert environment["packages"]["torch"]
        assert environment["cpu"]["cores"] >= 1
        assert environment["started_at"].startswith("20")
        assert run.rollouts.is_dir()
        assert run.checkpoints.is_dir()
        assert not list(run.path.glob(".*.tmp"))


def test_environment_holds_no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "zebra-in-the-environment")
    monkeypatch.setattr(sys, "argv", ["train", "hub.token=zebra-on-the-line", "rollout.max_new_tokens=64"])
    with RunDirectory.claim(tmp_path / "run", config_text="") as run:
        text = run.environment.read_text()
    assert "zebra" not in text
    assert "rollout.max_new_tokens=64" in text


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("model.path=hf_abcdefghijklmnopqrstuv", "model.path=[redacted]"),
        ("s3://me:pass@host/x", "s3://[redacted]@host/x"),
        ("API_KEY=1", "API_KEY=[redacted]"),
        ("learner.micro_batch_tokens=8192", "learner.micro_batch_tokens=8192"),
    ],
)
def test_redact(argument: str, expected: str) -> None:
    assert redact(argument) == expected


def test_directory_held_by_another_process_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path / "run")]
    root = str(Path(__file__).resolve().parents[3])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"in use by another run \(process {holder.pid}\)") as raised:
            RunDirectory.claim(tmp_path / "run", config_text="", resumed_step=0)
        assert raised.value.field == "output_dir"
        holder.stdin.write("\n")
        holder.stdin.flush()
        holder.wait(timeout=30)
    # The holder is gone without having released it.
    RunDirectory.claim(tmp_path / "run", config_text="", resumed_step=0).release()


def test_claimed_twice_in_one_process_is_refused(tmp_path: Path) -> None:
    with RunDirectory.claim(tmp_path, config_text=""), pytest.raises(ConfigError, match="in use"):
        RunDirectory.claim(tmp_path, config_text="")
    RunDirectory.claim(tmp_path, config_text="").release()


def test_earlier_run_is_refused_unless_resumed(tmp_path: Path) -> None:
    _finished(tmp_path / "run", 2)
    with pytest.raises(ConfigError, match=r"not empty.*resume="):
        RunDirectory.claim(tmp_path / "run", config_text="")
    RunDirectory.claim(tmp_path / "run", config_text="", resumed_step=2).release()


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        RunDirectory.claim(tmp_path, config_text="")


def test_run_that_never_finished_a_step_may_be_written_over(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path, config_text="model: typo\n")
    run.run_log.write_text("started\n")
    run.metrics.touch()
    run.release()
    with RunDirectory.claim(tmp_path, config_text="model: right\n") as again:
        assert again.config.read_text() == "model: right\n"


def test_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written"):
        RunDirectory.claim(tmp_path / "file", config_text="")


def test_resume_drops_later_steps_and_torn_line(tmp_path: Path) -> None:
    run = _finished(tmp_path / "run", 5)
    kept = run.metrics.read_bytes().splitlines(keepends=True)[:3]
    with run.metrics.open("a") as file:
        file.write('{"step": 3, "rew')
    with RunDirectory.claim(run.path, config_text="steps: 12\n", resumed_step=3) as resumed:
        assert resumed.metrics.read_bytes() == b"".join(kept)
        assert resumed.rollout_steps() == [1, 2, 3]
        assert resumed.config.read_text() == "steps: 12\n"
        assert (resumed.path / "config.until_step_000003.yaml").read_text() == "steps: 9\n"
        environment = json.loads(resumed.environment.read_text())
        assert environment["resumed_after_step"] == 3
        assert len(environment["earlier_starts"]) == 1
    with RunDirectory.claim(run.path, config_text="steps: 12\n", resumed_step=3) as again:
        assert len(json.loads(again.environment.read_text())["earlier_starts"]) == 2


def test_a_resume_from_an_older_checkpoint_sets_the_newer_ones_aside(tmp_path: Path) -> None:
    """Else rotation would delete the resumed run's own next checkpoint as the oldest."""
    for step in (4, 7, 8):
        (tmp_path / f"run/checkpoints/step_{step:06d}").mkdir(parents=True)
    RunDirectory.claim(tmp_path / "run", config_text="x", resumed_step=4).release()
    left = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert left == ["step_000004", "superseded_step_000007", "superseded_step_000008"]
