"""Every recipe of conf/algorithm trains for two steps of two updates each, on the real stack."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.integration.runs import LEARNABLE, ROOT, train

pytestmark = pytest.mark.integration
RECIPES = sorted(path.stem for path in (ROOT / "conf/algorithm").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_steps(tmp_path: Path, recipe: str) -> None:
    run = train(
        tmp_path / "run",
        *LEARNABLE,
        f"algorithm={recipe}",
        "steps=2",
        "algorithm.updates_per_step=2",
        "learner.lr=0.01",
        "reward.weights.parses=0.1",
    )
    assert run.code == 0, run.output
    assert [row["step"] for row in run.metrics] == [1, 2]
    for row in run.metrics:
        # NaN is None in the file.
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in row.values())
        assert row["learner/skipped_updates"] == 0
        assert row["learner/grad_norm"] > 0
        assert row["learner/ratio_min"] <= 1.0 <= row["learner/ratio_max"]
    assert run.metrics[0]["learner/ratio_max"] > run.metrics[0]["learner/ratio_min"]
