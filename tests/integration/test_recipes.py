"""Every recipe of conf/algorithm trains for two steps of two updates each, on the real stack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import pytest

from tests.integration.runs import LEARNABLE, ROOT, Run, side_by_side

pytestmark = pytest.mark.integration
RECIPES = sorted(path.stem for path in (ROOT / "conf/algorithm").glob("*.yaml"))
SETTINGS = ("steps=2", "algorithm.updates_per_step=2", "learner.lr=0.01", "reward.weights.parses=0.1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Run]]]:
    """A run of each recipe."""
    overrides = {recipe: (*LEARNABLE, f"algorithm={recipe}", *SETTINGS) for recipe in RECIPES}
    with side_by_side(tmp_path_factory.mktemp("recipes"), overrides) as futures:
        yield futures


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_steps(runs: Mapping[str, Future[Run]], recipe: str) -> None:
    run = runs[recipe].result()
    assert run.code == 0, run.output
    assert [row["step"] for row in run.metrics] == [1, 2]
    for row in run.metrics:
        # NaN is None in the file.
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in row.values())
        assert row["learner/skipped_updates"] == 0
        assert row["learner/grad_norm"] > 0
        assert row["learner/ratio_min"] <= 1.0 <= row["learner/ratio_max"]
    assert run.metrics[0]["learner/ratio_max"] > run.metrics[0]["learner/ratio_min"]
