"""Small records for tests, each with defaults for what a test does not care about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from grpo.config import AlgorithmConfig
from grpo.records import (
    Completion,
    FinishReason,
    Group,
    JudgedGroup,
    MicroBatch,
    Prompt,
    ScoredGroup,
    Task,
    TrainSequence,
)
from grpo.scoring import score_groups
from rewards.base import Verdict
from rewards.mixture import Gate, TermWeights


def make_completion(
    token_ids: Sequence[int],
    *,
    logprobs: Sequence[float] | None = None,
    finish_reason: FinishReason = FinishReason.STOP,
) -> Completion:
    """A completion of policy version 0; every behavior logprob is -0.5 unless told."""
    return Completion(
        token_ids=np.asarray(token_ids, dtype=np.int64),
        behavior_logprobs=np.asarray([-0.5] * len(token_ids) if logprobs is None else logprobs, dtype=np.float32),
        text=" ".join(map(str, token_ids)),
        finish_reason=finish_reason,
        version_spans=((0, len(token_ids)),),
    )


def make_group(
    completions: Sequence[Completion],
    *,
    uid: int = 0,
    prompt: Sequence[int] = (1, 2),
    domain: str = "code",
    latency_s: float = 1.0,
    num_cached_prompt_tokens: int = 0,
) -> Group:
    """A group of the given completions."""
    task = Task(task_id=f"task/{uid}", domain=domain, messages=(("user", "Write it."),), prefill="", reference={})
    return Group(
        prompt=Prompt(uid=uid, task=task, token_ids=np.asarray(prompt, dtype=np.int64)),
        completions=tuple(completions),
        worker=0,
        latency_s=latency_s,
        num_cached_prompt_tokens=num_cached_prompt_tokens,
    )


def make_verdicts(values: Sequence[float | None]) -> tuple[Verdict, ...]:
    """Valid verdicts; NaN stands for a failed one, None for an absent one."""
    return tuple(
        Verdict.absent() if v is None else Verdict.failed("broke") if math.isnan(v) else Verdict.valid(v)
        for v in values
    )


def make_judged(
    rewards: Sequence[float | None],
    completions: Sequence[Completion] | None = None,
    *,
    others: Mapping[str, Sequence[float | None]] | None = None,
    uid: int = 0,
    prompt: Sequence[int] = (1, 2),
    domain: str = "code",
) -> JudgedGroup:
    """A judged group whose term `unit_tests` gave `rewards`; `others` are further terms."""
    if completions is None:
        completions = [make_completion([3, 4]) for _ in rewards]
    terms = {"unit_tests": rewards, **(others or {})}
    return JudgedGroup(
        group=make_group(completions, uid=uid, prompt=prompt, domain=domain),
        verdicts={name: make_verdicts(values) for name, values in terms.items()},
    )


def make_scored(
    rewards: Sequence[float | None],
    completions: Sequence[Completion] | None = None,
    *,
    config: AlgorithmConfig | None = None,
    weights: Mapping[str, float] | None = None,
    gates: Mapping[str, Gate] | None = None,
    others: Mapping[str, Sequence[float | None]] | None = None,
    uid: int = 0,
    prompt: Sequence[int] = (1, 2),
    max_new_tokens: int = 16,
    kl_penalties: Sequence[float] | None = None,
) -> ScoredGroup:
    """`make_judged`, scored as the only group of its step."""
    [scored] = score_groups(
        [make_judged(rewards, completions, others=others, uid=uid, prompt=prompt)],
        TermWeights(default=weights or {"unit_tests": 1.0}, gates=gates or {}),
        config or AlgorithmConfig(),
        max_new_tokens=max_new_tokens,
        kl_penalties=None if kl_penalties is None else [kl_penalties],
    )
    return scored


def make_sequence(
    prompt: Sequence[int], completion: Sequence[int], *, uid: int = 0, advantage: float = 1.0, start: float = -0.1
) -> TrainSequence:
    """A sequence whose behavior logprobs are `start`, `start` - 0.01, ..."""
    return TrainSequence(
        token_ids=np.asarray([*prompt, *completion], dtype=np.int64),
        num_prompt_tokens=len(prompt),
        behavior_logprobs=np.asarray([start - 0.01 * i for i in range(len(completion))], dtype=np.float32),
        advantage=advantage,
        prompt_uid=uid,
    )


def make_micro_batch(
    behavior: Sequence[float],
    advantages: Sequence[float],
    weights: Sequence[float],
    lengths: Sequence[int] | None = None,
) -> MicroBatch:
    """A micro-batch whose completions share a prompt of one token; only what a loss reads is meaningful.

    Args:
        lengths: loss tokens of each completion; by default there is one.
    """
    length = len(behavior)
    lengths = [length] if lengths is None else lengths
    positions = torch.arange(length + 1)
    return MicroBatch(
        token_ids=positions,
        position_ids=positions,
        bundles=((1, tuple(lengths)),),
        loss_positions=positions[:-1],
        targets=positions[1:],
        behavior_logprobs=torch.tensor(behavior, dtype=torch.float32),
        advantages=torch.tensor(advantages, dtype=torch.float32),
        loss_weights=torch.tensor(weights, dtype=torch.float32),
        sequence_index=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.int64)),
    )
