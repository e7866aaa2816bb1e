"""Real reward workers under terms that hang, die, raise and talk nonsense: failed verdicts, and it goes on."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from grpo.config import RewardConfig
from grpo.records import JudgedGroup
from grpo.reward_stage import RewardStage, Worker, kill, plan_pools
from grpo.reward_worker import RewardWorker, TermSpec
from rewards import registry
from rewards.base import Outcome
from tests.builders import make_completion, make_group
from tests.chaos import misbehaviour
from tests.conftest import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.chaos]
START_TIMEOUT_S = 60.0


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    packages = tmp_path_factory.mktemp("packages")
    misbehaviour.install(packages)
    sys.path.append(str(packages))
    path = os.pathsep.join([str(ROOT), str(packages)])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": path}},
        object_store_memory=80 << 20,
    )
    yield
    ray.shutdown()
    sys.path.remove(str(packages))


def judged(
    tmp_path: Path,
    num_groups: int = 1,
    *,
    times: int = 1000,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
    **config: Any,
) -> list[JudgedGroup]:
    """Groups of three completions, judged all at once by the terms of `config`."""
    reward = RewardConfig(**config)
    stage = RewardStage(reward, START_TIMEOUT_S)

    async def run() -> list[JudgedGroup]:
        for plan in plan_pools(reward):
            terms = {name: spec(reward, name, tmp_path, times) for name in plan.terms}
            workers = stage.add(plan, lambda i, plan=plan, terms=terms: spawn(terms, tmp_path / f"{plan.name}_{i}.log"))
            await asyncio.gather(*(w.start.remote() for w in workers))
        groups = [make_group([make_completion([3, 4])] * 3, uid=uid) for uid in range(num_groups)]
        judging = [asyncio.create_task(stage.judge(group)) for group in groups]
        if meanwhile is not None:
            await meanwhile()
        return await asyncio.gather(*judging)

    try:
        return asyncio.run(run())
    finally:
        kill(stage.release())


def spawn(terms: dict[str, TermSpec], log: Path) -> Worker:
    return ray.remote(num_cpus=0)(RewardWorker).remote(terms, str(log))


def spec(reward: RewardConfig, name: str, directory: Path, times: int) -> TermSpec:
    kind = reward.term(name).kind or name
    settings = registry.settings_of(kind, {"directory": str(directory), "times": times}, "settings")
    return TermSpec(kind=kind, settings=settings)


def values(group: JudgedGroup, term: str) -> list[float]:
    return [verdict.value for verdict in group.verdicts[term]]


def reasons(group: JudgedGroup, term: str) -> set[str]:
    assert all(verdict.outcome is Outcome.FAILED for verdict in group.verdicts[term])
    assert all(math.isnan(verdict.value) for verdict in group.verdicts[term])
    return {verdict.reason for verdict in group.verdicts[term]}


def test_a_term_that_hangs_once_is_stopped_and_asked_again(tmp_path: Path) -> None:
    weights = {"steady": 1.0, "sleepy": 1.0}
    terms = {"sleepy": {"timeout_s": 1.0}}
    groups = judged(tmp_path, 3, times=1, weights=weights, terms=terms)
    assert [values(group, "sleepy") for group in groups] == [[0.5] * 3] * 3
    assert [values(group, "steady") for group in groups] == [[0.5] * 3] * 3


def test_a_term_that_always_hangs_fails_and_holds_up_nobody(tmp_path: Path) -> None:
    weights = {"steady": 1.0, "sleepy": 0.0}
    terms = {"sleepy": {"timeout_s": 0.5, "retries": 0}}
    groups = judged(tmp_path, 2, weights=weights, terms=terms)
    assert [reasons(group, "sleepy") for group in groups] == [{"timeout"}] * 2
    assert [values(group, "steady") for group in groups] == [[0.5] * 3] * 2


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    groups = judged(tmp_path, 3, times=1, weights={"deadly": 1.0, "steady": 1.0}, retries=0)
    assert [values(group, "deadly") for group in groups] == [[0.5] * 3] * 3
    assert [values(group, "steady") for group in groups] == [[0.5] * 3] * 3


def test_a_term_that_kills_every_worker_fails(tmp_path: Path) -> None:
    (group,) = judged(tmp_path, weights={"deadly": 1.0}, terms={"deadly": {"num_workers": 1}}, retries=0)
    assert reasons(group, "deadly") == {"worker_died"}


def test_a_worker_killed_from_outside_is_replaced(tmp_path: Path) -> None:
    async def murder() -> None:
        while not list(tmp_path.glob("Sleepy-*")):
            await asyncio.sleep(0.01)
        workers = [p for p in psutil.Process().children(recursive=True) if "ray::RewardWorker" in " ".join(p.cmdline())]
        assert workers
        for process in workers:
            process.kill()

    (group,) = judged(tmp_path, times=1, meanwhile=murder, weights={"sleepy": 1.0}, retries=0)
    assert values(group, "sleepy") == [0.5] * 3


@pytest.mark.parametrize(("kind", "reason"), [("raising", "KeyError"), ("untidy", "malformed_verdicts")])
def test_a_term_with_a_bug_fails_by_name(tmp_path: Path, kind: str, reason: str) -> None:
    (group,) = judged(tmp_path, weights={kind: 1.0})
    assert reasons(group, kind) == {reason}
    assert kind in (tmp_path / "reward_0.log").read_text()


def test_what_was_valid_the_first_time_stays(tmp_path: Path) -> None:
    (once,) = judged(tmp_path, times=1, weights={"partial": 1.0})
    assert values(once, "partial") == [0.25, 0.5, 0.25]


def test_nan_is_a_failure(tmp_path: Path) -> None:
    (group,) = judged(tmp_path, weights={"partial": 1.0}, retries=0)
    assert group.verdicts["partial"][1].reason == "reward is nan"
    assert group.verdicts["partial"][1].outcome is Outcome.FAILED


def test_terms_do_not_queue_behind_one_another(tmp_path: Path) -> None:
    (group,) = judged(tmp_path, times=1, weights={"waiting": 1.0, "patient": 1.0})
    assert values(group, "waiting") == [0.5] * 3


def test_an_asynchronous_term_has_several_groups_in_hand(tmp_path: Path) -> None:
    groups = judged(tmp_path, 4, times=4, weights={"patient": 1.0}, terms={"patient": {"concurrency": 4}})
    assert [values(group, "patient") for group in groups] == [[1.0] * 3] * 4


def test_an_asynchronous_term_that_hangs_costs_no_worker(tmp_path: Path) -> None:
    terms = {"patient": {"timeout_s": 0.5, "retries": 0}}
    (group,) = judged(tmp_path, times=0, weights={"patient": 1.0, "steady": 1.0}, terms=terms)
    assert reasons(group, "patient") == {"timeout"}
    assert "late" in (tmp_path / "reward_0.log").read_text()


def test_a_term_is_computed_where_its_domain_asks_for_it(tmp_path: Path) -> None:
    (group,) = judged(tmp_path, weights={"raising": 1.0}, mixtures={"code": {"steady": 1.0}})
    assert list(group.verdicts) == ["steady"]
