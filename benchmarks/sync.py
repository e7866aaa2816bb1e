"""How much longer does a weight sync take than the bare broadcast of as many bytes?

Learner ranks with a real Publisher and engines' processes with a real Subscriber, over gloo, without an engine: what
arrives is checked off and dropped. The floor is one broadcast of one flat buffer among the same processes. The weights
are the model's own; before every sync each element is moved by the learning rate, as far as AdamW goes at most. The
engine's load is that of a short training run, and peak memory that of fresh processes, above parameters, in units of
the largest bucket. CPU time is that of all processes together.
"""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import arguments, exit_missed, print_table, train, warn_if_busy, write_json
from measuring import PeakMemory, summary
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor

from grpo.config import SyncBackend
from grpo.models import resolve_model
from grpo.sync.backend import Order
from grpo.sync.channel import Channel, Endpoint, serve_store
from grpo.sync.choice import make_receiver, make_sender
from grpo.sync.packing import empty_flat, num_elements
from grpo.sync.publisher import Publisher
from grpo.sync.subscriber import Subscriber
from launch.configuration import load_config

HOST, CPU, FLOOR = "127.0.0.1", torch.device("cpu"), "bare broadcast"
#: Name of an arm: its backend, and whether every element has to travel.
ARMS = {
    "broadcast": (SyncBackend.broadcast, True),
    "delta": (SyncBackend.delta, False),
    "delta, whole": (SyncBackend.delta, True),
    "disk": (SyncBackend.disk, True),
}
MAX_RATIO = 1.3
MAX_BUCKETS = 2.0
#: The resident set is counted in pages and holds what Python and gloo allocate meanwhile.
SLACK_BUCKETS = 0.1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Participant:
    """One process: a learner rank (the first ones) or an engine's."""

    def __init__(self, rank: int, options: argparse.Namespace, rendezvous: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self.rank, self.options, self.rendezvous = rank, options, rendezvous
        self.receiver = rank - options.ranks
        world_size = options.ranks + options.receivers
        dist.init_process_group(
            "gloo", init_method=f"tcp://{HOST}:{rendezvous['port']}", rank=rank, world_size=world_size
        )
        self.learners = DeviceMesh("cpu", list(range(options.ranks)))
        self.directory = Path(rendezvous["directory"])
        self.serial = 0
        self.ends: dict[SyncBackend, Publisher | Subscriber] = {}
        self.parameters = self._parameters(load_weights(options)) if self.receiver < 0 else {}

    def _parameters(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.options.ranks == 1:
            return weights
        return {name: distribute_tensor(w, self.learners, [Shard(0)]) for name, w in weights.items()}

    def join(self, parameters: dict[str, Tensor], backend: SyncBackend, generation: int) -> Publisher | Subscriber:
        """This process's end of a backend, for as many tensors as `parameters` holds at learner ranks."""
        publisher = Publisher(
            parameters.items(),
            wire_dtype=DTYPES[self.options.dtype],
            bucket_bytes=self.options.bucket_mib << 20,
        )
        shared = [publisher.manifest]
        dist.broadcast_object_list(shared, src=0)
        channel = self._channel(generation) if backend is not SyncBackend.disk else None
        if self.receiver < 0:
            if self.rank == 0:
                sender = make_sender(backend, channel, shared[0], directory=self.directory)
                publisher.attach(sender, CPU)
            return publisher
        rank = 1 + self.receiver
        return Subscriber(make_receiver(backend, channel, shared[0], directory=self.directory, device=CPU, rank=rank))

    def _channel(self, generation: int) -> Channel | None:
        if 0 < self.rank < self.options.ranks:
            return None
        endpoint = replace(self.rendezvous["endpoint"], generation=generation)
        rank = 0 if self.rank == 0 else 1 + self.receiver
        return Channel(endpoint, rank, CPU, local_host=HOST)

    def sync(self, end: Publisher | Subscriber, backend: SyncBackend, whole: bool) -> None:
        """One update, until all have it."""
        self.serial += 1
        order = Order(policy_version=self.serial, serial=self.serial, full=whole)
        if isinstance(end, Publisher):
            end.publish(order)
            self.account = None
        if backend is SyncBackend.disk:
            dist.barrier()
        if isinstance(end, Subscriber):
            deque(end.receive(order), maxlen=0)
            self.account = end.account(order, 0.0)
        dist.barrier()

    def rounds(self, steps: dict[str, Callable[[], None]]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """(wall, this process's CPU) seconds of every step in every round, every other round in the opposite order.

        Weights move before a delta alone: between two of them lies one update of the optimiser, as in training.
        """
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        busy: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(-2, self.options.rounds):
            for name in list(steps) if number % 2 == 0 else reversed(steps):
                if name in ARMS and ARMS[name][0] is SyncBackend.delta:
                    self.move()
                dist.barrier()
                started, busy_before = time.perf_counter(), time.process_time()
                steps[name]()
                if number >= 0:
                    seconds[name].append(time.perf_counter() - started)
                    busy[name].append(time.process_time() - busy_before)
        return seconds, busy

    def move(self) -> None:
        """One update of the optimiser: every element by the learning rate."""
        for parameter in self.parameters.values():
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter  # pyright: ignore[reportAttributeAccessIssue]
            local.add_(torch.empty_like(local).bernoulli_(0.5).mul_(2).sub_(1), alpha=self.options.lr)


def load_weights(options: argparse.Namespace) -> dict[str, Tensor]:
    """The model's parameters in float32, a tied one once."""
    from transformers import AutoModelForCausalLM

    config = load_config([] if options.model is None else [f"model.path={options.model}"])
    model = AutoModelForCausalLM.from_pretrained(resolve_model(config.model), dtype=torch.float32)
    # In memory of their own: pages of a mapped file count when they are first read, as if the sync had taken them.
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def timed(me: Participant) -> dict[str, Any]:
    """Seconds of the floor and of every arm, round by round; at learner rank 0 those of all processes together."""
    backends = dict.fromkeys(ARMS[name][0] for name in me.options.arms)
    ends = {backend: me.join(me.parameters, backend, number) for number, backend in enumerate(backends)}
    some = next(iter(ends.values()))
    shared = [sum(map(num_elements, some.manifest.buckets)) if isinstance(some, Publisher) else 0]
    dist.broadcast_object_list(shared, src=0)
    flat = empty_flat(shared[0], DTYPES[me.options.dtype], CPU).fill_(1)
    traffic: dict[str, list[tuple[int, float | None]]] = {name: [] for name in me.options.arms}

    def floor() -> None:
        dist.broadcast(flat, src=0)
        dist.barrier()

    def arm(name: str) -> Callable[[], None]:
        backend, whole = ARMS[name]

        def step() -> None:
            me.sync(ends[backend], backend, whole)
            if me.account is not None:
                traffic[name].append((me.account.num_bytes, me.account.changed_share))

        return step

    seconds, busy = me.rounds({FLOOR: floor} | {name: arm(name) for name in me.options.arms})
    shares = {name: found[-1] for name, found in traffic.items() if found}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (shares, {name: median(values) for name, values in busy.items()}))
    cpu = {name: sum(theirs[name] for _, theirs in everyone) for name in busy}
    return {"seconds": seconds, "cpu_s": cpu, "traffic": everyone[-1][0], "wire_bytes": flat.nbytes}


def peak(me: Participant, arm: str) -> dict[str, Any]:
    """What learner rank 0 takes above its parameters in one sync (delta: the second, with what it keeps)."""
    backend, whole = ARMS[arm]
    small = {name: torch.zeros(8) for name in "ab"} if me.receiver < 0 else {}
    end = me.join(small, backend, 0)  # loads all libraries, too small for any buffer to be kept from it
    for _ in range(2):
        me.sync(end, backend, whole)
    end = me.join(me.parameters, backend, 1)
    dist.barrier()
    with PeakMemory(CPU) as memory:
        for number in range(1 if whole else 2):
            me.sync(end, backend, whole and number == 0)
    largest = max(map(num_elements, end.manifest.buckets)) if isinstance(end, Publisher) else 1
    bucket_bytes = largest * DTYPES[me.options.dtype].itemsize
    extra = memory.extra_bytes
    return {"extra_bytes": extra, "bucket_bytes": bucket_bytes, "buckets": extra and extra / bucket_bytes}


def participate(rank: int, options: argparse.Namespace, rendezvous: dict[str, Any], arm: str | None) -> None:
    """What each process runs; learner rank 0 writes what came of it."""
    me = Participant(rank, options, rendezvous)
    found = timed(me) if arm is None else peak(me, arm)
    if rank == 0:
        (me.directory / "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def together(options: argparse.Namespace, arm: str | None = None) -> dict[str, Any]:
    """Run all processes to their end; what learner rank 0 found."""
    with tempfile.TemporaryDirectory(prefix="keel-benchmark-") as directory, socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
        probe.close()
        store = serve_store(HOST, 120.0)
        endpoint = Endpoint(host=HOST, port=store.port, world_size=1 + options.receivers, timeout_s=120.0)
        rendezvous = {"port": port, "endpoint": endpoint, "directory": directory}
        mp.spawn(participate, (options, rendezvous, arm), nprocs=options.ranks + options.receivers)
        return json.loads((Path(directory) / "found.json").read_text())


def engine_load(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a sync in a training run with a real engine, from its metrics."""
    model = [] if options.model is None else [f"model.path={options.model}"]
    rows, _ = train(["steps=2", "rollout.max_new_tokens=8", *model])
    return {name: rows[-1][name] for name in ("sync/transfer_s", "sync/load_s", "time/sync_s")}


def parse() -> argparse.Namespace:
    """Options."""
    parser = arguments((__doc__ or "").split("\n")[0], overrides=False)
    parser.add_argument("--model", help="a built-in name, a directory or a Hugging Face id; default: model.path")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16", help="on the wire (default: bfloat16)")
    parser.add_argument("--ranks", type=int, default=1, help="learner ranks (default: 1)")
    parser.add_argument("--receivers", type=int, default=1, help="engine processes (default: 1)")
    parser.add_argument("--bucket-mib", type=int, default=64, help="as sync.bucket_mib (default: 64)")
    parser.add_argument("--lr", type=float, default=1e-6, help="how far each element moves (default: 1e-6)")
    parser.add_argument("--rounds", type=int, default=9, help="medians are taken over so many (default: 9)")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="backends (default: all)")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--no-engine", action="store_true", help="leave out the training run with a real engine")
    return parser.parse_args()


def misses(arms: dict[str, dict[str, Any]]) -> list[str]:
    """The bars that were missed; they are those of a broadcast."""
    missed: list[str] = []
    if (found := arms.get("broadcast")) is None:
        return missed
    if found["ratio"] > MAX_RATIO:
        missed.append(f"a sync takes {found['ratio']:.2f} times the bare broadcast, over {MAX_RATIO}")
    if (buckets := found.get("buckets")) is not None and buckets > MAX_BUCKETS + SLACK_BUCKETS:
        missed.append(f"learner rank 0 takes {buckets:.2f} buckets, over {MAX_BUCKETS:g}")
    return missed


def main() -> None:
    """Time and weigh all backends; exits with 1 where the broadcast is too slow or too large."""
    options = parse()
    measured = together(options)
    arms = summary(measured["seconds"], FLOOR)
    for name, arm in arms.items():
        arm["cpu_s"] = measured["cpu_s"][name]
    for name in options.arms:
        arms[name]["num_bytes"], arms[name]["changed_share"] = measured["traffic"][name]
        arms[name] |= {} if options.no_memory else together(options, name)
    engine = {} if options.no_engine else engine_load(options)
    missed = misses(arms)
    plain = {name: value for name, value in vars(options).items() if name != "json"}
    write_json(
        options.json,
        {"benchmark": "sync", **plain, "wire_bytes": measured["wire_bytes"], "arms": arms, "engine": engine}
        | {"missed": missed},
    )
    rows: list[list[object]] = []
    for name, arm in arms.items():
        num_bytes, share = arm.get("num_bytes", measured["wire_bytes"]), arm.get("changed_share")
        rows.append(
            [
                name,
                f"{arm['median_s'] * 1e3:.0f}",
                arm["ratio"],
                arm["paired_ratio"],
                f"{arm['spread']:.0%}",
                f"{arm['cpu_s'] * 1e3:.0f}",
                f"{num_bytes / 1e6:.1f}",
                "" if share is None else f"{share:.2%}",
                "" if arm.get("buckets") is None else f"{arm['buckets']:.2f}",
            ]
        )
    if engine:
        print("with a real engine, s: " + ", ".join(f"{name} {value:.3f}" for name, value in engine.items()))
    print_table(
        f"Weight sync, {options.dtype}, {options.ranks} learner rank(s), {options.receivers} receiver(s)",
        ["way", "ms", "ratio", "paired", "spread", "CPU ms", "MB sent", "changed", "extra buckets"],
        rows,
    )
    warn_if_busy([arms[FLOOR]["spread"]])
    exit_missed(missed)


if __name__ == "__main__":
    main()
