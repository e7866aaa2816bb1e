"""The gradient does not depend on how a step is cut into ranks and micro-batches, nor on sharing prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode

from grpo.learner.learner import Learner
from grpo.models import resolve_model
from grpo.packing import pack, plan_micro_batches
from grpo.records import TrainSequence
from grpo.worker_process import free_port
from launch.configuration import load_config

pytestmark = pytest.mark.integration
#: (ranks, tokens of a micro-batch, prompts shared); the first is the whole step in one pass.
LAYOUTS = [(1, 256, True), (1, 256, False), (1, 60, True), (2, 256, True), (2, 60, True), (2, 48, False)]
#: A loss that needs its whole sequences, with every term that has a gradient, in chunks of a few tokens.
SEQUENCE_LEVEL = (
    "algorithm=gspo",
    "algorithm.clip_high=2",
    "algorithm.clip_low=0.9",
    "algorithm.ratio_to=behavior",
    "algorithm.importance=none",
    "algorithm.entropy_coefficient=0.05",
    "learner.logits_chunk_tokens=7",
)


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


def _gradients(
    rank: int, port: int, world: int, max_tokens: int, share_prompts: bool, overrides: tuple[str, ...], target: str
) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    config = load_config(["experiment=tiny_cpu", "rollout.temperature=0.8", f"learner.num_ranks={world}", *overrides])
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


@pytest.mark.parametrize(("overrides", "layouts"), [((), LAYOUTS), (SEQUENCE_LEVEL, [LAYOUTS[0], LAYOUTS[4]])])
def test_any_layout_gives_the_same_gradient(
    tmp_path: Path, overrides: tuple[str, ...], layouts: list[tuple[int, int, bool]]
) -> None:
    found: list[dict[str, torch.Tensor]] = []
    for number, (world, max_tokens, share) in enumerate(layouts):
        target = tmp_path / f"{number}.pt"
        arguments = (free_port("127.0.0.1"), world, max_tokens, share, overrides, str(target))
        mp.spawn(_gradients, arguments, nprocs=world)
        found.append(torch.load(target))
    expected = found[0]
    assert all(g.abs().sum() > 0 for g in expected.values())
    for layout, gradients in zip(layouts[1:], found[1:], strict=True):
        for name, gradient in gradients.items():
            relative = (gradient - expected[name]).norm() / expected[name].norm()
            assert relative <= 1e-5, (layout, name, float(relative))


def _collectives(rank: int, port: int, target: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    config = load_config(["experiment=tiny_cpu", "learner.num_ranks=2"])
    learner = Learner(config, resolve_model(config.model), torch.device("cpu"))
    sequences = _sequences(share_prompts=True)
    batch = pack([sequences[:3]], [[0.1] * 3])
    counts: list[dict[str, int]] = []
    for chunk_tokens in (1000, 3):
        learner.policy.logits_chunk_tokens = chunk_tokens
        with CommDebugMode() as communication:
            learner.backward(batch)
        counts.append({str(how): number for how, number in communication.get_comm_counts().items()})
    if rank == 0:
        torch.save(counts, target)
    dist.barrier()
    dist.destroy_process_group()


def test_the_head_is_gathered_and_reduced_once_whatever_its_chunks(tmp_path: Path) -> None:
    target = tmp_path / "counts.pt"
    mp.spawn(_collectives, (free_port("127.0.0.1"), str(target)), nprocs=2)
    whole, chunks = torch.load(target)
    assert sum(number for how, number in whole.items() if "reduce_scatter" in how) > 0
    assert chunks == whole
