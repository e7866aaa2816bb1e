"""`grpo train` on the real stack: Ray, vLLM, FSDP2 and the sandbox, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration.runs import LEARNABLE, ROOT, leftovers, train

pytestmark = pytest.mark.integration


def test_two_rollout_workers_and_two_learner_ranks(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "experiment=tiny_cpu", "export=true", "reward.weights.parses=0")
    assert run.code == 0, run.output
    assert [row["step"] for row in run.metrics] == [1, 2, 3]
    for row in run.metrics:
        assert row["learner/max_abs_logprob_difference"] <= 1e-3
        assert 0 < row["learner/ratio_max_deviation"] <= 1e-3
        assert "reward/parses/mean" in row
    _check_rollouts(run.directory)
    for name in ("config.yaml", "environment.json", "reward_curve.png", "report.html", "run.log"):
        assert (run.directory / name).stat().st_size > 0, name
    assert list((run.directory / "tensorboard").glob("events*"))
    assert (run.directory / "checkpoints/step_000003/files.json").exists()
    assert str(run.directory / "policy") in run.output.splitlines()[-4] + run.output.splitlines()[-3]
    assert leftovers(str(tmp_path)) == []
    _check_policy(run.directory / "policy")


def _check_rollouts(directory: Path) -> None:
    for step in (1, 2, 3):
        rows = pq.read_table(directory / f"rollouts/step_{step:06d}.parquet").to_pylist()
        assert len(rows) == 16
        assert {(r["first_policy_version"], r["last_policy_version"]) for r in rows} == {(step - 1, step - 1)}
        assert all(len(r["token_ids"]) == len(r["behavior_logprobs"]) > 0 for r in rows)
        assert all(r["unit_tests_outcome"] == "valid" for r in rows)


def _check_policy(directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokens = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    with torch.no_grad():
        logits = model(**tokenizer(tokens, return_tensors="pt")).logits
    assert torch.isfinite(logits).all()


def test_a_learnable_reward_more_than_doubles(tmp_path: Path) -> None:
    run = train(
        tmp_path / "run",
        *LEARNABLE,
        "steps=12",
        "learner.lr=0.01",
        "rollout.prompts_per_step=8",
        "rollout.group_size=8",
    )
    assert run.code == 0, run.output
    rewards = [row["reward/mean"] for row in run.metrics]
    assert sum(rewards[-3:]) > 2 * sum(rewards[:3])


def test_reference_several_updates_and_other_aggregation(tmp_path: Path) -> None:
    run = train(
        tmp_path / "run",
        *LEARNABLE,
        "learner.num_ranks=2",
        "steps=2",
        "algorithm.kl_coefficient=0.1",
        "algorithm.updates_per_step=2",
        "algorithm.aggregation=sequence_mean",
        "learner.lr=0.01",
        "learner.activation_checkpointing=true",
    )
    assert run.code == 0, run.output
    first, second = run.metrics
    assert 0 < first["learner/kl_reference"] < second["learner/kl_reference"]
    assert first["learner/ratio_max_deviation"] > 1e-4  # the second update is off the proximal policy


@pytest.mark.parametrize("name", ["sanitized-mbpp.json", "mbpp.jsonl"])
def test_mbpp(tmp_path: Path, name: str) -> None:
    source = ROOT.parent / "shared/data/mbpp" / name
    if not source.exists():
        pytest.skip(f"{source} is not there")
    run = train(
        tmp_path / "run",
        "experiment=tiny_cpu",
        "steps=1",
        f"data.path={source}",
        "data.schema=mbpp",
        "data.max_level=null",
        "data.max_prompt_tokens=240",
        "rollout.num_workers=1",
        "learner.num_ranks=1",
    )
    assert run.code == 0, run.output
    assert run.metrics[0]["reward/unit_tests/failed"] == 0
