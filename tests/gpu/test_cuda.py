"""The learner's path on a CUDA device, and a whole run where there are two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from grpo.learner.attention import packed_attention
from grpo.learner.learner import Learner
from grpo.models import resolve_model
from grpo.packing import pack
from grpo.worker_process import free_port
from launch.configuration import load_config
from tests.builders import make_sequence
from tests.integration.runs import LEARNABLE, train

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_packed_attention_agrees_with_the_host(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    bundles = ((7, (5, 3)), (4, (9,)))
    query, key, value = torch.randn(1, 4, 28, 32), torch.randn(1, 2, 28, 32), torch.randn(1, 2, 28, 32)
    expected, _ = packed_attention(torch.nn.Identity(), query, key, value, None, bundles=bundles)
    query, key, value = (t.to("cuda", dtype) for t in (query, key, value))
    found, _ = packed_attention(torch.nn.Identity(), query, key, value, None, bundles=bundles)
    assert (found.float().cpu() - expected).norm() / expected.norm() < tolerance


def _one_step(_: int, port: int, device: str, dtype: str, target: str) -> None:
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    config = load_config([*LEARNABLE, f"model.param_dtype={dtype}"])
    learner = Learner(config, resolve_model(config.model), torch.device(device))
    prompt = [5, 9, 11, 30, 7]
    sequences = [make_sequence(prompt, list(range(20 * i, 21 * i + 4)), advantage=(-1.0) ** i) for i in (1, 2, 3)]
    batch = pack([sequences], [[0.05, 0.05, 0.05]])
    logprobs = learner.logprobs(batch)
    report = learner.train_step([[batch]])
    assert report is not None
    torch.save({"logprobs": logprobs, "grad_norm": report.metrics["learner/grad_norm"]}, target)
    dist.destroy_process_group()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.1)])
def test_a_step_agrees_with_the_host(tmp_path: Path, dtype: str, tolerance: float) -> None:
    found: list[dict[str, torch.Tensor]] = []
    for device, kind in (("cpu", "float32"), ("cuda", dtype)):
        target = tmp_path / f"{device}.pt"
        mp.spawn(_one_step, (free_port("127.0.0.1"), device, kind, str(target)))
        found.append(torch.load(target, weights_only=True))
    host, card = found
    assert (card["logprobs"] - host["logprobs"]).abs().max() < tolerance
    assert card["grad_norm"] == pytest.approx(host["grad_norm"], rel=tolerance)


@pytest.mark.integration
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="an engine and a learner rank need a GPU each")
def test_a_whole_run_over_nccl(tmp_path: Path) -> None:
    run = train(
        tmp_path / "run",
        *LEARNABLE,
        "cluster.device=cuda",
        "model.param_dtype=bfloat16",
        "model.rollout_dtype=bfloat16",
        "learner.lr=0.001",
    )
    assert run.code == 0, run.output
    assert all(row["learner/kl_behavior_policy"] < 0.05 for row in run.metrics)
