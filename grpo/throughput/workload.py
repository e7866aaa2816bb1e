"""What is to be sampled, and what was: the same for every arm of the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from grpo.config import RunConfig
from grpo.errors import ConfigError
from grpo.records import Prompt, RequestTiming


class Lengths(StrEnum):
    """What ends a completion.

    replay: it has the length that Keel sampled for it, with natural ends, in the pass before the first round. All arms
        then decode equally many tokens in equally many completions, so that a ratio says nothing but how fast.
    natural: its own end, as in training. Arms decode different tokens, and a few long completions can make an arm
        look slow.
    """

    replay = "replay"
    natural = "natural"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much is measured.

    Attributes:
        groups: of a round and arm; None: twice what the engines are given at a time.
        rounds: each runs every arm once.
        lengths: what ends a completion.
    """

    groups: int | None = None
    rounds: int = 5
    lengths: Lengths = Lengths.replay

    def __post_init__(self) -> None:
        if self.groups is not None and self.groups < 1:
            raise ConfigError("--groups", self.groups, "there is nothing to sample", "Set 1 or more.")
        if self.rounds < 1:
            raise ConfigError("--rounds", self.rounds, "a ratio takes a round", "Set 1 or more (5 is usual).")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """One group to be sampled.

    Attributes:
        lengths: tokens of each completion, [G]; None: natural ends.
    """

    prompt: Prompt
    lengths: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledGroup:
    """What was measured of one group.

    Attributes:
        worker: index of the engine that sampled it.
        num_prompt_tokens: that its completions asked for, P times G.
        num_cached_tokens: those of them that were in the prefix cache.
        lengths: tokens sampled, [G].
        timings: [G].
    """

    uid: int
    worker: int
    num_prompt_tokens: int
    num_cached_tokens: int
    lengths: tuple[int, ...]
    timings: tuple[RequestTiming, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """All requests through one arm, once.

    Attributes:
        started_s, ended_s: monotonic seconds, of the first request handed over and the last group received.
        groups: in any order.
    """

    started_s: float
    ended_s: float
    groups: tuple[SampledGroup, ...]

    @property
    def elapsed_s(self) -> float:
        """Wall seconds."""
        return self.ended_s - self.started_s

    @property
    def num_tokens(self) -> int:
        """Tokens that were really sampled."""
        return sum(sum(group.lengths) for group in self.groups)

    @property
    def tokens_per_s(self) -> float:
        """Of all engines together."""
        return self.num_tokens / self.elapsed_s


class Arm(Protocol):
    """Engines that can be given requests."""

    async def start(self, model_path: Path) -> None:
        """Load the model. Raises WorkerError."""
        ...

    async def run(self, requests: Sequence[Request], seeds: Sequence[int]) -> Round:
        """Sample all requests with an empty prefix cache; `seeds`, one for each engine. Raises WorkerError."""
        ...

    async def close(self) -> None:
        """End all processes. May be called twice."""
        ...


def measured_config(config: RunConfig, device: str) -> RunConfig:
    """The configuration of the engines of every arm.

    They keep vLLM's statistics of requests, from which latencies come. On GPUs, which both arms hold at the same time,
    each takes half of the memory.
    """
    rollout = config.rollout
    share = rollout.gpu_memory_utilization
    rollout = replace(
        rollout,
        engine_args=rollout.engine_args | {"disable_log_stats": False},
        gpu_memory_utilization=share / 2 if device == "cuda" else share,
    )
    return replace(config, rollout=rollout)


def replayed(requests: Sequence[Request], sampled: Round) -> list[Request]:
    """The requests with the lengths that `sampled` had by itself."""
    lengths = {group.uid: group.lengths for group in sampled.groups}
    return [replace(request, lengths=lengths[request.prompt.uid]) for request in requests]


def groups_per_worker(config: RunConfig) -> int:
    """Groups that an engine is given at a time: one more than it can decode, so that it never waits for the next."""
    rollout = config.rollout
    return config.schedule.max_groups_per_worker or -(-rollout.max_num_seqs // rollout.group_size) + 1
