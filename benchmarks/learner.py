"""One step of the learner, optimiser included, with the head that Keel has against one that holds all its logits.

The same learner takes both, turn by turn, on packed micro-batches of random tokens. Peak memory is that of a fresh
process for each, above the weights and the optimiser's state.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from common import arguments, exit_missed, print_table, warn_if_busy, write_json
from measuring import PeakMemory, in_fresh_process, interleaved, summary
from torch import Tensor

from grpo.config import AlgorithmConfig
from grpo.kernels.head import HeadLoss, head_loss
from grpo.kernels.objective import objective
from grpo.learner.learner import Learner
from grpo.models import resolve_model
from grpo.packing import pack
from grpo.records import LossTokens, MicroBatch, TrainSequence
from grpo.worker_process import free_port
from launch.configuration import load_config

FUSED, NAIVE = "fused", "naive"
GROUP_SIZE = 4
#: Times of two equal heads differ by so much on a quiet machine.
MAX_RATIO = 1.02
#: Relative difference of the gradient's norm that two heads may have.
MAX_DIFFERENCE = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 3e-2}


def naive_head(
    hidden: Tensor,
    weight: Tensor,
    tokens: LossTokens,
    config: AlgorithmConfig,
    *,
    temperature: float,
    chunk_tokens: int,
    bias: Tensor | None = None,
) -> HeadLoss:
    """What `head_loss` computes, the way it is written: all logits at once, and autograd. `chunk_tokens` is ignored."""
    logprobs_of_all = F.log_softmax(F.linear(hidden, weight, bias).float() / temperature, -1)
    logprobs = logprobs_of_all.gather(1, tokens.targets[:, None])[:, 0]
    with torch.set_grad_enabled(torch.is_grad_enabled() and config.entropy_coefficient > 0):
        entropy = -(logprobs_of_all.exp() * logprobs_of_all).sum(-1)
    loss = (objective(logprobs, entropy, tokens, config).loss * tokens.weights).sum()
    return HeadLoss(loss, logprobs.detach(), entropy.detach())


HEADS = {FUSED: head_loss, NAIVE: naive_head}
#: The CPU preset is cut for 8 GiB; with so few tokens in a pass the optimiser, not the head, sets the peak.
CPU_OVERRIDES = ["learner.micro_batch_tokens=1024", "learner.logits_chunk_tokens=256"]


def micro_batch(max_tokens: int, vocabulary: int, random: np.random.Generator) -> MicroBatch:
    """A full micro-batch: one prompt of an eighth of its tokens, and four completions."""
    num_prompt = max(1, max_tokens // 8)
    length = (max_tokens - num_prompt) // GROUP_SIZE
    prompt = random.integers(vocabulary, size=num_prompt)
    sequences = [
        TrainSequence(
            token_ids=np.concatenate([prompt, random.integers(vocabulary, size=length)]),
            num_prompt_tokens=num_prompt,
            behavior_logprobs=np.full(length, -np.log(vocabulary), dtype=np.float32),
            advantage=float(random.normal()),
            prompt_uid=0,
        )
        for _ in range(GROUP_SIZE)
    ]
    return pack([sequences], [[1.0 / (GROUP_SIZE * length)] * GROUP_SIZE])


def vocabulary_of(learner: Learner) -> int:
    """Width of the output head."""
    head = learner.policy.causal_lm.get_output_embeddings()
    assert head is not None
    return len(head.weight)


@contextmanager
def one_rank(options: argparse.Namespace) -> Iterator[tuple[Learner, list[MicroBatch]]]:
    """A learner that is alone, and what it is to learn from."""
    preset = CPU_OVERRIDES if options.device == "cpu" else []
    model = [] if options.model is None else [f"model.path={options.model}"]
    config = load_config(["learner.num_ranks=1", *preset, *model, *options.overrides])
    backend = "cpu:gloo,cuda:nccl" if options.device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{free_port('127.0.0.1')}", rank=0, world_size=1)
    try:
        learner = Learner(config, resolve_model(config.model), torch.device(options.device))
        random = np.random.default_rng(0)
        vocabulary = vocabulary_of(learner)
        size = config.learner.micro_batch_tokens
        yield learner, [micro_batch(size, vocabulary, random) for _ in range(options.micro_batches)]
    finally:
        dist.destroy_process_group()


def step(learner: Learner, batches: list[MicroBatch], head: str) -> float:
    """One step with that head; the norm of its gradient."""
    with patch("grpo.learner.policy.head_loss", HEADS[head]):
        report = learner.train_step([batches])
    assert report is not None
    return report.metrics["learner/grad_norm"]


def measured_peak(options: argparse.Namespace) -> dict[str, float | None]:
    """Peak memory of a step with one head, and the norm of its gradient."""
    with one_rank(options) as (learner, batches):
        # Makes the optimiser's state and loads all libraries, but is too small for any buffer to be kept from it.
        step(learner, [micro_batch(16, vocabulary_of(learner), np.random.default_rng(1))], options.head)
        with PeakMemory(learner.device) as peak:
            norm = step(learner, batches, options.head)
        return {"extra_bytes": peak.extra_bytes, "total_bytes": peak.total_bytes, "grad_norm": norm}


def timed(options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """(times of both heads, what they were measured on)."""
    with one_rank(options) as (learner, batches):
        steps = {name: lambda name=name: step(learner, batches, name) for name in HEADS}
        found = summary(interleaved(steps, rounds=options.rounds, device=learner.device), NAIVE)
        config = learner.config
        return found, {
            "model": config.model.path,
            "dtype": config.model.param_dtype.value,
            "device": options.device,
            "vocabulary": vocabulary_of(learner),
            "micro_batches": len(batches),
            "tokens": sum(len(b.token_ids) for b in batches),
            "loss_tokens": sum(len(b.targets) for b in batches),
            "logits_chunk_tokens": config.learner.logits_chunk_tokens,
            "threads": torch.get_num_threads(),
        }


def misses(found: dict[str, dict[str, Any]], dtype: str) -> list[str]:
    """The bars that the fused head missed: neither slower nor larger, and the same gradient."""
    fused, naive = found[FUSED], found[NAIVE]
    missed: list[str] = []
    if fused["ratio"] > MAX_RATIO:
        missed.append(f"the fused head takes {fused['ratio']:.3f} times as long")
    if fused["extra_bytes"] is not None and fused["extra_bytes"] > naive["extra_bytes"]:
        missed.append("the fused head takes more memory")
    difference = abs(fused["grad_norm"] / naive["grad_norm"] - 1.0)
    if not difference <= MAX_DIFFERENCE[dtype]:
        missed.append(f"the norms of the gradients differ by {difference:.1e}")
    return missed


def parse() -> argparse.Namespace:
    """Options."""
    parser = arguments((__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", help="a built-in name, a directory or a Hugging Face id; default: model.path")
    parser.add_argument("--micro-batches", type=int, default=1, help="of learner.micro_batch_tokens each (default: 1)")
    parser.add_argument("--rounds", type=int, default=7, help="medians are taken over so many (default: 7)")
    parser.add_argument("--head", choices=list(HEADS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Time and weigh both heads; exits with 1 where the fused one is slower, larger or different."""
    options = parse()
    if options.head:
        print(json.dumps(measured_peak(options)))
        return
    found, measured = timed(options)
    model = [] if options.model is None else ["--model", options.model]
    for name in HEADS:
        flags = ["--device", options.device, "--micro-batches", options.micro_batches, *model]
        found[name] |= in_fresh_process(__file__, ["--head", name, *flags, *options.overrides])
    missed = misses(found, measured["dtype"])
    figures = {"benchmark": "learner", "overrides": options.overrides, **measured}
    write_json(options.json, figures | {"heads": found, "missed": missed})
    rows: list[list[object]] = []
    for name, head in found.items():
        memory = [f"{head[key] / 1e6:.0f}" if head[key] else "" for key in ("extra_bytes", "total_bytes")]
        times = [f"{head['median_s'] * 1e3:.0f}", head["ratio"], head["paired_ratio"], f"{head['spread']:.0%}"]
        rows.append([name, *times, *memory, f"{head['grad_norm']:.5g}"])
    print_table(
        f"A step of {measured['model']} over {measured['tokens']} tokens, {measured['loss_tokens']} in the loss "
        f"(V={measured['vocabulary']})",
        ["head", "ms", "ratio", "paired", "spread", "extra MB", "total MB", "gradient norm"],
        rows,
    )
    warn_if_busy([found[NAIVE]["spread"]])
    exit_missed(missed)


if __name__ == "__main__":
    main()
