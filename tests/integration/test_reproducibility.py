"""The same seed gives the same curve, and a resumed run goes on as if it had never stopped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.runs import LEARNABLE, Run, train, unclocked

pytestmark = pytest.mark.integration
SETTINGS = (*LEARNABLE, "steps=8", "learner.lr=0.003", "learner.lr_schedule=cosine", "checkpoint_every=4")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = train(tmp_path_factory.mktemp("whole") / "run", *SETTINGS)
    assert run.code == 0, run.output
    return run


def test_same_seed_same_metrics(whole: Run, tmp_path: Path) -> None:
    again = train(tmp_path / "run", *SETTINGS)
    assert [unclocked(row) for row in again.metrics] == [unclocked(row) for row in whole.metrics]


def test_another_seed_other_metrics(whole: Run, tmp_path: Path) -> None:
    other = train(tmp_path / "run", *SETTINGS, "steps=1", "seed=1")
    assert unclocked(other.metrics[0]) != unclocked(whole.metrics[0])


def test_four_steps_and_a_resume_equal_eight_steps(whole: Run, tmp_path: Path) -> None:
    """Resumes a copy of the run as it was after step 4, later metrics included: they have to be dropped."""
    copied = tmp_path / "run"
    shutil.copytree(whole.directory, copied)
    shutil.rmtree(copied / "checkpoints/step_000008")
    resumed = train(copied, *SETTINGS, f"resume={copied}")
    assert resumed.code == 0, resumed.output
    assert [unclocked(row) for row in resumed.metrics] == [unclocked(row) for row in whole.metrics]
