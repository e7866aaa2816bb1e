"""Engine and learner agree on logprobs before and after new weights; a corrupted bucket is found and named."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from grpo.cluster import ray_session
from grpo.config import RunConfig
from grpo.data.prompts import PromptStream
from grpo.data.sources import load_tasks
from grpo.errors import SyncError
from grpo.fleet import Fleet
from grpo.models import resolve_model
from grpo.packing import pack
from grpo.records import Group, MicroBatch, TrainSequence
from launch.configuration import load_config
from launch.preparation import prepare_terms
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


def _session(config: RunConfig, tmp_path: Path) -> tuple[Fleet, PromptStream, Path]:
    from transformers import AutoTokenizer

    model_path = resolve_model(config.model)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    prompts = PromptStream(load_tasks(config.data), tokenizer, config.data, seed=0)
    return Fleet(config, "cpu", tmp_path / "logs"), prompts, model_path


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_parity_before_and_after_a_sync_of_changed_weights(tmp_path: Path, temperature: float) -> None:
    config = load_config([*LEARNABLE, "learner.num_ranks=2", "learner.lr=0.05", f"rollout.temperature={temperature}"])
    config.sync.bucket_mib = 1

    async def scenario() -> None:
        fleet, prompts, model_path = _session(config, tmp_path)
        try:
            await fleet.launch(model_path, prepare_terms(config))
            groups = await _sample(fleet, prompts)
            assert await _largest_difference(fleet, groups) <= 1e-3
            batch = _batch(groups, [1.0, -1.0, 1.0, -1.0])
            assert await fleet.train_step([[[batch], [batch]]]) is not None
            assert await _largest_difference(fleet, groups) > 0.05, "the step changed too little to test anything"
            (received,) = await fleet.sync_weights(1)
            assert received.policy_version == 1 and len(received.checksums) > 10
            fresh = await _sample(fleet, prompts)
            assert {c.first_policy_version for g in fresh for c in g.completions} == {1}
            assert await _largest_difference(fleet, fresh) <= 1e-3
        finally:
            await fleet.shutdown()

    with ray_session(config, "cpu"):
        asyncio.run(scenario())


def test_a_corrupted_bucket_is_detected_and_named(tmp_path: Path) -> None:
    extension = "rollout.engine_args={worker_extension_cls: tests.integration.corruption.CorruptingReceiver}"
    config = load_config([*LEARNABLE, extension])
    config.sync.bucket_mib = 1
    config.model.path = str(_wide_model(tmp_path / "model"))

    async def scenario() -> None:
        fleet, _, model_path = _session(config, tmp_path)
        try:
            await fleet.launch(model_path, prepare_terms(config))
            (intact,) = await fleet.sync_weights(0)
            with pytest.raises(SyncError) as caught:
                await fleet.sync_weights(1)
            named = re.search(r"tensor (\S+) arrived corrupted in rollout worker 0", str(caught.value))
            assert named and named[1] in intact.checksums
        finally:
            await fleet.shutdown()

    with ray_session(config, "cpu"):
        asyncio.run(scenario())


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
