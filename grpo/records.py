"""The frozen records that pass between stages: the whole vocabulary of the data path.

Prompt -> Group of Completions -> JudgedGroup -> ScoredGroup -> TrainSequence -> MicroBatch (+ StepDenominator)
-> StepReport.

Shapes: P prompts, G group, T completion tokens, N packed tokens, L loss tokens, S sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rewards.base import Verdict

if TYPE_CHECKING:  # reward workers pass records on and need no torch, which takes 200 MB and seconds to load
    import torch
    from torch import Tensor

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


class FinishReason(StrEnum):
    """Why sampling of a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row of a data source, before tokenisation.

    Attributes:
        task_id: unique within its source.
        domain: e.g. "code"; metrics and mixtures are kept per domain.
        messages: chat messages as (role, content) pairs.
        prefill: text that starts the assistant's turn.
        reference: what rewards need to judge an answer (unit tests, a known answer).
    """

    task_id: str
    domain: str
    messages: tuple[tuple[str, str], ...]
    prefill: str
    reference: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """A task rendered for one model, drawn for one group.

    Attributes:
        uid: position in the draw of the whole run (0, 1, 2, ...); never repeats, unlike `task.task_id`.
        task: the task behind it.
        token_ids: rendered prompt, prefill included, [P].
    """

    uid: int
    task: Task
    token_ids: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """One sampled continuation.

    Attributes:
        token_ids: sampled tokens, the stop token included where one was sampled, [T].
        behavior_logprobs: log-probability of each token under the engine's tempered distribution, nats, [T].
        text: decoded tokens without special tokens and without the stop string.
        version_spans: (policy version, number of tokens) in order: which weights sampled which tokens. One span unless
            weights arrived while it was being decoded.
    """

    token_ids: IntArray
    behavior_logprobs: FloatArray
    text: str
    finish_reason: FinishReason
    version_spans: tuple[tuple[int, int], ...]

    @property
    def first_policy_version(self) -> int:
        """Weights that sampled the first token."""
        return self.version_spans[0][0]

    @property
    def last_policy_version(self) -> int:
        """Weights that sampled the last token."""
        return self.version_spans[-1][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTiming:
    """When one completion was where, seconds on the monotonic clock of the engine's machine.

    Attributes:
        admitted_s: handed to the engine.
        scheduled_s: first in a batch; until then it waited for room.
        first_token_s, finished_s: its first and last token were sampled.
    """

    admitted_s: float
    scheduled_s: float
    first_token_s: float
    finished_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """G completions of one prompt.

    Attributes:
        latency_s: seconds from when the engine was let go to the last completion.
        num_cached_prompt_tokens: prompt tokens the engine found in its prefix cache, summed over the group.
        timings: of each completion, [G]; empty unless the engine keeps statistics of requests, which training does not.
    """

    prompt: Prompt
    completions: tuple[Completion, ...]
    worker: int
    latency_s: float
    num_cached_prompt_tokens: int
    timings: tuple[RequestTiming, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedGroup:
    """A group with what the reward terms say of it, before it is compared with the rest of the step.

    Attributes:
        verdicts: verdicts of each reward term by its name, [G] each.
    """

    group: Group
    verdicts: Mapping[str, tuple[Verdict, ...]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredGroup:
    """A group with its rewards and advantages.

    Attributes:
        verdicts: verdicts of each reward term by its name, [G] each, before any gate; also those that scoring adds,
            "overlong" and "kl".
        num_gated: of each term behind a gate, the valid verdicts that the gate made 0.
        rewards: mixed reward, [G]; NaN where a weighted term failed or none applied.
        advantages: [G]; exact 0 where the reward is invalid or the group holds no signal.
        has_signal: a trained term, or the mixed reward, has two different values among the completions whose mixed
            reward is valid.
    """

    group: Group
    verdicts: Mapping[str, tuple[Verdict, ...]]
    num_gated: Mapping[str, int]
    rewards: FloatArray
    advantages: FloatArray
    has_signal: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainSequence:
    """Prompt and completion as the learner sees them; it never sees a reward.

    Attributes:
        token_ids: prompt then completion, [P + T].
        num_prompt_tokens: P.
        behavior_logprobs: [T].
        advantage: one number for all completion tokens.
        prompt_uid: which prompt it belongs to, for prompt-level aggregation.
    """

    token_ids: IntArray
    num_prompt_tokens: int
    behavior_logprobs: FloatArray
    advantage: float
    prompt_uid: int

    @classmethod
    def of(cls, prompt: Prompt, completion: Completion, *, advantage: float) -> TrainSequence:
        """A completion joined to its prompt."""
        return cls(
            token_ids=np.concatenate([prompt.token_ids, completion.token_ids]),
            num_prompt_tokens=len(prompt.token_ids),
            behavior_logprobs=completion.behavior_logprobs,
            advantage=advantage,
            prompt_uid=prompt.uid,
        )

    @property
    def num_loss_tokens(self) -> int:
        """T, the completion's tokens."""
        return len(self.token_ids) - self.num_prompt_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDenominator:
    """Global counts of one optimiser step over all ranks and micro-batches: the only denominators of the loss.

    Attributes:
        num_sequences: sequences in the step.
        num_tokens: loss tokens in the step.
        num_prompts: prompts (groups) in the step.
    """

    num_sequences: int
    num_tokens: int
    num_prompts: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroBatch:
    """Packed sequences for one forward and backward pass; a prompt that several of them share is there once.

    Attributes:
        token_ids: [N] int64: for each bundle its prompt, then its completions.
        position_ids: [N] int64, each token's position in its own sequence.
        bundles: for each shared prompt (P, (T_1, T_2, ...)): its length and those of its completions; they sum to N.
        loss_positions: [L] int64, index in N of the hidden state that predicts a loss token; the first token of every
            completion is predicted by the last one of the shared prompt. Tokens of weight 0 are not among them.
        targets: [L] int64, those loss tokens.
        behavior_logprobs: [L] float32.
        advantages: [L] float32.
        loss_weights: [L] float32, the aggregation: loss = sum(loss_weights * token_loss) over the whole step.
        sequence_index: [L] int64, which of the micro-batch's completions a loss token belongs to.
    """

    token_ids: Tensor
    position_ids: Tensor
    bundles: tuple[tuple[int, tuple[int, ...]], ...]
    loss_positions: Tensor
    targets: Tensor
    behavior_logprobs: Tensor
    advantages: Tensor
    loss_weights: Tensor
    sequence_index: Tensor

    def to(self, device: torch.device) -> MicroBatch:
        """The same micro-batch on `device`."""
        tensors = {name: value for name in self.__slots__ if hasattr(value := getattr(self, name), "device")}
        return replace(self, **{name: value.to(device) for name, value in tensors.items()})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossTokens:
    """All that the loss knows of its tokens before the output head has run, [L] each.

    Attributes:
        targets: int64, the sampled tokens.
        advantages: float32.
        weights: float32, the aggregation: loss = sum(weights * token_loss) over the whole step.
        behavior: float32, logprobs under the engine that sampled.
        proximal: float32, logprobs under the learner's policy at the start of the step; None where that is the current
            one, so that they come out of this very pass.
        reference: float32, logprobs under the frozen reference; None without a KL term in the loss.
        sequence_index: int64, 0 .. num_sequences - 1, which sequence each token belongs to.
        num_sequences: sequences these tokens belong to.
    """

    targets: Tensor
    advantages: Tensor
    weights: Tensor
    behavior: Tensor
    proximal: Tensor | None
    reference: Tensor | None
    sequence_index: Tensor
    num_sequences: int

    def __len__(self) -> int:
        """L."""
        return len(self.targets)

    def slice(self, start: int, stop: int) -> LossTokens:
        """Tokens `start` to `stop`; views, no copies."""
        tensors = {n: v[start:stop] for n in self.__slots__ if hasattr(v := getattr(self, n), "device")}
        return replace(self, **tensors)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossOutput:
    """Loss of one micro-batch.

    Attributes:
        loss: scalar, already weighted by the global denominator; sum it over micro-batches and ranks.
        sums: metric numerators, scalars by name, to be summed over micro-batches and ranks.
        maxima: metrics combined by maximum.
        minima: metrics combined by minimum.
    """

    loss: Tensor
    sums: Mapping[str, Tensor]
    maxima: Mapping[str, Tensor]
    minima: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a learner rank reports of one step; equal on all ranks but for the times.

    Attributes:
        metrics: `learner/...` quantities, see docs/metrics.md.
        num_tokens: tokens this rank passed forward and backward.
        compute_s: seconds of forward, backward and optimiser on this rank.
    """

    metrics: Mapping[str, float]
    num_tokens: int
    compute_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, shape and dtype of one tensor on the wire."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """The packing both sides of a weight sync agreed on: tensors in order, cut into buckets.

    Attributes:
        buckets: tensor specs of each bucket, in the order they travel.
    """

    buckets: tuple[tuple[TensorSpec, ...], ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of one full update."""
        import torch

        return sum(s.num_elements * getattr(torch, s.dtype).itemsize for bucket in self.buckets for s in bucket)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightUpdate:
    """One side's account of one finished weight update.

    Attributes:
        policy_version: the version delivered.
        checksums: checksum of every tensor by name, as sent or as received.
        transfer_s: seconds on the wire, gathering included.
        load_s: seconds the engine took to load (0 on the sending side).
        num_bytes: that arrived (0 on the sending side).
        changed_share: of the elements that the sender compared with the last update, those that differ; None where it
            compared none.
        probe_max_abs_difference: nats; largest difference between engine and learner over the tokens of the probe;
            None where this update was not probed.
    """

    policy_version: int
    checksums: Mapping[str, int]
    transfer_s: float
    load_s: float
    num_bytes: int = 0
    changed_share: float | None = None
    probe_max_abs_difference: float | None = None
