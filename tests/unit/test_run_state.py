"""Checkpoints: written whole or not at all, and refused, by name, when anything is amiss."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from grpo.config import DataConfig, ModelConfig, RolloutConfig, RunConfig
from grpo.errors import CheckpointError
from grpo.run_state import (
    CheckpointWriter,
    RunState,
    find_checkpoint,
    identity,
    list_checkpoints,
    load_state,
    rotate,
)

CONFIG = RunConfig(steps=100, seed=3)
PROMPTS = {"epoch": 1, "position": 17, "order_seed": 5}


def write(root: Path, step: int = 12, config: RunConfig = CONFIG) -> Path:
    writer = CheckpointWriter(root, step)
    (writer.directory / "learner").mkdir()
    (writer.directory / "learner" / "shard_0.bin").write_bytes(bytes(range(200)))
    (writer.directory / "empty.bin").touch()
    return writer.commit(RunState(step=step, prompts=PROMPTS, identity=identity(config)))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write(tmp_path / "checkpoints")


def refusal(checkpoint: Path, config: RunConfig = CONFIG) -> str:
    """The message; always one that names the checkpoint."""
    with pytest.raises(CheckpointError) as caught:
        load_state(checkpoint, config)
    assert str(checkpoint) in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read(checkpoint: Path):
    assert checkpoint.name == "step_000012"
    assert load_state(checkpoint, CONFIG) == RunState(step=12, prompts=PROMPTS, identity=identity(CONFIG))
    assert [p.name for p in checkpoint.parent.iterdir()] == ["step_000012"]  # nothing is left of the making


def test_it_can_be_moved(checkpoint: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    checkpoint.rename(moved)
    assert load_state(moved, CONFIG).step == 12


def test_until_committed_it_does_not_exist(tmp_path: Path):
    writer = CheckpointWriter(tmp_path, 4)
    (writer.directory / "weights.bin").write_bytes(b"half")
    assert list_checkpoints(tmp_path) == []
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_checkpoint(str(tmp_path))


def test_what_an_interrupted_writer_left_is_not_taken_over(tmp_path: Path):
    (CheckpointWriter(tmp_path, 12).directory / "stale.bin").write_bytes(b"x")
    assert not (write(tmp_path) / "stale.bin").exists()


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path):
    old = write(tmp_path)
    (old / "learner" / "shard_0.bin").write_bytes(b"damaged")
    assert load_state(write(tmp_path), CONFIG).step == 12


def test_rotation_keeps_the_newest(tmp_path: Path):
    for step in (9, 100, 20, 3):
        write(tmp_path, step)
    (tmp_path / "step_notes").mkdir()
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_000003", "step_000009", "step_000020", "step_000100"]
    rotate(tmp_path, 2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_000020", "step_000100"]
    rotate(tmp_path, 5)
    assert len(list_checkpoints(tmp_path)) == 2
    assert (tmp_path / "step_notes").exists()


def test_no_directory_no_checkpoints(tmp_path: Path):
    assert list_checkpoints(tmp_path / "none") == []


def test_finding(tmp_path: Path):
    run = tmp_path / "run"
    first, second = write(run / "checkpoints", 2), write(run / "checkpoints", 10)
    assert find_checkpoint(str(run)) == second
    assert find_checkpoint(str(run / "checkpoints")) == second
    assert find_checkpoint(str(first)) == first
    renamed = first.rename(tmp_path / "best")
    assert find_checkpoint(str(renamed)) == renamed


@pytest.mark.parametrize(("name", "telling"), [("nowhere", "no such directory"), ("empty", "holds no checkpoint")])
def test_finding_nothing_says_what_was_looked_for(tmp_path: Path, name: str, telling: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=telling) as caught:
        find_checkpoint(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("name", ["learner/shard_0.bin", "empty.bin", "state.json", "files.json"])
def test_a_missing_file_is_named(checkpoint: Path, name: str):
    (checkpoint / name).unlink()
    assert name in refusal(checkpoint)


def test_a_truncated_file_is_named_with_both_sizes(checkpoint: Path):
    file = checkpoint / "learner" / "shard_0.bin"
    file.write_bytes(file.read_bytes()[:150])
    message = refusal(checkpoint)
    assert "learner/shard_0.bin has 150 bytes, expected 200" in message


@pytest.mark.parametrize("name", ["files.json", "state.json"])
@pytest.mark.parametrize("length", [0, 1, 40])
def test_torn_json(checkpoint: Path, name: str, length: int):
    file = checkpoint / name
    file.write_bytes(file.read_bytes()[:length])
    refusal(checkpoint)


@pytest.mark.parametrize("bit", [0, 4, 7])
@pytest.mark.parametrize("name", ["learner/shard_0.bin", "state.json", "files.json"])
def test_any_flipped_bit_is_noticed(checkpoint: Path, name: str, bit: int):
    file = checkpoint / name
    intact = file.read_bytes()
    for position in range(len(intact)):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << bit
        file.write_bytes(damaged)
        message = refusal(checkpoint)
        if name == "learner/shard_0.bin":
            assert "the content of learner/shard_0.bin has changed" in message
    file.write_bytes(intact)
    assert load_state(checkpoint, CONFIG).step == 12


@pytest.mark.parametrize("name", ["files.json", "state.json"])
@pytest.mark.parametrize("content", ["null", "[]", "3", '"step"', "{}", '{"state.json": 3}', '{"a": {"size": 1}}'])
def test_json_that_is_something_else(checkpoint: Path, name: str, content: str):
    (checkpoint / name).write_text(content)
    refusal(checkpoint)


def test_a_foreign_directory(tmp_path: Path):
    foreign = tmp_path / "model"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    message = refusal(foreign)
    assert "is no Keel checkpoint" in message
    assert "files.json" in message


def test_the_others_beside_it_are_offered(checkpoint: Path):
    assert "There is no other checkpoint beside it." in refusal_after_damage(checkpoint)
    intact = write(checkpoint.parent, 8)
    assert "Others there: step_000008." in refusal(checkpoint)
    assert load_state(intact, CONFIG).step == 8


def refusal_after_damage(checkpoint: Path) -> str:
    (checkpoint / "empty.bin").unlink()
    return refusal(checkpoint)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("grpo.run_state._FORMAT", 2)
    newer = write(tmp_path)
    monkeypatch.undo()
    assert "has format 2; this version reads 1" in refusal(newer)


@pytest.mark.parametrize(
    ("other", "key", "theirs", "ours"),
    [
        (replace(CONFIG, seed=4), "seed", "3", "4"),
        (replace(CONFIG, model=ModelConfig(path="org/other")), "model.path", "smollm2-135m-instruct", "org/other"),
        (replace(CONFIG, model=ModelConfig(revision="v2")), "model.revision", "None", "v2"),
        (replace(CONFIG, data=DataConfig(path="my.jsonl")), "data", "builtin:python_tasks", "my.jsonl"),
        (replace(CONFIG, data=DataConfig(limit=5)), "data", "None", "5"),
        (replace(CONFIG, rollout=RolloutConfig(group_size=4)), "rollout.group_size", "8", "4"),
        (replace(CONFIG, rollout=RolloutConfig(prompts_per_step=4)), "rollout.prompts_per_step", "8", "4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_of_another_run_names_the_key_and_both_values(
    checkpoint: Path, other: RunConfig, key: str, theirs: str, ours: str
):
    message = refusal(checkpoint, other)
    assert f"its {key} is" in message
    assert theirs in message
    assert ours in message


def test_what_may_change_between_runs(checkpoint: Path):
    other = replace(CONFIG, steps=500, experiment="again", output_dir="/x", keep_checkpoints=9)
    assert load_state(checkpoint, other).step == 12


@pytest.mark.parametrize("steps", [12, 5])
def test_nothing_left_to_do(checkpoint: Path, steps: int):
    message = refusal(checkpoint, replace(CONFIG, steps=steps))
    assert "is at step 12" in message
    assert f"steps={steps}" in message
    assert "Raise steps" in message


def test_identity_survives_json():
    for config in (CONFIG, replace(CONFIG, data=DataConfig(system_prompt="hallo", limit=3))):
        assert json.loads(json.dumps(identity(config))) == identity(config)


def test_a_file_that_nobody_listed_does_no_harm(checkpoint: Path):
    shutil.copy(checkpoint / "empty.bin", checkpoint / ".nfs0001")
    assert load_state(checkpoint, CONFIG).step == 12
