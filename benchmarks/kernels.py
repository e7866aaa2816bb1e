"""What surrounds the head's matrix products: the pass over its rows of logits, and the formulae over single tokens.

The row pass should cost what moving its bytes costs: it is held against a plain copy of the same buffer. Counted is
what has to move, the logits read once and the gradient written once; the second share counts the logits twice, as they
are read where no cache keeps a row. All else has to vanish beside the head's three products.
"""

from __future__ import annotations

import argparse
from functools import partial
from types import ModuleType
from typing import Any

import torch
from common import arguments, exit_missed, print_table, versions, warn_if_busy, write_json
from head_problem import Problem, yardstick
from measuring import Step, interleaved, summary

from grpo.config import AlgorithmConfig, Importance, RatioLevel
from grpo.kernels import advantages, gemm, kl, row
from grpo.records import LossTokens

MIN_CUDA_SHARE = 0.8
MAX_HEAD_SHARE = 0.05
COPY, HEAD = "copy", "three products"
DEFAULTS = {
    "cpu": {"tokens": 512, "width": 896, "vocabulary": 151_936, "dtype": "float32", "chunk_tokens": 256},
    "cuda": {"tokens": 8192, "width": 4096, "vocabulary": 128_256, "dtype": "bfloat16", "chunk_tokens": 4096},
}
GROUP_SIZE = 8
TOKENS_PER_COMPLETION = 64

CONFIGS = {
    "default": AlgorithmConfig(),
    "KL and entropy": AlgorithmConfig(kl_coefficient=0.04, entropy_coefficient=0.001),
}


def row_passes(device: torch.device) -> dict[str, ModuleType]:
    """The implementations that can run here."""
    if device.type != "cuda":
        return {"torch": row}
    from grpo.kernels import fused_row

    return {"triton": fused_row, "torch": row}


def sampled(p: Problem, count: int) -> LossTokens:
    """The first `count` tokens of `p` with all that a loss may ask for, in completions of 64 tokens."""
    tokens = p.tokens(torch.full_like(p.coefficients, -2.0)).slice(0, count)
    index = torch.arange(count, device=p.targets.device) // TOKENS_PER_COMPLETION
    parts = {name: getattr(tokens, name) for name in tokens.__slots__}
    noise = torch.randn(count, device=p.targets.device) * 0.1
    parts |= {"reference": tokens.behavior + noise, "proximal": tokens.behavior - noise}
    return LossTokens(**parts | {"sequence_index": index, "num_sequences": int(index[-1]) + 1})


def measure_rows(p: Problem, rounds: int) -> dict[str, dict[str, Any]]:
    """Time and share of bandwidth of every row pass over one chunk of logits, and of a copy of it."""
    device, dtype = p.hidden.device, gemm.gradient_dtype(p.hidden)
    logits, source, target = (gemm.logits_buffer(p.chunk_tokens, p.weight) for _ in range(3))
    source.normal_(0.0, 2.0)
    tokens = sampled(p, p.chunk_tokens)
    by_logprob = tokens.weights * tokens.advantages
    steps: dict[str, Step] = {COPY: partial(target.copy_, logits)}
    for kind, rows in row_passes(device).items():
        how: dict[str, Any] = {"temperature": 1.0}
        steps[f"statistics, {kind}"] = partial(rows.row_statistics, logits, tokens.targets, **how)
        how["dtype"] = dtype
        steps[f"gradient, {kind}"] = partial(rows.row_gradient, logits, tokens.targets, by_logprob, None, **how)
        for name, config in CONFIGS.items():
            steps[f"loss, {name}, {kind}"] = partial(rows.row_loss, logits, tokens, config, **how)
    reset = partial(logits.copy_, source)
    found = summary(interleaved(steps, rounds=rounds, device=device, warm_up=2, reset=reset), COPY)
    copied = 8 / found[COPY]["median_s"]
    for name, arm in found.items():
        written = 4 if name == COPY else 0 if name.startswith("statistics") else dtype.itemsize
        reread = 4 if name != COPY and written else 0
        per_s = logits.numel() / arm["median_s"]
        arm |= {"bytes_per_s": (4 + written) * per_s, "ns_per_logit": 1e9 / per_s}
        arm["share"] = (4 + written) / arm["median_s"] / copied
        arm["share_read_twice"] = (4 + reread + written) / arm["median_s"] / copied
    return found


def measure_tokens(p: Problem, rounds: int) -> dict[str, dict[str, Any]]:
    """Time of every formula over all tokens of `p`, next to the head's three products over the same tokens."""
    tokens = sampled(p, len(p.targets))
    logprobs, reference = tokens.behavior + 0.05, tokens.reference
    assert reference is not None
    entropy = torch.full_like(logprobs, 1.5)
    rewards = torch.randn(-(-tokens.num_sequences // GROUP_SIZE), GROUP_SIZE, device=logprobs.device)
    valid = torch.ones_like(rewards, dtype=torch.bool)
    sequence = AlgorithmConfig(ratio_level=RatioLevel.sequence, importance=Importance.sequence_mask)
    steps: dict[str, Step] = {
        HEAD: yardstick(p),
        "advantages, group_std": lambda: advantages.group_std(rewards, valid, eps=1e-4),
        "KL, weighted_k3": lambda: kl.weighted_k3(logprobs, reference, tokens.behavior),
    }
    for name, config in {**CONFIGS, "sequence level": sequence}.items():
        steps[f"token loss and derivatives, {name}"] = partial(
            row.objective_gradients, logprobs, entropy, tokens, config
        )
    return summary(interleaved(steps, rounds=rounds, device=p.hidden.device, warm_up=2), HEAD)


def misses(rows: dict[str, dict[str, Any]], formulae: dict[str, dict[str, Any]], device: str) -> list[str]:
    """The bars that were missed."""
    missed: list[str] = []
    for name, arm in rows.items():
        if device == "cuda" and name.endswith("triton") and arm["share"] < MIN_CUDA_SHARE:
            missed.append(f"{name}: {arm['share']:.0%} of the bandwidth of a copy, {MIN_CUDA_SHARE:.0%} wanted")
    for name, arm in formulae.items():
        if name != HEAD and arm["ratio"] > MAX_HEAD_SHARE:
            missed.append(f"{name}: {arm['ratio']:.1%} of the head's products, at most {MAX_HEAD_SHARE:.0%} allowed")
    return missed


def parse() -> argparse.Namespace:
    """Options, with the defaults of the device."""
    parser = arguments((__doc__ or "").split("\n")[0], overrides=False)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, metavar="T", help="tokens of the formulae")
    parser.add_argument("--width", type=int, metavar="H")
    parser.add_argument("--vocabulary", type=int, metavar="V")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--chunk-tokens", type=int, metavar="C", help="rows of logits")
    parser.add_argument("--rounds", type=int, default=15, help="medians are taken over so many (default: 15)")
    options = parser.parse_args()
    for name, value in DEFAULTS[options.device].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main() -> None:
    """Time the row pass and the formulae; exits with 1 where a bar is missed."""
    options = parse()
    how: dict[str, Any] = {"dtype": getattr(torch, options.dtype), "device": torch.device(options.device)}
    p = Problem.random(options.tokens, options.width, options.vocabulary, chunk_tokens=options.chunk_tokens, **how)
    rows, formulae = measure_rows(p, options.rounds), measure_tokens(p, options.rounds)
    missed = misses(rows, formulae, options.device)
    figures = {"benchmark": "kernels", "device": options.device, "threads": torch.get_num_threads()}
    figures |= {name: getattr(options, name) for name in DEFAULTS[options.device]} | versions("triton")
    write_json(options.json, figures | {"rows": rows, "formulae": formulae, "missed": missed})
    print_table(
        f"[C, V] = [{options.chunk_tokens}, {options.vocabulary}] logits against a copy of them",
        ["pass", "ms", "times a copy", "ns/logit", "GB/s", "share", "read twice", "spread"],
        [
            [
                name,
                *(f"{arm['median_s'] * 1e3:.2f}", f"{arm['ratio']:.2f}", arm["ns_per_logit"]),
                *(f"{arm['bytes_per_s'] / 1e9:.0f}", f"{arm['share']:.0%}", f"{arm['share_read_twice']:.0%}"),
                f"{arm['spread']:.0%}",
            ]
            for name, arm in rows.items()
        ],
    )
    print_table(
        f"{options.tokens} tokens, beside the products of their head (H={options.width}, V={options.vocabulary})",
        ["formula", "ms", "share of the head", "spread"],
        [
            [name, arm["median_s"] * 1e3, f"{arm['ratio']:.3%}", f"{arm['spread']:.0%}"]
            for name, arm in formulae.items()
        ],
    )
    warn_if_busy([rows[COPY]["spread"], formulae[HEAD]["spread"]])
    exit_missed(missed)


if __name__ == "__main__":
    main()
