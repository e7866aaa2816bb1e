"""Workers without a training loop, for tests that ask them things one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from grpo.cluster import ray_session
from grpo.config import RunConfig
from grpo.data.prompts import PromptStream
from grpo.data.sources import load_tasks
from grpo.fleet import Fleet
from grpo.models import resolve_model
from launch.preparation import prepare_terms


def with_fleet(config: RunConfig, directory: Path, scenario: Callable[[Fleet, PromptStream], Awaitable[None]]) -> None:
    """Run `scenario` with all workers of a configuration up, their weights those that they loaded themselves."""

    async def session() -> None:
        from transformers import AutoTokenizer

        model_path = resolve_model(config.model)
        tokenizer = AutoTokenizer.from_pretrained(model_path)
        prompts = PromptStream(load_tasks(config.data), tokenizer, config.data, seed=0)
        fleet = Fleet(config, "cpu", directory / "logs")
        try:
            await fleet.launch(model_path, prepare_terms(config))
            await scenario(fleet, prompts)
        finally:
            await fleet.shutdown()

    with ray_session(config, "cpu"):
        asyncio.run(session())
