"""What vLLM is told about an engine and a request, and what its answer means."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grpo.config import RolloutConfig, RunConfig
from grpo.records import Completion, FinishReason, Prompt, RequestTiming
from grpo.rollout.versions import version_spans


def engine_arguments(config: RunConfig, model_path: Path, device: str) -> dict[str, Any]:
    """Keyword arguments of vLLM's `AsyncEngineArgs`."""
    rollout = config.rollout
    arguments: dict[str, Any] = {
        "model": str(model_path),
        "trust_remote_code": config.model.trust_remote_code,
        "dtype": config.model.rollout_dtype.value,
        "max_model_len": config.model.max_length,
        "tensor_parallel_size": rollout.tensor_parallel_size,
        "distributed_executor_backend": "mp" if rollout.tensor_parallel_size > 1 else None,
        "enforce_eager": rollout.enforce_eager,
        "max_num_seqs": rollout.max_num_seqs,
        "seed": config.seed,
        # Logprobs of the distribution that was sampled from, temperature included: what the loss needs.
        "logprobs_mode": "processed_logprobs",
        "worker_extension_cls": "grpo.rollout.extension.WeightReceiver",
        "enable_prefix_caching": True,
        # Repetition penalties and the like from generation_config.json would bias the ratio in silence.
        "generation_config": "vllm",
        "disable_log_stats": True,
    }
    if rollout.block_size is not None:
        arguments["block_size"] = rollout.block_size
    if device == "cuda":
        arguments["gpu_memory_utilization"] = rollout.gpu_memory_utilization
    else:
        arguments["kv_cache_memory_bytes"] = int(rollout.kv_cache_gib * 2**30)
    return arguments | rollout.engine_args


def sampling_params(
    config: RolloutConfig,
    max_length: int,
    prompt: Prompt,
    stop_token_ids: Sequence[int],
    length: int | None = None,
) -> Any:
    """vLLM's `SamplingParams` of one completion.

    Args:
        max_length: of prompt and completion, in tokens.
        stop_token_ids: from `tokens_containing`.
        length: sample exactly so many tokens, past any end; None: up to the configured limit.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    ends = length is None
    return SamplingParams(
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        max_tokens=min(config.max_new_tokens, max_length - len(prompt.token_ids)) if ends else length,
        stop=(config.stop or None) if ends else None,
        stop_token_ids=(list(stop_token_ids) or None) if ends else None,
        ignore_eos=not ends,
        logprobs=0,
        # Two lists for a completion instead of two objects for each token, over which the garbage collector walks.
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def request_inputs(prompt: Prompt, policy_version: int) -> Any:
    """vLLM's prompt of a request that begins under a policy version."""
    # While requests are running vLLM can't empty its prefix cache. The salt keeps what old weights computed from
    # requests that begin under new ones.
    return {"prompt_token_ids": prompt.token_ids.tolist(), "cache_salt": f"policy {policy_version}"}


def tokens_containing(tokenizer: Any, stops: Sequence[str]) -> list[int]:
    """Vocabulary entries in which a stop string occurs.

    The engine's scheduler acts on a stop token at once; a stop string is found outside it, some tokens late, which
    wastes them and makes the batch's composition, and with it the random numbers, depend on timing.
    """
    if not stops:
        return []
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    return [i for i, text in enumerate(texts) if any(stop in text for stop in stops)]


def leave_out_token_texts(state: Any) -> None:
    """Have vLLM decode a request's text but not, once more, the token of each of its logprobs, which nobody reads.

    That takes most of the time of the process that the outputs pass through, and at some 20,000 tokens/s it would hold
    up the engine.

    Args:
        state: the request's state in the output processor; None where it is done already.
    """
    processor = getattr(state, "logprobs_processor", None)
    if processor is not None:
        processor.tokenizer = None


def completion(output: Any, versions: Sequence[tuple[int, int]]) -> Completion:
    """A finished request's `CompletionOutput` as a record.

    Args:
        versions: as `version_spans` takes them.
    """
    token_ids = list(output.token_ids)
    logprobs = output.logprobs.logprobs  # flat: of the sampled token alone, one a step
    assert len(logprobs) == len(token_ids)
    return Completion(
        token_ids=np.asarray(token_ids, dtype=np.int64),
        behavior_logprobs=np.asarray(logprobs, dtype=np.float32),
        text=output.text,
        finish_reason=FinishReason(output.finish_reason if output.finish_reason in ("stop", "length") else "aborted"),
        version_spans=version_spans(versions, len(token_ids)),
    )


def request_timing(metrics: Any) -> RequestTiming:
    """Times of a finished request from vLLM's `RequestStateStats`; on the machine and soon after it finished."""
    # Admission is the only one that vLLM takes from the wall clock.
    admitted = metrics.arrival_time - time.time() + time.monotonic()
    return RequestTiming(
        admitted_s=admitted,
        scheduled_s=metrics.scheduled_ts,
        first_token_s=metrics.first_token_ts,
        finished_s=metrics.last_token_ts,
    )
