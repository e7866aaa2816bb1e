"""Rounds of all arms by turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grpo.collection.lockstep import engine_seeds
from grpo.config import RunConfig
from grpo.data.prompts import Prompts
from grpo.errors import WorkerError
from grpo.throughput.bare import BareArm
from grpo.throughput.keel import KeelArm
from grpo.throughput.workload import Arm, Lengths, Options, Request, Round, groups_per_worker, measured_config, replayed

KEEL, BARE = "keel", "bare vllm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was asked of all arms, and what each did.

    Attributes:
        requests: of every round.
        rounds: of each arm, in the order in which they ran.
    """

    requests: tuple[Request, ...]
    rounds: Mapping[str, tuple[Round, ...]]


async def measure(
    config: RunConfig,
    device: str,
    model_path: Path,
    prompts: Prompts,
    options: Options,
    log_dir: Path,
    note: Callable[[str], None],
) -> Measurement:
    """Start both arms inside a Ray session, let each warm up, and run the rounds.

    All rounds have the same requests; prefix caches are emptied before each. Every other round runs the arms in the
    opposite order. An arm's engines stay up, idle, while the other one is measured.

    Args:
        note: is told what is being done, a line at a time.

    Raises:
        ConfigError, WorkerError: an arm can't start, died, or did not sample what it was asked for.
    """
    config = measured_config(config, device)
    arms: dict[str, Arm] = {KEEL: KeelArm(config, device, log_dir), BARE: BareArm(config, device, log_dir)}
    num_groups = options.groups or 2 * groups_per_worker(config) * config.rollout.num_workers
    requests = [Request(prompt=prompt, lengths=None) for prompt in prompts.take(num_groups)]
    try:
        for name, arm in arms.items():
            note(f"{name}: starting")
            await arm.start(model_path)
        # The first pass of each arm loads libraries and fills allocators; Keel's also says how long completions are.
        first = await arms[KEEL].run(requests, engine_seeds(config, 1))
        if options.lengths is Lengths.replay:
            requests = replayed(requests, first)
        await arms[BARE].run(requests, engine_seeds(config, 1))
        rounds = await _rounds(arms, config, requests, options.rounds, note)
    finally:
        for arm in arms.values():
            await arm.close()
    return Measurement(requests=tuple(requests), rounds=rounds)


async def _rounds(
    arms: Mapping[str, Arm], config: RunConfig, requests: Sequence[Request], num: int, note: Callable[[str], None]
) -> dict[str, tuple[Round, ...]]:
    done: dict[str, list[Round]] = {name: [] for name in arms}
    for number in range(num):
        for name in arms if number % 2 == 0 else reversed(list(arms)):
            one = await arms[name].run(requests, engine_seeds(config, 2 + number))
            check(name, requests, one)
            done[name].append(one)
        rates = ", ".join(f"{name} {rounds[-1].tokens_per_s:.1f} tokens/s" for name, rounds in done.items())
        note(f"round {number + 1} of {num}: {rates}")
    return {name: tuple(rounds) for name, rounds in done.items()}


def check(name: str, requests: Sequence[Request], sampled: Round) -> None:
    """Raise WorkerError unless an arm sampled each request once, and completions of the lengths that were asked for."""
    by_uid = {group.uid: group for group in sampled.groups}
    if sorted(group.uid for group in sampled.groups) != sorted(request.prompt.uid for request in requests):
        raise WorkerError(f"{name} sampled other groups than it was asked for: {sorted(by_uid)}.")
    for request in requests:
        found = by_uid[request.prompt.uid].lengths
        if request.lengths is not None and found != request.lengths:
            raise WorkerError(
                f"{name} sampled completions of {found} tokens for prompt {request.prompt.uid}, which were to have "
                f"{request.lengths}: the arms can't be compared."
            )
