"""Forward and backward of the output head against its peers and against the bare matrix products it can't do without.

The yardstick is the time of three products at full size into buffers that are there already (logits, d hidden,
d weight: 6 T H V operations), in the same type and the same run. Peak memory is taken in a fresh process for each arm.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from common import arguments, exit_missed, print_table, versions, warn_if_busy, write_json
from head_arms import ARMS, KEEL, check, prepared
from head_problem import Problem, differentiate, yardstick
from measuring import PeakMemory, in_fresh_process, interleaved, summary

YARDSTICK = "three products"
MAX_RATIO = {"cpu": 1.10, "cuda": 1.20}
MAX_ERROR = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2}
MAX_CUDA_BYTES = 5e9
DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {
        "tokens": [512],
        "width": 896,
        "vocabulary": [32_768, 151_936],
        "dtype": "float32",
        "chunk_tokens": 256,
    },
    "cuda": {
        "tokens": [2048, 8192, 16_384],
        "width": 4096,
        "vocabulary": [128_256],
        "dtype": "bfloat16",
        "chunk_tokens": 4096,
    },
}


def measured_peak(options: argparse.Namespace, device: torch.device) -> dict[str, int | None]:
    """Peak memory of one arm, in this process, which has done nothing else."""
    dtype = getattr(torch, options.dtype)
    how = {"dtype": dtype, "device": device, "chunk_tokens": options.chunk_tokens}
    p = Problem.random(options.tokens[0], options.width, options.vocabulary[0], **how)
    _, loss = prepared(options.arm, p)
    if ARMS[options.arm].compiles:
        differentiate(p, loss)
    small = Problem.random(2 * options.chunk_tokens, 64, 512, **how)
    differentiate(*prepared(options.arm, small))
    p.hidden.grad = p.weight.grad = None
    with PeakMemory(device) as peak:
        differentiate(p, loss)
    return {"extra_bytes": peak.extra_bytes}


def allowed_bytes(p: Problem) -> float:
    """What Keel may take beyond weights and hidden states."""
    if p.hidden.is_cuda:
        return MAX_CUDA_BYTES
    chunk = min(p.chunk_tokens, len(p.hidden)) * len(p.weight) * 4
    return 2 * chunk + p.weight.nbytes


def timed(p: Problem, names: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Times of the yardstick and of every arm on one problem; a peer that it is too large for is left out."""
    steps: dict[str, Any] = {YARDSTICK: yardstick(p)}
    for name in names:
        own, loss = prepared(name, p)
        steps[name] = partial(differentiate, own, loss)
        try:
            steps[name]()
        except torch.OutOfMemoryError:
            if name in KEEL:
                raise
            print(f"{name}: out of memory at T={len(p.hidden)}, V={len(p.weight)}")
            del steps[name]
    return summary(interleaved(steps, rounds=rounds, device=p.hidden.device), YARDSTICK)


def measure(p: Problem, names: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Time and peak memory of every arm on one problem."""
    found = timed(p, names, options.rounds)
    p.hidden.grad = p.weight.grad = None
    shape = {"tokens": len(p.hidden), "width": p.hidden.shape[1], "vocabulary": len(p.weight)}
    shape |= {"dtype": options.dtype, "device": p.hidden.device.type, "chunk-tokens": p.chunk_tokens}
    flags = [part for key, value in shape.items() for part in (f"--{key}", value)]
    for name in found if options.memory else []:
        if name != YARDSTICK:
            found[name] |= in_fresh_process(__file__, ["--arm", name, *flags])
    return found


def misses(found: Mapping[str, Mapping[str, Any]], p: Problem) -> list[str]:
    """The bars that Keel missed on one problem."""
    keel, device = found["keel"], p.hidden.device.type
    where = f"T={len(p.hidden)}, V={len(p.weight)}"
    missed: list[str] = []
    if keel["ratio"] > MAX_RATIO[device]:
        missed.append(f"{where}: {keel['ratio']:.3f} times the products, at most {MAX_RATIO[device]} allowed")
    peers = {name: arm["median_s"] for name, arm in found.items() if name not in (*KEEL, YARDSTICK)}
    missed += [f"{where}: {name} is faster" for name, seconds in peers.items() if seconds < keel["median_s"]]
    extra = keel.get("extra_bytes")
    if extra is not None and extra > allowed_bytes(p):
        missed.append(f"{where}: {extra / 1e6:.0f} MB extra, at most {allowed_bytes(p) / 1e6:.0f} allowed")
    return missed


def show(found: Mapping[str, Mapping[str, Any]], errors: Mapping[str, float], p: Problem) -> None:
    """One table for one problem."""
    rows: list[list[object]] = []
    for name, arm in sorted(found.items(), key=lambda item: item[1]["median_s"]):
        extra = arm.get("extra_bytes")
        times = [f"{arm['median_s'] * 1e3:.1f}", arm["ratio"], arm["paired_ratio"], f"{arm['spread']:.0%}"]
        memory = "" if extra is None else f"{extra / 1e6:.0f}"
        rows.append([name, *times, memory, f"{errors[name]:.0e}" if name in errors else ""])
    kind = str(p.hidden.dtype).removeprefix("torch.")
    print_table(
        f"T={len(p.hidden)}, H={p.hidden.shape[1]}, V={len(p.weight)}, {kind}, chunks of {p.chunk_tokens} tokens; "
        f"{allowed_bytes(p) / 1e6:.0f} MB allowed",
        ["arm", "ms", "ratio", "paired", "spread", "extra MB", "error"],
        rows,
    )


def parse() -> argparse.Namespace:
    """Options, with the defaults of the device."""
    parser = arguments((__doc__ or "").split("\n")[0], overrides=False)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, nargs="+", metavar="T")
    parser.add_argument("--width", type=int, metavar="H")
    parser.add_argument("--vocabulary", type=int, nargs="+", metavar="V")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--chunk-tokens", type=int, metavar="C")
    parser.add_argument("--rounds", type=int, default=9, help="medians are taken over so many (default: 9)")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="keel is always among them")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="time only")
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, value in DEFAULTS[options.device].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main() -> None:
    """Check, time and weigh every arm; exits with 1 where Keel misses a bar."""
    options = parse()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    if options.arm:
        print(json.dumps(measured_peak(options, device)))
        return
    names = [name for name in ARMS if name in ("keel", *options.arms)]
    small = Problem.random(40, 64, 1003, dtype=dtype, device=device, chunk_tokens=16)
    errors, absent = check(names, small, MAX_ERROR[dtype])
    names = [name for name in names if name not in absent]
    shapes: list[dict[str, Any]] = []
    missed = [f"{name}: {absent[name]}" for name in KEEL if name in absent]
    for vocabulary in options.vocabulary if "keel" in names else []:
        for tokens in options.tokens:
            how = {"dtype": dtype, "device": device, "chunk_tokens": options.chunk_tokens}
            p = Problem.random(tokens, options.width, vocabulary, **how)
            found = measure(p, names, options)
            show(found, errors, p)
            missed += misses(found, p)
            shapes.append({"tokens": tokens, "width": options.width, "vocabulary": vocabulary, "arms": found})
    figures = {
        "benchmark": "head",
        "device": options.device,
        "dtype": options.dtype,
        "threads": torch.get_num_threads(),
    }
    figures |= {"chunk_tokens": options.chunk_tokens, "peers": versions("trl", "liger-kernel", "triton")}
    figures |= {"errors": errors, "absent": absent}
    write_json(options.json, figures | {"shapes": shapes, "missed": missed})
    for name, reason in absent.items():
        print(f"{name}: {reason}")
    warn_if_busy(shape["arms"][YARDSTICK]["spread"] for shape in shapes)
    exit_missed(missed)


if __name__ == "__main__":
    main()
