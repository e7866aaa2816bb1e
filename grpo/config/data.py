"""Where tasks come from: one source, or several with weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from grpo.config.checks import at_least, within
from grpo.errors import ConfigError


class DataSchema(StrEnum):
    """How a row of a data source is read; see docs/data.md."""

    keel = "keel"
    instruction = "instruction"
    mbpp = "mbpp"
    acecode = "acecode"
    humaneval = "humaneval"
    leetcode = "leetcode"
    kodcode = "kodcode"
    exercism = "exercism"
    apps = "apps"
    taco = "taco"
    synthetic1 = "synthetic1"
    magicoder_evol = "magicoder_evol"
    magicoder_oss = "magicoder_oss"
    dolly = "dolly"
    rlhflow = "rlhflow"
    hh = "hh"
    gsm8k = "gsm8k"
    reasoning_gym = "reasoning_gym"


class Prefill(StrEnum):
    """What the assistant's turn is started with."""

    none = "none"
    fence = "fence"  #: an opened Python code fence
    signature = "signature"  #: the fence and the function's signature


@dataclass(slots=True, kw_only=True)
class SourceConfig:
    """One of several sources. What is null here is as `data.*` says."""

    path: str = ""
    weight: float = 1.0  #: raw; the source's share of the prompts is its weight over the sum of all
    schema: DataSchema | None = None
    fields: dict[str, str] | None = None
    subset: str | None = None
    split: str | None = None
    domain: str | None = None
    filters: dict[str, list[str]] | None = None
    limit: int | None = None
    max_level: int | None = None
    streaming: bool | None = None
    system_prompt: str | None = None
    prefill: Prefill | None = None


@dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where tasks come from and how a prompt is made of them."""

    path: str = "builtin:python_tasks"  #: builtin:NAME, a file, a directory, reasoning_gym:NAME, or a hub id
    schema: DataSchema = DataSchema.keel
    fields: dict[str, str] = field(default_factory=dict[str, str])  #: field of the schema -> field of the row
    subset: str | None = None  #: Hugging Face configuration name
    split: str = "train"
    domain: str | None = None  #: null: the schema's own
    filters: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  #: field of the row -> values accepted
    limit: int | None = None  #: keep the first so many tasks
    max_level: int | None = None  #: keep tasks up to this level (keel schema)
    held_out_share: float = 0.0  #: share of the tasks, chosen by a hash of their ids, that training never sees
    held_out: bool = False  #: true: draw from the held out tasks alone
    max_malformed_share: float = 0.01  #: share of malformed rows above which the run stops
    streaming: bool = False  #: read block by block instead of holding all tasks in memory
    shuffle: bool = True
    shuffle_buffer: int = 4096  #: rows of a block when streaming: they are shuffled together and held in memory
    system_prompt: str | None = None  #: null keeps the chat template's own default
    prefill: Prefill = Prefill.none
    max_prompt_tokens: int = 512  #: longer prompts are dropped, counted and reported
    sources: dict[str, SourceConfig] = field(default_factory=dict[str, SourceConfig])  #: several instead of `path`

    def __post_init__(self) -> None:
        at_least("data", self, 1, "limit", "max_level", "max_prompt_tokens", "shuffle_buffer")
        within("data", self, 0.0, 1.0, "max_malformed_share", "held_out_share")
        if self.held_out and not self.held_out_share > 0:
            raise ConfigError(
                "data.held_out", True, "no tasks are held out", "Set data.held_out_share to what the training run has."
            )
        if not self.held_out and self.held_out_share == 1:
            raise ConfigError("data.held_out_share", 1.0, "nothing is left to train on", "Set it below 1.")
        if self.streaming and self.limit is not None:
            raise ConfigError(
                "data.limit", self.limit, "a stream has no first tasks", "Set it to null, or data.streaming=false."
            )
        # By name: the order of keys on a command line must not change a run.
        self.sources = dict(sorted(self.sources.items()))
        if self.sources:
            self._check_sources()

    def one_source(self, name: str) -> DataConfig:
        """The configuration of source `name` alone: its own values where it has them, else these."""
        source = self.sources[name]
        own = {f.name: getattr(source, f.name) for f in fields(source) if f.name != "weight"}
        return replace(self, sources={}, **{key: value for key, value in own.items() if value is not None})

    def _check_sources(self) -> None:
        for name, source in self.sources.items():
            key = f"data.sources.{name}"
            if not source.path:
                raise ConfigError(f"{key}.path", source.path, "a source without tasks", "Set where they are.")
            if not (math.isfinite(source.weight) and source.weight >= 0):
                raise ConfigError(f"{key}.weight", source.weight, "not a weight", "Set a finite number of 0 or more.")
            at_least(key, source, 1, "limit", "max_level")
            self.one_source(name)
        if not any(source.weight for source in self.sources.values()):
            raise ConfigError(
                "data.sources", list(self.sources), "no source has a weight", "Set one above 0; 0 leaves a source out."
            )
