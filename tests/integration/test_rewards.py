"""Whole runs: two domains with mixtures of their own, a term in workers of its own, a pause and the way out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.chaos import misbehaviour
from tests.integration.runs import LEARNABLE, Run, side_by_side, train

pytestmark = pytest.mark.integration
TWO_DOMAINS = (
    "reward.mixtures.code.pattern=1",
    "reward.mixtures.code.parses=0",
    "reward.mixtures.talk.pattern=0.5",
    "reward.mixtures.talk.brief=-0.1",
    "reward.terms.brief.kind=pattern",
    "reward.terms.brief.settings.regex=' '",
    "reward.terms.brief.num_workers=1",
    "reward.gates.brief='pattern>=0.2'",
    "algorithm=gdpo",
    "steps=2",
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rewards")


@pytest.fixture(scope="module")
def runs(directory: Path) -> Iterator[Mapping[str, Future[Run]]]:
    tasks = directory / "tasks.jsonl"
    rows = [{"id": str(i), "prompt": f"Say {i}.", "domain": ("code", "talk")[i % 2]} for i in range(8)]
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    packages = directory / "packages"
    misbehaviour.install(packages)
    souring = (
        "reward.weights.souring=1",
        f"reward.terms.souring.settings.directory={directory}",
        "reward.terms.souring.settings.times=4",  # one step of four groups
        "reward.retries=0",
        "steps=2",
    )
    overrides = {
        "domains": (*LEARNABLE, *TWO_DOMAINS, f"data.path={tasks}", "data.max_level=null", "data.limit=null"),
        "paused": (*LEARNABLE, *souring),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(packages), prepend=":")
        with side_by_side(directory, overrides) as futures:
            yield futures


def test_every_term_is_logged_raw_per_domain(runs: Mapping[str, Future[Run]]) -> None:
    run = runs["domains"].result()
    assert run.code == 0, run.output
    for row in run.metrics:
        assert row["domain/code/share"] + row["domain/talk/share"] == 1.0
        for domain, terms in {"code": ("pattern", "parses"), "talk": ("pattern", "brief")}.items():
            if row[f"domain/{domain}/share"]:
                assert {f"domain/{domain}/reward/{term}/mean" for term in terms} <= set(row)
        assert "domain/code/reward/brief/mean" not in row
        assert "domain/talk/reward/parses/mean" not in row
        assert row["reward/brief/gated"] >= 0
    assert {row["domain/talk/share"] for row in run.metrics} != {0.0}
    assert (run.directory / "logs/reward_brief_0.log").exists()


def test_too_many_failures_pause_the_run_with_the_evidence(runs: Mapping[str, Future[Run]], directory: Path) -> None:
    paused = runs["paused"].result()
    assert paused.code == 1, paused.output
    assert "reward term souring failed on 100% of the completions it judged (ConnectionError 16x)" in paused.output
    assert f"resume={paused.directory}" in paused.output
    assert [row["step"] for row in paused.metrics] == [1]
    evidence = [json.loads(x) for x in (paused.directory / "failures/step_000002.jsonl").read_text().splitlines()]
    assert len(evidence) == 16
    assert {row["reason"] for row in evidence} == {"ConnectionError"}
    assert all(row["prompt"] and row["task_id"] for row in evidence)
    (directory / "mended").touch()
    overrides = (*LEARNABLE, "reward.weights.souring=1", f"reward.terms.souring.settings.directory={directory}")
    resumed = train(paused.directory, *overrides, "steps=2", f"resume={paused.directory}")
    assert resumed.code == 0, resumed.output
    assert [row["step"] for row in resumed.metrics] == [1, 2]
    assert resumed.metrics[0]["reward/souring/mean"] == paused.metrics[0]["reward/souring/mean"]
