"""TRL's functions, and its trainers without a model: their own methods on tensors that are handed in.

Advantages and losses are methods there and no functions. `__new__` without `__init__` gives an object that has the
methods; the attributes that they read are set by hand, to what a default `GRPOConfig` gives unless a test says more.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

# It sets variables of the environment that workers of other tests would inherit. Without vLLM, which it would import if
# it is there: that takes seconds and warns of versions that it does not know.
with patch.dict(os.environ):
    pytest.importorskip("trl", reason="the dev requirements have it")
    with patch("trl.import_utils.is_vllm_available", lambda *_, **__: False):
        from trl.kernels.chunked_logprob import ChunkedLogProbFunction
        from trl.rewards import get_soft_overlong_punishment
        from trl.trainer.grpo_trainer import GRPOTrainer
        from trl.trainer.rloo_trainer import RLOOTrainer
        from trl.trainer.utils import entropy_from_logits, selective_log_softmax

__all__ = [
    "ChunkedLogProbFunction",
    "RLOOTrainer",
    "entropy_from_logits",
    "generate_and_score",
    "get_soft_overlong_punishment",
    "loss",
    "selective_log_softmax",
]

PAD = 0


class _Model:
    training = True
    is_gradient_checkpointing = False


class _Accelerator(SimpleNamespace):
    """One process: gathering and reducing change nothing."""

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor


_DEFAULTS: dict[str, Any] = {
    # Which model, and on what.
    "accelerator": _Accelerator(device=torch.device("cpu"), num_processes=1, process_index=0, sync_gradients=True),
    "model": _Model(),
    "ref_model": _Model(),
    "aux_loss_enabled": False,
    # The loss.
    "loss_type": "dapo",
    "epsilon_low": 0.2,
    "epsilon_high": 0.2,
    "beta": 0.0,
    "importance_sampling_level": "token",
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "current_gradient_accumulation_steps": 1,
    "max_completion_length": 1,
    "_entropy_bonus_enabled": False,
    "use_adaptive_entropy": False,
    # Sampling by an engine.
    "use_vllm": False,
    "vllm_importance_sampling_correction": True,
    "vllm_importance_sampling_mode": "sequence_mask",
    "vllm_importance_sampling_clip_min": None,
    "vllm_importance_sampling_clip_max": 3.0,
    # Advantages.
    "num_iterations": 1,
    "scale_rewards": "group",
    "multi_objective_aggregation": "sum_then_normalize",
    "normalize_advantages": False,
    "reward_clip_range": None,
    "mask_truncated_completions": False,
    # What a step of text needs.
    "environment_factories": None,
    "environments": None,
    "tools": [],
    "pad_to_multiple_of": None,
    "_tokenizer": SimpleNamespace(pad_token_id=PAD),
    "eos_token_ids": [1],
    "log_multimodal": False,
}
_ARGUMENTS: dict[str, Any] = {
    "use_bias_correction_kl": True,
    "delta": None,
    "steps_per_generation": 1,
    "gradient_accumulation_steps": 1,
    "per_device_train_batch_size": 64,
    "gradient_checkpointing_kwargs": None,
}


def make_trainer(kind: type = GRPOTrainer, **options: Any) -> Any:
    """A trainer with these attributes; those of its arguments go there."""
    trainer: Any = object.__new__(kind)
    arguments = {name: options.pop(name) for name in list(options) if name in _ARGUMENTS}
    trainer.args = SimpleNamespace(**{**_ARGUMENTS, **arguments})
    for name, value in {**_DEFAULTS, **options}.items():
        setattr(trainer, name, value)
    trainer._metrics = {"train": defaultdict(list)}
    trainer._logs = defaultdict(list, rewards=defaultdict(list), extra=defaultdict(list))
    trainer._pending_extra_logs, trainer._pending_metrics = {}, {}
    return trainer


def loss(
    logprobs: Tensor, mask: Tensor, advantages: Tensor, entropy: Tensor, known: Mapping[str, Tensor], **options: Any
) -> Tensor:
    """`_compute_loss` of a micro-batch.

    Args:
        logprobs: [B, T], with gradient.
        mask: [B, T].
        advantages: [B].
        entropy: [B, T].
        known: more of the trainer's inputs.
    """
    trainer = make_trainer(**options)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs, entropy, None)
    size = len(mask)
    inputs = {
        "prompt_ids": torch.ones(size, 1, dtype=torch.int64),
        "prompt_mask": torch.ones(size, 1, dtype=torch.int64),
        "completion_ids": torch.ones_like(mask),
        "completion_mask": mask,
        "advantages": advantages,
        "num_items_in_batch": mask.sum(),
    }
    return trainer._compute_loss(trainer.model, {**inputs, **known})


def generate_and_score(
    rewards: Tensor,
    weights: Sequence[float],
    group_size: int,
    *,
    lengths: Sequence[int] | None = None,
    old: Tensor | None = None,
    reference: Tensor | None = None,
    sampled: Sequence[Sequence[float]] | None = None,
    kind: type = GRPOTrainer,
    **options: Any,
) -> dict[str, Tensor]:
    """`_generate_and_score_completions`, with all that is generated, judged and computed by a model handed in.

    Args:
        rewards: [B, K], NaN where a reward function returned None.
        weights: [K].
        lengths: tokens of each completion; 1 unless given.
        old, reference: [B, T] logprobs of the current policy and of the reference.
        sampled: logprobs by the engine, one list a completion.
    """
    lengths = [1] * len(rewards) if lengths is None else lengths
    names = [f"reward_{k}" for k in range(len(weights))]
    trainer = make_trainer(
        kind,
        num_generations=group_size,
        reward_weights=torch.tensor(weights, dtype=rewards.dtype),
        reward_funcs=names,
        reward_func_names=names,
        **options,
    )
    zeros = torch.zeros(len(rewards), max(lengths), dtype=rewards.dtype)
    found = {trainer.model: zeros if old is None else old, trainer.ref_model: reference}
    completions = [[2] * (length - 1) + [1] for length in lengths]
    trainer._get_per_token_logps_and_entropies = lambda model, *_, **__: (found[model], None, None)
    trainer._calculate_rewards = lambda *_: rewards.clone()
    texts = ["" for _ in lengths]
    generated = [[[1]] * len(lengths), completions, None, texts, sampled, {}, None, []]
    if kind is RLOOTrainer:
        generated = [[[1]] * len(lengths), completions, texts]
    trainer._generate = lambda *_: tuple(generated)
    return trainer._generate_and_score_completions([{"prompt": ""} for _ in lengths])
