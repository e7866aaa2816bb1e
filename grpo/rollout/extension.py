"""Methods added to vLLM's worker processes (``worker_extension_cls``); called through `collective_rpc`.

The engine's model is repacked after loading (fused projections, blocked layouts), so weights go in through vLLM's
layerwise reload, which undoes and redoes that. Plain ``load_weights`` fails on the CPU backend.
"""

from __future__ import annotations

import pickle
import time
from typing import Any

import torch

from grpo.records import WeightManifest, WeightUpdate
from grpo.sync.channel import Channel, Endpoint
from grpo.sync.subscriber import Subscriber


class WeightReceiver:
    """Mixed into vLLM's worker class; `self.model_runner`, `self.rank` and `self.device` are that worker's."""

    model_runner: Any
    rank: int
    device: torch.device

    def keel_join_channel(self, packed: bytes, first_rank: int, local_host: str) -> None:
        """Join the weight channel as rank ``first_rank + self.rank``; blocks until all members have.

        Args:
            packed: pickled (Endpoint, WeightManifest).
        """
        endpoint: Endpoint
        manifest: WeightManifest
        endpoint, manifest = pickle.loads(packed)
        channel = Channel(endpoint, first_rank + self.rank, torch.device(self.device), local_host=local_host)
        self.keel_subscriber = Subscriber(channel, manifest)

    def keel_receive(self, policy_version: int) -> bytes:
        """Receive one update and load it layer by layer; returns a pickled WeightUpdate."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        started = time.perf_counter()
        model = self.model_runner.model
        with torch.no_grad():
            initialize_layerwise_reload(model)
            try:
                model.load_weights(self.keel_subscriber.receive())
            finally:
                # Also after a failure: a model left on the meta device would crash the engine instead of reporting.
                finalize_layerwise_reload(model, self.model_runner.model_config)
            _repack_tied_head(model)
        elapsed = time.perf_counter() - started
        transfer = self.keel_subscriber.transfer_s
        update = WeightUpdate(
            policy_version=policy_version,
            checksums=dict(self.keel_subscriber.checksums),
            transfer_s=transfer,
            load_s=elapsed - transfer,
        )
        return pickle.dumps(update)

    def keel_output_lengths(self) -> dict[str, int]:
        """Tokens sampled so far, for every request this process decodes. Exact only while the engine is paused."""
        runner = self.model_runner
        requests = getattr(runner, "requests", None)
        if requests is not None:
            return {request_id: len(state.output_token_ids) for request_id, state in requests.items()}
        states = runner.req_states  # of vLLM's second model runner
        totals = states.total_len.gpu.tolist()
        return {i: totals[row] - int(states.prompt_len.np[row]) for i, row in states.req_id_to_index.items()}

    def keel_seed(self, seed: int) -> None:
        """Seed the sampler's global generator (per-request seeds crash vLLM 0.32 on CPU)."""
        torch.manual_seed(seed)


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
