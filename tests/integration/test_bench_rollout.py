"""`grpo bench rollout` measures the real stack, and its figures are those of what was sampled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch.configuration import load_config
from launch.preparation import prepare_prompts
from tests.integration.runs import ROOT, leftovers

pytestmark = pytest.mark.integration
OVERRIDES = (
    "experiment=tiny_cpu",
    "rollout.group_size=3",
    "rollout.max_new_tokens=9",
    "schedule.max_groups_per_worker=1",
)


@pytest.mark.timeout(600)  # five processes import vLLM
def test_figures_are_those_of_what_was_sampled(tmp_path: Path) -> None:
    target = tmp_path / "rollout.json"
    command = [sys.executable, "-m", "launch.cli", "bench", "rollout", *OVERRIDES]
    done = subprocess.run(
        [*command, "--groups", "5", "--rounds", "2", "--json", str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert target.exists(), done.stdout + done.stderr
    found = json.loads(target.read_text())
    assert done.returncode == (1 if found["missed"] else 0)
    assert f"{found['paired_ratio']:.3f} of bare vLLM" in done.stdout
    assert target.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    _, prompts = prepare_prompts(load_config(list(OVERRIDES)))
    drawn = prompts.take(5)
    asked = found["requests"]
    assert [one["task_id"] for one in asked] == [prompt.task.task_id for prompt in drawn]
    assert [one["num_prompt_tokens"] for one in asked] == [len(prompt.token_ids) for prompt in drawn]
    lengths = [length for one in asked for length in one["lengths"]]
    assert len(lengths) == 5 * 3 and all(1 <= length <= 9 for length in lengths)

    assert set(found["arms"]) == {"keel", "bare vllm"}
    for arm in found["arms"].values():
        assert [one["num_tokens"] for one in arm["rounds"]] == [sum(lengths)] * 2
        assert arm["length"]["max"] == max(lengths) and arm["length"]["mean"] == pytest.approx(sum(lengths) / 15)
        for one in arm["rounds"]:
            assert one["tokens_per_s"] == pytest.approx(sum(lengths) / one["elapsed_s"])
            parts = one["tokens_per_s_over_time"]
            assert sum(parts) * one["elapsed_s"] / len(parts) == pytest.approx(sum(lengths))
            assert arm["latency_s"]["max"] <= max(other["elapsed_s"] for other in arm["rounds"])
        assert set(arm["tokens_per_s_by_worker"]) == {"0", "1"}  # both engines took part
        # Two of a group's three members can find the prompt's whole blocks, and no round the prefixes of another one.
        assert 0 < arm["prefix_cache_hit_rate"] <= 2 / 3
        assert 0 < arm["queue_s"]["p50"] <= arm["first_token_s"]["p50"] <= arm["latency_s"]["p50"]
    assert leftovers(str(tmp_path)) == []
