"""Engine and learner agree on logprobs before and after new weights; a corrupted bucket is found and named."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from grpo.data.prompts import PromptStream
from grpo.errors import SyncError, WorkerError
from grpo.fleet import Fleet
from grpo.models import resolve_model
from grpo.packing import pack
from grpo.records import Group, MicroBatch, TrainSequence, WeightUpdate
from launch.configuration import load_config
from tests.integration.fleets import with_fleet
from tests.integration.runs import LEARNABLE

pytestmark = pytest.mark.integration


def _batch(groups: Sequence[Group], advantages: Sequence[float]) -> MicroBatch:
    bundles = [
        [
            TrainSequence(
                token_ids=np.concatenate([g.prompt.token_ids, c.token_ids]),
                num_prompt_tokens=len(g.prompt.token_ids),
                behavior_logprobs=c.behavior_logprobs,
                advantage=a,
                prompt_uid=g.prompt.uid,
            )
            for c, a in zip(g.completions, advantages, strict=True)
        ]
        for g in groups
    ]
    return pack(bundles, [[1.0] * len(b) for b in bundles])


async def _sample(fleet: Fleet, prompts: PromptStream) -> list[Group]:
    groups = [g async for g in fleet.generate(prompts.take(4), [7] * len(fleet.rollouts))]
    return sorted(groups, key=lambda g: g.prompt.uid)


async def _largest_difference(fleet: Fleet, groups: Sequence[Group]) -> float:
    batch = _batch(groups, [0.0] * len(groups[0].completions))
    recomputed: list[torch.Tensor] = await fleet.on_learners("logprobs", batch)
    return float((recomputed[0] - batch.behavior_logprobs).abs().max())


@pytest.mark.parametrize(("backend", "temperature"), [("broadcast", 0.7), ("delta", 1.0), ("disk", 1.0)])
def test_parity_before_and_after_a_sync_of_changed_weights(tmp_path: Path, backend: str, temperature: float) -> None:
    config = load_config(
        [
            *LEARNABLE,
            "learner.num_ranks=2",
            "learner.lr=0.05",
            f"rollout.temperature={temperature}",
            f"sync.backend={backend}",
            "sync.probe_every=1",
        ]
    )
    config.sync.bucket_mib = 1

    async def scenario(fleet: Fleet, prompts: PromptStream) -> None:
        assert fleet.sync_backend == backend
        (first,) = await fleet.sync_weights(0)
        _assert_probed(first)
        groups = await _sample(fleet, prompts)
        assert await _largest_difference(fleet, groups) <= 1e-3
        batch = _batch(groups, [1.0, -1.0, 1.0, -1.0])
        assert await fleet.train_step([[[batch], [batch]]]) is not None
        assert await _largest_difference(fleet, groups) > 0.05, "the step changed too little to test anything"
        (received,) = await fleet.sync_weights(1)
        assert received.policy_version == 1 and len(received.checksums) > 10
        _assert_probed(received)
        assert (received.changed_share is not None) == (backend == "delta")
        fresh = await _sample(fleet, prompts)
        assert {c.first_policy_version for g in fresh for c in g.completions} == {1}
        assert await _largest_difference(fleet, fresh) <= 1e-3
        if backend == "delta":  # nothing has changed since: no element travels
            (same,) = await fleet.sync_weights(2)
            assert (same.num_bytes, same.changed_share) == (0, 0.0)
            assert await _largest_difference(fleet, await _sample(fleet, prompts)) <= 1e-3

    with_fleet(config, tmp_path, scenario)
    assert not (tmp_path / ".sync").exists()


def _assert_probed(update: WeightUpdate) -> None:
    assert update.probe_max_abs_difference is not None and 0 <= update.probe_max_abs_difference <= 1e-3


def _misbehaving(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, attempts: str, **sync: object):
    """A run's configuration in which `tests.integration.corruption.<kind>` receives."""
    monkeypatch.setenv("KEEL_TEST_ATTEMPTS", attempts)
    extension = f"rollout.engine_args={{worker_extension_cls: tests.integration.corruption.{kind}}}"
    config = load_config([*LEARNABLE, extension, *(f"sync.{key}={value}" for key, value in sync.items())])
    config.sync.bucket_mib = 1
    config.model.path = str(_wide_model(tmp_path / "model"))
    return config


@pytest.mark.parametrize("backend", ["broadcast", "delta", "disk"])
def test_a_corrupted_bucket_is_detected_and_named_and_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    config = _misbehaving("CorruptingReceiver", monkeypatch, tmp_path, attempts="2,4,5", backend=backend)

    async def scenario(fleet: Fleet, prompts: PromptStream) -> None:
        (intact,) = await fleet.sync_weights(0)
        (again,) = await fleet.sync_weights(1)  # the second attempt is corrupted, the third arrives
        assert again.policy_version == 1 and again.checksums == intact.checksums
        assert again.num_bytes >= intact.num_bytes and again.changed_share is None, "the other attempt is whole"
        assert len(await _sample(fleet, prompts)) == 4
        with pytest.raises(SyncError) as caught:
            await fleet.sync_weights(2)
        named = re.search(r"tensor (\S+) arrived corrupted in rollout_0, process 0", str(caught.value))
        assert named and named[1] in intact.checksums
        assert "(attempt 2 of 2)" in str(caught.value)
        with pytest.raises(SyncError, match=r"rollout worker 0 refuses to sample: policy version 2"):
            await _sample(fleet, prompts)
        (healed,) = await fleet.sync_weights(3)
        assert healed.checksums == intact.checksums
        assert {c.first_policy_version for g in await _sample(fleet, prompts) for c in g.completions} == {3}

    with_fleet(config, tmp_path, scenario)


def test_an_engine_that_cannot_load_says_why_and_takes_the_next_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _misbehaving("UnloadableReceiver", monkeypatch, tmp_path, attempts="2", retries=0)

    async def scenario(fleet: Fleet, prompts: PromptStream) -> None:
        await fleet.sync_weights(0)
        started = time.monotonic()
        with pytest.raises(SyncError, match=r"rollout worker 0: weight sync, process 0 of this engine, loading:"):
            await fleet.sync_weights(1)
        assert time.monotonic() - started < config.sync.timeout_s / 10, "the sender waited for its time-out"
        with pytest.raises(SyncError, match="refuses to sample"):
            await _sample(fleet, prompts)
        # A stream of groups does not end with an attempt: the next one may arrive.
        waiting = asyncio.create_task(fleet.sample(0, prompts.take(1)[0]))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await fleet.sync_weights(1)
        group = await waiting
        assert group is not None and {c.first_policy_version for c in group.completions} == {1}
        groups = await _sample(fleet, prompts)
        assert await _largest_difference(fleet, groups) <= 1e-3

    with_fleet(config, tmp_path, scenario)


def test_an_engine_with_other_weights_than_were_sent_is_found_by_the_probe_and_the_tensor_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _misbehaving("ForgetfulReceiver", monkeypatch, tmp_path, attempts="2", probe_every=1)

    async def scenario(fleet: Fleet, _: PromptStream) -> None:
        (sound,) = await fleet.sync_weights(0)
        _assert_probed(sound)
        with pytest.raises(SyncError) as caught:
            await fleet.sync_weights(1)
        assert "rollout_0 does not compute what the learner does" in str(caught.value)
        assert "The first tensor that differs is model.norm.weight in its process 0" in str(caught.value)

    with_fleet(config, tmp_path, scenario)


@pytest.mark.chaos
def test_an_engine_killed_in_an_update_ends_it_at_once_and_no_other_engine_samples_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEL_TEST_RANK", "2")
    config = _misbehaving("DyingReceiver", monkeypatch, tmp_path, attempts="2")
    config.rollout.num_workers = 2

    async def scenario(fleet: Fleet, prompts: PromptStream) -> None:
        await fleet.sync_weights(0)
        started = time.monotonic()
        with pytest.raises(WorkerError, match=r"rollout.worker 1"):
            await fleet.sync_weights(1)
        assert time.monotonic() - started < config.sync.timeout_s / 5, "somebody waited for the time-out"
        fleet.rollouts = fleet.rollouts[:1]
        with pytest.raises(SyncError, match="rollout worker 0 refuses to sample: policy version 1"):
            await _sample(fleet, prompts)

    with_fleet(config, tmp_path, scenario)


def _wide_model(directory: Path) -> Path:
    """The tiny model with an MLP wide enough that its weights need more than one bucket of 1 MiB."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = resolve_model(load_config(["experiment=tiny_cpu"]).model)
    config = AutoConfig.from_pretrained(source)
    config.intermediate_size = 2048
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    AutoTokenizer.from_pretrained(source).save_pretrained(directory)
    return directory
