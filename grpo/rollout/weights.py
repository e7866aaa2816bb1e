"""Putting weights into a vLLM model that runs, and reading back what can be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from grpo.sync.checksum import checksum


def load_layerwise(model_runner: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Load checkpoint tensors into a running model through vLLM's layerwise reload.

    Args:
        model_runner: vLLM's, of this worker process.
        weights: name and tensor, all of the checkpoint; each stays as it is until this returns.

    Raises:
        Exception: whatever the model's loader raises. Every layer is whole again then, some new and some old, and the
            next update finds nothing left of this one.
    """
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    model, config = model_runner.model, model_runner.model_config
    with torch.no_grad():
        initialize_layerwise_reload(model)
        try:
            model.load_weights(weights)
            finalize_layerwise_reload(model, config)
        except BaseException:
            # A model left on the meta device would crash the engine instead of reporting.
            _forget_what_waits(model)
            finalize_layerwise_reload(model, config)
            raise
        _repack_tied_head(model)


def held_checksums(model: torch.nn.Module) -> dict[str, int]:
    """Checksums, by checkpoint name, of the parameters that the engine holds just as they were sent.

    That leaves out what it shards, pads or keeps in a layout of its own: on a GPU with one process nothing but a
    padded vocabulary, on a CPU all but embedding and norms.
    """
    return {name: checksum(tensor) for name, tensor in _readable(model)}


def _readable(model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    fused: dict[str, list[str]] = getattr(model, "packed_modules_mapping", {})
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if getattr(module, "tp_size", 1) != 1 or not isinstance(weight, Tensor) or not weight.numel():
            continue
        if hasattr(module, "cpu_linear") and not hasattr(module, "num_embeddings"):
            continue  # packed into blocks
        parent, _, own = path.rpartition(".")
        prefix = f"{parent}." if parent else ""
        parts = fused.get(own)
        sizes = getattr(module, "output_sizes", None)
        if parts is None:
            rows = getattr(module, "org_vocab_size", len(weight))
            yield f"{path}.weight", weight[:rows]
        elif sizes is not None and len(sizes) == len(parts) and sum(sizes) == len(weight):
            for part, tensor in zip(parts, weight.split(sizes), strict=True):
                yield f"{prefix}{part}.weight", tensor


def _forget_what_waits(model: torch.nn.Module) -> None:
    """Drop tensors that wait for the rest of their layer, so that finishing the reload gives it its old weights back.

    They would be loaded then, or with the next update, and fail again.
    """
    from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

    for layer in model.modules():
        waiting = get_layerwise_info(layer)
        waiting.loaded_weights.clear()
        waiting.load_numel = 0


def _repack_tied_head(model: torch.nn.Module) -> None:
    """Refresh the packed copy that the CPU backend keeps of an output head.

    The layerwise reload updates an embedding in place, but a head tied to it receives no weight of its own and so
    keeps computing with the copy packed at start-up: logprobs then drift from the learner's with every update.
    """
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        method: Any = getattr(module, "quant_method", None)
        if hasattr(module, "cpu_linear") and weight is not None and weight.numel():
            method.process_weights_after_loading(module)
