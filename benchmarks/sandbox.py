"""How many programs a second does the sandbox judge, against a bare interpreter started for each program?

Both get the same small programs with three asserts each, from as many threads as there are slots. The bare arm,
`python -I -S`, isolates nothing and lets the program judge itself. Further arms leave one layer out: what it costs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from common import arguments, exit_missed, print_table, versions, warn_if_busy, write_json

from rewards.sandbox.pool import Sandbox
from rewards.sandbox.program import Kind, Program
from rewards.sandbox.survey import Layer

MIN_RATIO = 3.0
SANDBOX, BARE = "sandbox", "python -I -S"
NAMESPACES = (Layer.MOUNT_NAMESPACE, Layer.PID_NAMESPACE, Layer.NETWORK_NAMESPACE, Layer.IPC_NAMESPACE)
LEFT_OUT = {
    "without namespaces": NAMESPACES,
    "without Landlock": (Layer.FILE_ACCESS,),
    "without seccomp": (Layer.SYSTEM_CALLS,),
}

PROGRAMS = (
    (
        "def f(xs):\n    return sorted(set(xs))",
        ("assert f([3, 1, 3]) == [1, 3]", "assert f([]) == []", "assert f([2, 2]) == [2]"),
    ),
    (
        "def f(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a",
        ("assert f(10) == 55", "assert f(0) == 0", "assert f(200) == 280571172992510140037611932413038677189525"),
    ),
    (
        "import re\ndef f(s):\n    return re.sub(r'[aeiou]', '', s)",
        ("assert f('banana') == 'bnn'", "assert f('') == ''", "assert f('xyz') == 'xyz'"),
    ),
    (
        "def f(n):\n    return [p for p in range(2, n) if all(p % q for q in range(2, int(p ** 0.5) + 1))]",
        ("assert f(20) == [2, 3, 5, 7, 11, 13, 17, 19]", "assert f(2) == []", "assert len(f(1000)) == 168"),
    ),
    (
        "from collections import Counter\ndef f(words):\n    return Counter(words).most_common(1)[0]",
        ("assert f(['a', 'b', 'a']) == ('a', 2)", "assert f(['x']) == ('x', 1)", "assert f('aab')[1] == 2"),
    ),
    (
        "def f(m):\n    return [list(row) for row in zip(*m)]",
        ("assert f([[1, 2], [3, 4]]) == [[1, 3], [2, 4]]", "assert f([]) == []", "assert f([[1]]) == [[1]]"),
    ),
)

Judge = Callable[[str, tuple[str, ...]], bool]


@dataclass(slots=True)
class Arm:
    """A way to judge a program, and what was measured of it."""

    judge: Judge
    rates: list[float] = field(default_factory=list[float])
    latencies_s: list[float] = field(default_factory=list[float])

    def percentile(self, share: float) -> float:
        """Latency in milliseconds."""
        ordered = sorted(self.latencies_s)
        return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def figures(self) -> dict[str, float]:
        """Medians over rounds."""
        quarters = statistics.quantiles(self.rates, n=4)
        rate = statistics.median(self.rates)
        spread = (quarters[2] - quarters[0]) / rate
        return {"per_s": rate, "p50_ms": self.percentile(0.5), "p99_ms": self.percentile(0.99), "spread": spread}


def bare(source: str, tests: tuple[str, ...]) -> bool:
    """One interpreter for one program; no isolation, and the program judges itself."""
    text = "\n".join((source, *tests)).encode()
    return (
        subprocess.run([sys.executable, "-I", "-S", "-"], input=text, capture_output=True, check=False).returncode == 0
    )


def sandboxed(sandbox: Sandbox) -> Judge:
    """The same through `sandbox`."""
    return lambda source, tests: sandbox.run(Program(source=source, tests=tests)).kind is Kind.PASSED


def run_round(arm: Arm, count: int, slots: int) -> None:
    """Judge `count` programs from `slots` threads. Raises SystemExit if a verdict is wrong."""
    programs = list(itertools.islice(itertools.cycle(PROGRAMS), count))

    def timed(program: tuple[str, tuple[str, ...]]) -> float:
        start = time.perf_counter()
        if not arm.judge(*program):
            raise SystemExit(f"a correct program did not pass: {program[0]!r}")
        return time.perf_counter() - start

    with ThreadPoolExecutor(slots) as callers:
        start = time.perf_counter()
        latencies = list(callers.map(timed, programs))
        arm.rates.append(count / (time.perf_counter() - start))
    arm.latencies_s += latencies


def measure(rounds: int, count: int, slots: int) -> dict[str, Arm]:
    """Every arm once a round."""
    with ExitStack() as stack:
        arms = {SANDBOX: Arm(sandboxed(stack.enter_context(Sandbox(slots)))), BARE: Arm(bare)}
        for name, layers in LEFT_OUT.items():
            opened = stack.enter_context(Sandbox(slots, without=layers, allow_unsafe=True))
            arms[name] = Arm(sandboxed(opened))
        for arm in arms.values():
            run_round(Arm(arm.judge), 2 * len(PROGRAMS), slots)  # warm
        for number in range(rounds):
            order: Sequence[str] = list(arms) if number % 2 == 0 else list(reversed(arms))
            for name in order:
                run_round(arms[name], count, slots)
            print(f"round {number + 1} of {rounds}: " + ", ".join(f"{n} {a.rates[-1]:.0f}/s" for n, a in arms.items()))
        return arms


def main(options: argparse.Namespace) -> None:
    """Measure, print, compare with the bar."""
    arms = measure(options.rounds, options.programs, options.slots)
    figures = {name: arm.figures() for name, arm in arms.items()}
    paired = [ours / theirs for ours, theirs in zip(arms[SANDBOX].rates, arms[BARE].rates, strict=True)]
    ratio = statistics.median(paired)
    write_json(
        options.json,
        {
            "benchmark": "sandbox",
            "command_line": sys.argv,
            "versions": versions("numpy"),
            "slots": options.slots,
            "cpus": os.cpu_count(),
            "load": os.getloadavg(),
            "paired_ratio": ratio,
            "paired_ratios": paired,
            "arms": figures,
        },
    )
    warn_if_busy([figures[BARE]["spread"]])
    base = figures[BARE]["per_s"]
    rows = [[name, f["per_s"], f["per_s"] / base, f["p50_ms"], f["p99_ms"], f["spread"]] for name, f in figures.items()]
    columns = ["arm", "programs/s", "ratio", "p50 ms", "p99 ms", "spread"]
    print_table(f"{options.slots} slots, {len(os.sched_getaffinity(0))} CPUs, paired ratio {ratio:.2f}", columns, rows)
    exit_missed([f"{ratio:.2f} times the bare interpreter, not {MIN_RATIO}"] if ratio < MIN_RATIO else [])


if __name__ == "__main__":
    parser = arguments(str(__doc__).partition("\n")[0], overrides=False)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--programs", type=int, default=120, help="programs a round and arm")
    parser.add_argument("--slots", type=int, default=2)
    main(parser.parse_args())
