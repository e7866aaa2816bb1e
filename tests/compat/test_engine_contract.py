"""What Keel takes for granted of vLLM, with the release that is installed: `make compat` runs it with several."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grpo.config import RunConfig, SyncBackend
from grpo.errors import SyncError
from grpo.models import resolve_model
from grpo.records import Prompt, Task
from grpo.rollout.capabilities import missing_capabilities
from grpo.rollout.engine import Engine, engine_environment
from grpo.sync.backend import Order
from grpo.sync.checksum import verify
from grpo.sync.disk import DiskSender
from grpo.sync.probe import largest_difference
from grpo.sync.publisher import Publisher
from launch.configuration import load_config

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # vLLM is imported into this process; its warnings are its own affair
]
TEMPERATURE = 0.7  # not 1: a prompt's logprobs must not depend on it, a completion's must
PROMPT = tuple(range(11, 43))


def test_nothing_that_is_used_is_missing():
    assert missing_capabilities(["model", "worker_extension_cls", "logprobs_mode"]) == []
    assert missing_capabilities(["no_such_argument"]) == ["AsyncEngineArgs(no_such_argument=...)"]


def test_the_engine_keeps_its_contract(tmp_path: Path):
    config = load_config(["experiment=tiny_cpu", f"rollout.temperature={TEMPERATURE}", "rollout.max_new_tokens=64"])
    model_path = resolve_model(config.model)

    async def scenario() -> None:
        async with _running(config, model_path) as engine:
            model = _on_host(model_path)
            await _samples_with_logprobs_of_what_was_sampled(engine, model)
            assert largest_difference(await engine.score(PROMPT), _logprobs(model, PROMPT, 1.0)) < 1e-3
            await _takes_new_weights(engine, model, tmp_path)
            await _pauses_and_goes_on(engine._llm)
            await _aborts(engine._llm)

    asyncio.run(scenario())


@asynccontextmanager
async def _running(config: RunConfig, model_path: Path) -> AsyncIterator[Engine]:
    root = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    os.environ.update(engine_environment("cpu", 1))
    engine = Engine(config, model_path, "cpu", 0)
    try:
        yield engine
    finally:
        engine.shutdown()


def _on_host(model_path: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).requires_grad_(False)


def _logprobs(model: torch.nn.Module, token_ids: tuple[int, ...], temperature: float) -> np.ndarray:
    logits = model(torch.tensor([token_ids])).logits[0, :-1].double() / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0].numpy()


async def _samples_with_logprobs_of_what_was_sampled(engine: Engine, model: torch.nn.Module) -> None:
    task = Task(task_id="t", domain="d", messages=(("user", "x"),), prefill="", reference={})
    prompt = Prompt(uid=0, task=task, token_ids=np.asarray(PROMPT))
    (group,) = [group async for group in engine.generate([prompt], 7)]
    assert len(group.completions) == engine._config.group_size
    for completion in group.completions:
        tokens = (*PROMPT, *map(int, completion.token_ids))
        expected = _logprobs(model, tokens, TEMPERATURE)[len(PROMPT) - 1 :]
        assert largest_difference(completion.behavior_logprobs, expected) < 1e-3


async def _takes_new_weights(engine: Engine, model: torch.nn.Module, directory: Path) -> None:
    """Through the layerwise reload, and not before they were accepted."""
    before = await engine.score(PROMPT)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    publisher = Publisher(model.named_parameters(), wire_dtype=torch.float32, bucket_bytes=1 << 18)
    publisher.attach(DiskSender(directory, publisher.manifest), torch.device("cpu"))
    await engine.join_sync(SyncBackend.disk, None, str(directory), 1, "127.0.0.1", publisher.manifest)
    order = Order(policy_version=3, serial=1, full=True)
    sent = publisher.publish(order)
    (received,) = await engine.receive_weights(order)
    verify(sent, received, "the engine")
    with pytest.raises(SyncError, match="refuses to sample: policy version 3"):
        await engine.score(PROMPT)
    await engine.accept_weights(order)
    after = await engine.score(PROMPT)
    assert largest_difference(after, before) > 0.1, "the weights changed too little to test anything"
    assert largest_difference(after, _logprobs(model, PROMPT, 1.0)) < 1e-3
    (held,) = await engine.held_checksums()
    common = held.keys() & sent.checksums.keys()
    assert common and all(held[name] == sent.checksums[name] for name in common)


async def _pauses_and_goes_on(llm: Any) -> None:
    """Requests stand still while the engine is paused with mode keep, and go on from where they were."""
    tokens: list[int] = []
    reading = asyncio.create_task(_read(llm, "paused", tokens))
    while len(tokens) < 3:
        await asyncio.sleep(0.01)
    await llm.pause_generation(mode="keep", clear_cache=False)
    await asyncio.sleep(0.5)  # what was on its way arrives
    standing = len(tokens)
    await asyncio.sleep(1.0)
    assert len(tokens) == standing < 200
    await llm.resume_generation()
    assert await reading == "length" and len(tokens) == 200


async def _aborts(llm: Any) -> None:
    tokens: list[int] = []
    reading = asyncio.create_task(_read(llm, "aborted", tokens))
    while len(tokens) < 3:
        await asyncio.sleep(0.01)
    await llm.abort("aborted")
    assert await asyncio.wait_for(reading, 10) == "abort"
    assert len(tokens) < 200


async def _read(llm: Any, request_id: str, tokens: list[int]) -> str | None:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(max_tokens=200, ignore_eos=True, output_kind=RequestOutputKind.DELTA)
    reason = None
    async for output in llm.generate({"prompt_token_ids": list(PROMPT)}, params, request_id):
        tokens += output.outputs[0].token_ids
        reason = output.outputs[0].finish_reason
    return reason
