"""One learner rank: forward, backward and optimiser over packed micro-batches."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from grpo.config import RunConfig
from grpo.kernels.head import HeadLoss
from grpo.kernels.objective import has_kl_loss, needs_proximal
from grpo.learner import checkpoint
from grpo.learner.optimizer import learning_rate, make_optimizer
from grpo.learner.policy import load_policy, tensor_name
from grpo.learner.totals import StepTotals
from grpo.loss import loss_output, loss_tokens
from grpo.records import FloatArray, LossOutput, MicroBatch, StepReport, WeightUpdate
from grpo.sync.backend import Order, Sender
from grpo.sync.probe import probe_batch
from grpo.sync.publisher import Publisher


class Learner:
    """The policy's shard on this rank. torch.distributed must be initialised before."""

    def __init__(self, config: RunConfig, model_path: Path, device: torch.device) -> None:
        """Load the policy (and the reference, where the KL coefficient asks for one) and set up the optimiser."""
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        self.model_path = model_path
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))

        def load(trainable: bool):
            temperature = config.rollout.temperature
            return load_policy(
                model_path, mesh, config.model, config.learner, temperature=temperature, trainable=trainable
            )

        self.policy = load(True)
        self.reference = load(False) if config.algorithm.kl_coefficient else None
        self.optimizer = make_optimizer(self.policy, config.learner)
        self.publisher = Publisher(
            ((tensor_name(name), p.detach()) for name, p in self.policy.named_parameters()),
            wire_dtype=getattr(torch, config.model.rollout_dtype.value),
            bucket_bytes=config.sync.bucket_mib << 20,
        )
        self.num_updates = 0
        self._stop = threading.Event()
        # Stop requests are agreed on over gloo, so that asking costs no GPU synchronisation.
        self._control_group = dist.new_group(backend="gloo", timeout=timedelta(seconds=config.learner.timeout_s))

    def interrupt(self) -> None:
        """Ask the step in progress to end before its next micro-batch. Safe from another thread."""
        self._stop.set()

    def train_step(self, updates: Sequence[Sequence[MicroBatch]]) -> StepReport | None:
        """One step: an optimiser update for each list of micro-batches.

        Args:
            updates: for each update this rank's micro-batches; as many on every rank.

        Returns:
            The report, or None where the step was interrupted before it changed any weight.
        """
        started = time.perf_counter()
        several = len(updates) > 1 and needs_proximal(self.config.algorithm)
        proximal = self._proximal_logprobs(updates) if several else None
        totals = StepTotals()
        norms: list[float] = []
        skipped = 0
        for number, batches in enumerate(updates):
            for index, batch in enumerate(batches):
                if number == 0 and self._asked_to_stop():
                    self.optimizer.zero_grad()
                    return None
                output = self.backward(batch, None if proximal is None else proximal[number][index])
                totals.add(output)
            norm = self._update()
            norms.append(norm)
            skipped += not math.isfinite(norm)
        metrics = totals.metrics()
        metrics["learner/grad_norm"] = sum(norms) / len(norms)
        metrics["learner/skipped_updates"] = float(skipped)
        metrics["learner/lr"] = self.optimizer.param_groups[0]["lr"]
        num_tokens = sum(len(b.token_ids) for batches in updates for b in batches)
        return StepReport(metrics=metrics, num_tokens=num_tokens, compute_s=time.perf_counter() - started)

    @torch.no_grad()
    def logprobs(self, batch: MicroBatch) -> Tensor:
        """Logprobs of the loss tokens under the current policy, [L], on the host. A collective."""
        return self.policy(batch.to(self.device))[0].cpu()

    @torch.no_grad()
    def reference_logprobs(self, batches: Sequence[MicroBatch]) -> list[FloatArray]:
        """Logprobs of the loss tokens under the reference, [L] for each micro-batch, on the host. A collective."""
        assert self.reference is not None, "there is a reference where algorithm.kl_coefficient is above 0"
        return [self.reference(batch.to(self.device))[0].cpu().numpy() for batch in batches]

    @torch.no_grad()
    def probe(self, token_ids: Sequence[int]) -> FloatArray:
        """Logprobs of all tokens but the first, [T - 1], at temperature 1, as an engine scores a prompt. A collective.

        Args:
            token_ids: [T].
        """
        temperature, self.policy.temperature = self.policy.temperature, 1.0
        try:
            return self.logprobs(probe_batch(token_ids)).numpy()
        finally:
            self.policy.temperature = temperature

    def attach(self, sender: Sender) -> None:
        """Give the sending rank its way to the engines."""
        self.publisher.attach(sender, self.device)

    def publish(self, order: Order) -> WeightUpdate:
        """Send the current weights. A collective; see `Publisher.publish`."""
        return self.publisher.publish(order)

    def save(self, directory: Path) -> None:
        """Write policy, optimiser, schedule position and RNG. A collective."""
        checkpoint.save(directory, self.policy, self.optimizer, num_updates=self.num_updates)

    def load(self, directory: Path) -> None:
        """Read what `save` wrote, on any number of ranks. A collective."""
        self.num_updates = checkpoint.load(directory, self.policy, self.optimizer)

    def export(self, directory: Path) -> None:
        """Write the policy as a Hugging Face model directory. A collective; rank 0 writes."""
        checkpoint.export(directory, self.policy, self.model_path, self.config.model)

    def _asked_to_stop(self) -> bool:
        asked = torch.tensor(int(self._stop.is_set()))
        dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._control_group)
        if asked.item():
            self._stop.clear()
        return bool(asked.item())

    @torch.no_grad()
    def _proximal_logprobs(self, updates: Sequence[Sequence[MicroBatch]]) -> list[list[Tensor]]:
        return [[self.policy(batch.to(self.device))[0] for batch in batches] for batches in updates]

    def backward(self, batch: MicroBatch, proximal: Tensor | None = None) -> LossOutput:
        """Loss of one micro-batch, its gradient added to that of the step. A collective.

        Args:
            proximal: [L] logprobs of the policy at the start of the step; see `loss_tokens`.
        """
        batch, algorithm = batch.to(self.device), self.config.algorithm
        reference = None
        if has_kl_loss(algorithm):
            assert self.reference is not None
            with torch.no_grad():
                reference = self.reference(batch)[0]
        tokens = loss_tokens(batch, proximal=proximal, reference=reference)
        head = HeadLoss(*self.policy(batch, tokens, algorithm))
        head.loss.backward()
        return loss_output(head, tokens, algorithm)

    def _update(self) -> float:
        """Clip, step, zero. A gradient that is not finite changes nothing; its norm is returned as it is."""
        config = self.config
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), config.learner.max_grad_norm)
        norm = float((norm.full_tensor() if isinstance(norm, DTensor) else norm).item())
        if math.isfinite(norm):
            total = config.steps * config.algorithm.updates_per_step
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(config.learner, self.num_updates, total)
            self.optimizer.step()
        self.num_updates += 1
        self.optimizer.zero_grad()
        return norm
