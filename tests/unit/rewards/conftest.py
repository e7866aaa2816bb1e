"""One sandbox for all tests that don't break it, and short ways to say program and attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rewards.base import Attempt
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.program import Limits, Program, ProgramResult

Run = Callable[..., ProgramResult]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Two slots, shared."""
    with Sandbox(2) as shared:
        yield shared


@pytest.fixture
def run(sandbox: Sandbox) -> Run:
    """Run a source against tests under short limits."""

    def run_source(
        source: str, *tests: str, setup: str = "", cpu_time_s: float = 1.0, wall_time_s: float = 30.0
    ) -> ProgramResult:
        limits = Limits(cpu_time_s=cpu_time_s, wall_time_s=wall_time_s, memory_bytes=128 << 20, output_bytes=1000)
        return sandbox.run(Program(source=source, tests=tests, setup=setup, limits=limits))

    return run_source


@pytest.fixture
def attempt() -> Callable[..., Attempt]:
    """An attempt with the given completion, prefill and reference."""

    def make(completion: str, prefill: str = "", **reference: object) -> Attempt:
        return Attempt(
            prompt=(("user", "Write it."),),
            prefill=prefill,
            completion=completion,
            token_ids=(1, 2, 3),
            reference=reference,
            finish_reason="stop",
            domain="code",
        )

    return make
