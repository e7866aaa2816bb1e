"""Bad input ends in one plain message that names field, value and remedy, before Ray starts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from grpo.config import RunConfig
from grpo.errors import CheckpointError, ConfigError, DataError, KeelError, ModelError
from grpo.report.run_directory import RunDirectory
from grpo.run_state import CheckpointWriter, RunState, identity
from launch.configuration import load_config
from launch.preparation import prepare
from rewards.base import RewardError

ROOT = Path(__file__).parents[3]
GOOD_ROW = {
    "id": "a",
    "prompt": "Write f.",
    "entry_point": "f",
    "signature": "def f(x):",
    "tests": ["assert f(1) == 1"],
}


def _config(tmp_path: Path, *overrides: str) -> RunConfig:
    config = load_config(["experiment=tiny_cpu", *overrides])
    return replace(config, output_dir=str(tmp_path / "run"))


def _refused(kind: type[Exception], tmp_path: Path, *overrides: str) -> str:
    config = _config(tmp_path, *overrides)
    with pytest.raises(kind) as caught:
        prepare(config)
    assert not ray.is_initialized()
    message = str(caught.value)
    assert len(message) < 1500 and message.count("\n") < 20
    return message


def test_good_input_is_accepted(tmp_path: Path) -> None:
    prepared = prepare(_config(tmp_path))
    prepared.close()
    assert prepared.first_step == 1
    assert len({prompt.task.task_id for prompt in prepared.prompts.take(16)}) == 16 and prepared.prompts.epoch == 1


def test_more_waiting_than_memory(tmp_path: Path) -> None:
    overrides = ["schedule.mode=async", "schedule.max_staleness=1000000", "rollout.prompts_per_step=100000"]
    message = _refused(ConfigError, tmp_path, *overrides)
    assert message.startswith("schedule.max_staleness=1000000: ") and "GiB free" in message and "Lower it" in message


def test_missing_model_path(tmp_path: Path) -> None:
    message = _refused(ModelError, tmp_path, f"model.path={tmp_path}/nowhere")
    assert "model.path" in message and "nowhere" in message


def test_a_path_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = _refused(ModelError, tmp_path, f"model.path={tmp_path}/empty")
    assert "model.path" in message and "config.json" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        ("", "empty"),
        (json.dumps(GOOD_ROW) + "\n{broken\n", "tasks.jsonl:2"),
        (json.dumps(GOOD_ROW) + "\n" + json.dumps({k: v for k, v in GOOD_ROW.items() if k != "tests"}) + "\n", "tests"),
    ],
)
def test_data_files(tmp_path: Path, content: str | None, expected: str) -> None:
    file = tmp_path / "tasks.jsonl"
    if content is not None:
        file.write_text(content)
    message = _refused(DataError, tmp_path, f"data.path={file}", "data.max_level=null")
    assert expected in message and "tasks.jsonl" in message


def test_more_cpus_than_there_are(tmp_path: Path) -> None:
    message = _refused(ConfigError, tmp_path, "rollout.cpus_per_worker=500")
    assert "cluster.num_cpus" in message and "rollout.num_workers x cpus_per_worker = 1000" in message


def test_more_gpus_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    message = _refused(ConfigError, tmp_path, "cluster.device=cuda")
    assert "4 GPUs" in message and "learner.num_ranks = 2" in message and "=3" in message


def test_cuda_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "cluster.device" in _refused(ConfigError, tmp_path, "cluster.device=cuda")


def test_unknown_reward_term_and_bad_settings(tmp_path: Path) -> None:
    assert "unit_tests" in _refused(RewardError, tmp_path, "reward.weights.unit_test=1")
    assert "reward.terms.pattern.settings.regex" in _refused(RewardError, tmp_path, "reward.weights.pattern=1")


def test_output_directory_in_use(tmp_path: Path) -> None:
    with RunDirectory.claim(tmp_path / "run", config_text="x"):
        assert "in use" in _refused(ConfigError, tmp_path)


def test_output_directory_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1}\n')
    assert "resume=" in _refused(ConfigError, tmp_path)


def _checkpoint(tmp_path: Path, config: RunConfig) -> Path:
    writer = CheckpointWriter(tmp_path / "old/checkpoints", 1)
    (writer.directory / "weights").write_bytes(bytes(1000))
    return writer.commit(RunState(step=1, prompts={}, identity=identity(config)))


def test_resume_from_nothing(tmp_path: Path) -> None:
    assert "resume=" in _refused(CheckpointError, tmp_path, f"resume={tmp_path}/none")


def test_resume_from_a_corrupt_checkpoint(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, _config(tmp_path))
    content = bytearray(1000)
    content[500] ^= 1
    (checkpoint / "weights").write_bytes(content)
    message = _refused(CheckpointError, tmp_path, f"resume={checkpoint}")
    assert "weights" in message and "corrupt" in message


def test_resume_from_a_foreign_checkpoint(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, _config(tmp_path, "seed=5"))
    message = _refused(CheckpointError, tmp_path, f"resume={checkpoint}")
    assert "seed" in message and "another run" in message


def test_resume_from_a_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "step_000007").mkdir()
    (tmp_path / "step_000007/pytorch_model.bin").write_bytes(b"x")
    assert "no Keel checkpoint" in _refused(CheckpointError, tmp_path, f"resume={tmp_path}/step_000007")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["rollout.grp_size=4"], 2, "Did you mean rollout.group_size"),
        (["+learner.momentum=1"], 2, "learner.momentum"),
        (["rollout.group_size=1"], 2, "rollout.group_size=1"),
        (["-m", "seed=0,1", "steps=5,-1"], 2, "steps=-1"),
    ],
)
def test_the_command_prints_one_screen_and_no_traceback(arguments: list[str], code: int, expected: str) -> None:
    command = [sys.executable, "-m", "launch.cli", "train", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") < 10


def test_an_unknown_key_in_a_yaml_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nrollout:\n  grp_size: 4\n")
    with pytest.raises(ConfigError, match=r"rollout\.grp_size.*Did you mean rollout\.group_size"):
        load_config(["experiment=mine"], tmp_path)


def test_every_refusal_is_one_of_keels_own() -> None:
    assert issubclass(ConfigError, KeelError) and issubclass(ConfigError, ValueError)
