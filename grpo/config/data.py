"""Where tasks come from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from grpo.config.checks import at_least


class DataSchema(StrEnum):
    """How a row of a data source is read; see docs/data.md."""

    keel = "keel"
    mbpp = "mbpp"
    acecode = "acecode"


class Prefill(StrEnum):
    """What the assistant's turn is started with."""

    none = "none"
    fence = "fence"  #: an opened Python code fence
    signature = "signature"  #: the fence and the function's signature


@dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where tasks come from and how a prompt is made of them."""

    path: str = "builtin:python_tasks"  #: builtin:NAME, a .jsonl/.json/.parquet file, a datasets directory, or a hub id
    schema: DataSchema = DataSchema.keel
    subset: str | None = None  #: Hugging Face configuration name
    split: str = "train"
    domain: str = "code"
    limit: int | None = None  #: keep the first so many tasks
    max_level: int | None = None  #: keep tasks up to this level (keel schema)
    shuffle: bool = True
    system_prompt: str | None = None  #: null keeps the chat template's own default
    prefill: Prefill = Prefill.none
    max_prompt_tokens: int = 512  #: longer prompts are dropped, counted and reported

    def __post_init__(self) -> None:
        at_least("data", self, 1, "limit", "max_level", "max_prompt_tokens")
