"""Schedules on real engines: logprobs of completions that span many updates, and what a stream of them leaves."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from grpo.config import InFlight
from grpo.data.prompts import PromptStream
from grpo.fleet import Fleet
from grpo.packing import pack
from grpo.records import Group, MicroBatch, TrainSequence
from launch.configuration import load_config
from tests.integration.fleets import with_fleet
from tests.integration.runs import LEARNABLE, start, train, wait_for_step

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("in_flight", "num_updates"), [(InFlight.keep, 50), (InFlight.recompute, 12)])
def test_logprobs_of_completions_that_span_updates(tmp_path: Path, in_flight: InFlight, num_updates: int) -> None:
    """Updates arrive while completions are being decoded; each token's logprob is that of its own weights."""
    config = load_config(
        [
            *LEARNABLE,
            "schedule.mode=async",
            f"schedule.in_flight={in_flight.value}",
            "rollout.max_new_tokens=160",
            "rollout.group_size=2",
            "model.max_length=512",
            "learner.lr=0.005",
        ]
    )

    groups: list[Group] = []

    async def scenario(fleet: Fleet, prompts: PromptStream) -> None:
        async def sample_on() -> None:
            while True:
                group = await fleet.sample(0, prompts.take(1)[0])
                assert group is not None
                groups.append(group)

        await fleet.sync_weights(0)
        await fleet.on_learners("export", str(tmp_path / "0"))
        sampling = [asyncio.create_task(sample_on()) for _ in range(3)]
        for version in range(1, num_updates + 1):
            assert await fleet.train_step([[[_any_batch(version)]]]) is not None
            await fleet.sync_weights(version)
            await fleet.on_learners("export", str(tmp_path / str(version)))
            await asyncio.sleep(0.02)
        while not groups or groups[-1].completions[0].last_policy_version < num_updates:
            await asyncio.sleep(0.05)
        for task in sampling:
            task.cancel()
        await asyncio.gather(*sampling, return_exceptions=True)

    with_fleet(config, tmp_path, scenario)
    spans = [len(c.version_spans) for g in groups for c in g.completions]
    assert max(spans) >= 3, f"no completion spans several updates: {Counter(spans)}"
    models = {v: _load(tmp_path / str(v)) for v in range(num_updates + 1)}
    distances = [
        _distance(models, group, index, in_flight) for group in groups for index in range(len(group.completions))
    ]
    assert max(distances) <= 1e-3, f"{sum(d > 1e-3 for d in distances)} of {len(distances)} differ"


def _any_batch(version: int) -> MicroBatch:
    """Something to learn, so that every version has other weights."""
    rng = np.random.default_rng(version)
    tokens = rng.integers(5, 200, 24)
    sequence = TrainSequence(
        token_ids=tokens,
        num_prompt_tokens=4,
        behavior_logprobs=np.full(20, -5.0, dtype=np.float32),
        advantage=1.0,
        prompt_uid=version,
    )
    return pack([[sequence]], [[1.0 / 20]])


def _load(path: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@torch.no_grad()
def _distance(models: dict[int, torch.nn.Module], group: Group, index: int, in_flight: InFlight) -> float:
    """Largest difference between a completion's logprobs and those of transformers with each token's own weights."""
    completion, prompt = group.completions[index], group.prompt.token_ids
    tokens = torch.from_numpy(np.concatenate([prompt, completion.token_ids]))
    found: list[torch.Tensor] = []
    cache, done, start = None, 0, len(prompt)
    earliest = min(c.first_policy_version for c in group.completions)
    if in_flight is InFlight.keep and completion.first_policy_version > earliest:
        # New weights arrived between two members of the group: the later one found its prompt in the cache.
        done = group.num_cached_prompt_tokens // (len(group.completions) - 1)
        cache = models[earliest](tokens[None, :done], use_cache=True).past_key_values
    for version, count in completion.version_spans:
        model, end = models[version], start + count
        if in_flight is InFlight.recompute:
            cache, done = None, 0  # all of it anew under the new weights
        output = model(tokens[None, done : end - 1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logprobs = torch.log_softmax(output.logits[0, start - 1 - done :].float(), -1)
        found.append(logprobs.gather(1, tokens[start:end, None])[:, 0])
        done, start = end - 1, end
    return float((torch.cat(found) - torch.tensor(completion.behavior_logprobs)).abs().max())


ASYNC = (
    *LEARNABLE,
    "schedule.mode=async",
    "schedule.max_staleness=2",
    "rollout.num_workers=2",
    "rollout.max_new_tokens=48",
    "checkpoint_every=3",
)


def _rows(directory: Path) -> list[dict[str, Any]]:
    """Every completion that a run trained on."""
    files = sorted((directory / "rollouts").glob("*.parquet"))
    columns = ["step", "prompt_uid", "group_index", "first_policy_version", "last_policy_version", "version_spans"]
    return [row for f in files for row in pq.read_table(f, columns=columns).to_pylist()]


@pytest.mark.parametrize("mode", ["one_step_off", "async"])
def test_no_prompt_is_lost_or_trained_twice(tmp_path: Path, mode: str) -> None:
    """A run that is stopped while prompts are in flight, and the run that goes on from its checkpoint."""
    staleness, directory = {"one_step_off": 1, "async": 2}[mode], tmp_path / "run"
    overrides = [*ASYNC, f"schedule.mode={mode}", f"schedule.max_staleness={staleness}"]
    process = start(directory, *overrides, "steps=1000")
    wait_for_step(process, directory, 4)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    checkpoint = max((directory / "checkpoints").glob("step_*"))
    stopped, ledger = (json.loads((checkpoint / "state.json").read_text())[k] for k in ("step", "prompts"))
    last = stopped + 6
    second = train(directory, *overrides, f"steps={last}", f"resume={directory}")
    assert second.code == 0, second.output
    rows = _rows(directory)
    uids = [row["prompt_uid"] for row in rows if row["group_index"] == 0]
    assert len(uids) == last * 4 == len(set(uids)), "a prompt was trained twice"
    assert set(uids) == set(range(last * 4)), "a prompt was lost"
    assert ledger["position"]["drawn"] + len(ledger["closed"]) == stopped * 4
    for row in rows:
        oldest, newest = row["first_policy_version"], row["last_policy_version"]
        assert 0 <= row["step"] - 1 - oldest <= staleness
        assert oldest <= newest < row["step"]
        assert mode == "async" or oldest == newest
    assert all(math.isfinite(m["learner/max_abs_logprob_difference"]) for m in second.metrics)
    assert max(m["staleness/max"] for m in second.metrics) >= 1, "nothing was sampled ahead"


def test_groups_without_signal_are_replaced(tmp_path: Path) -> None:
    """Half of the tasks have a reward that never varies: no step may train on them."""
    file = tmp_path / "tasks.jsonl"
    row = {"prompt": "Write f.", "entry_point": "f", "signature": "def f(x):", "tests": ["assert f(1) == 1"]}
    file.write_text("\n".join(json.dumps({"id": f"t{i}", **row}) for i in range(64)))
    run = train(
        tmp_path / "run",
        *LEARNABLE,
        f"data.path={file}",
        "data.limit=null",
        "data.max_level=null",
        "rollout.group_size=2",
        "rollout.max_new_tokens=2",
        "schedule.replace_without_signal=true",
        "schedule.max_replacements=20",
        "steps=4",
    )
    assert run.code == 0, run.output
    assert [m["reward/zero_variance_share"] for m in run.metrics] == [0.0] * 4
    assert sum(m["sampling/num_dropped"] for m in run.metrics) > 0
    rows = _rows(run.directory)
    uids = [row["prompt_uid"] for row in rows if row["group_index"] == 0]
    assert len(set(uids)) == len(uids) == 16
