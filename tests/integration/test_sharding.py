"""The gradient does not depend on how a step is cut into ranks and micro-batches, nor on sharing prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.tensor import DTensor

from grpo.learner.learner import Learner
from grpo.models import resolve_model
from grpo.packing import pack, plan_micro_batches
from grpo.records import TrainSequence
from grpo.worker_process import free_port
from launch.configuration import load_config

pytestmark = pytest.mark.integration
LAYOUTS = [(1, 256, True), (1, 256, False), (1, 60, True), (2, 256, True), (2, 60, True), (2, 48, False)]


def _sequences(share_prompts: bool) -> list[TrainSequence]:
    random = np.random.default_rng(0)
    prompts = [random.integers(5, 300, size=8 + 3 * p) for p in range(3)]
    sequences: list[TrainSequence] = []
    for index in range(9):
        prompt, length = prompts[index // 3], int(random.integers(1, 24))
        sequences.append(
            TrainSequence(
                token_ids=np.concatenate([prompt, random.integers(5, 300, size=length)]),
                num_prompt_tokens=len(prompt),
                behavior_logprobs=random.normal(-5.5, 0.3, size=length).astype(np.float32),
                advantage=float(random.normal()),
                prompt_uid=index // 3 if share_prompts else index,
            )
        )
    return sequences


def _gradients(rank: int, port: int, world: int, max_tokens: int, share_prompts: bool, target: str) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    config = load_config(["experiment=tiny_cpu", "rollout.temperature=0.8", f"learner.num_ranks={world}"])
    learner = Learner(config, resolve_model(config.model), torch.device("cpu"))
    sequences = _sequences(share_prompts)
    weight = 1.0 / sum(s.num_loss_tokens for s in sequences)
    for plan in plan_micro_batches(sequences, num_ranks=world, max_tokens=max_tokens)[rank]:
        bundles = [[sequences[i] for i in bundle] for bundle in plan.bundles]
        learner.backward(pack(bundles, [[0.0 if plan.filler else weight] * len(b) for b in bundles]))
    gradients: dict[str, torch.Tensor] = {}
    for name, parameter in learner.policy.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        gradients[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    if rank == 0:
        torch.save(gradients, target)
    dist.barrier()
    dist.destroy_process_group()


def test_any_layout_gives_the_same_gradient(tmp_path: Path) -> None:
    found: list[dict[str, torch.Tensor]] = []
    for number, (world, max_tokens, share) in enumerate(LAYOUTS):
        target = tmp_path / f"{number}.pt"
        arguments = (free_port("127.0.0.1"), world, max_tokens, share, str(target))
        mp.spawn(_gradients, arguments, nprocs=world)
        found.append(torch.load(target))
    expected = found[0]
    assert all(g.abs().sum() > 0 for g in expected.values())
    for layout, gradients in zip(LAYOUTS[1:], found[1:], strict=True):
        for name, gradient in gradients.items():
            relative = (gradient - expected[name]).norm() / expected[name].norm()
            assert relative <= 1e-5, (layout, name, float(relative))
