"""Every benchmark explains itself and writes JSON, runs at a tiny size, and says so where it misses a bar."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

BENCHMARKS = sorted(p for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text(encoding="utf-8"))
HEAD = ["--tokens", "24", "--width", "16", "--vocabulary", "53", "--chunk-tokens", "8", "--rounds", "2"]
KERNELS = ["--tokens", "128", "--width", "16", "--vocabulary", "301", "--chunk-tokens", "64", "--rounds", "2"]


def run(monkeypatch: pytest.MonkeyPatch, script: Path, *arguments: str) -> int:
    """The exit status of a benchmark, run in this process."""
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr("sys.argv", [str(script), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    return int(ended.value.code or 0)


def test_benchmarks_were_found():
    assert {p.stem for p in BENCHMARKS} >= {"head", "kernels", "learner", "learning", "step"}


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda p: p.stem)
def test_help_names_the_question_and_json(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, script, "--help") == 0
    said = capsys.readouterr().out
    assert "--json PATH" in said
    assert len(said.split("\n\n")[1].split()) > 5


def test_head_reports_what_it_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "head.json"
    arguments = [
        "--device",
        "cpu",
        "--no-memory",
        "--arms",
        "naive",
        "liger",
        "--json",
        str(target),
        *HEAD,
    ]
    code = run(monkeypatch, ROOT / "benchmarks/head.py", *arguments)
    figures = json.loads(target.read_text())
    assert figures["absent"] == {"liger": "needs CUDA"}
    assert set(figures["errors"]) == {"keel", "naive"}
    assert max(figures["errors"].values()) < 1e-5
    (shape,) = figures["shapes"]
    assert set(shape["arms"]) == {"three products", "keel", "naive"}
    assert all(len(arm["seconds"]) == 2 for arm in shape["arms"].values())
    assert shape["arms"]["three products"]["ratio"] == 1.0
    assert code == (1 if figures["missed"] else 0)
    assert any("times the products" in reason for reason in figures["missed"])  # so small, all is overhead


def test_kernels_relates_rows_to_a_copy_and_formulae_to_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "kernels.json"
    run(monkeypatch, ROOT / "benchmarks/kernels.py", "--device", "cpu", "--json", str(target), *KERNELS)
    figures = json.loads(target.read_text())
    assert figures["rows"]["copy"]["share"] == pytest.approx(1.0)
    loss, copy = figures["rows"]["loss, default, torch"], figures["rows"]["copy"]
    assert loss["share"] == pytest.approx(copy["median_s"] / loss["median_s"])  # float32: 8 bytes a logit, as a copy
    assert loss["share_read_twice"] == pytest.approx(1.5 * loss["share"])
    assert figures["formulae"]["three products"]["ratio"] == 1.0


def test_schedule_holds_simulated_clusters_against_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "schedule.json"
    arguments = ["--rounds", "0", "--sizes", "2", "8", "--json", str(target)]
    assert run(monkeypatch, ROOT / "benchmarks/schedule.py", *arguments) == 0
    figures = json.loads(target.read_text())
    assert figures["real"] is None and target.with_suffix(".png").stat().st_size > 0
    by_arm = {(row["gpus"], row["arm"]): row["over_bound"] for row in figures["by_size"]}
    for gpus in (2, 8):
        assert 1.0 <= by_arm[gpus, "async, k=3"] < by_arm[gpus, "one step off"] < by_arm[gpus, "sync"]
    assert figures["varied"][-1]["groups_per_worker"] == 5 and figures["varied"][-1]["over_bound"] > 1.5


def runpy_globals(monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, Any]:
    """The names in a benchmark's file, which is not run."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return runpy.run_path(str(ROOT / f"benchmarks/{name}.py"))


def test_schedule_recovers_the_cost_of_a_decode_step(monkeypatch: pytest.MonkeyPatch):
    """Of runs in which it is 20 ms and 0.5 ms a sequence."""
    names = runpy_globals(monkeypatch, "schedule_real")
    rows = [
        {
            "rollout/completion_length_max": longest,
            "rollout/num_tokens": tokens,
            "rollout/generate_s": 0.02 * longest + 0.0005 * tokens,
        }
        for longest, tokens in [(96, 6000), (96, 2900), (90, 5500), (80, 1800)]
    ]
    found = names["decode_cost"]([{"steps": rows[:2]}, {"steps": rows[2:]}])
    assert (found.fixed_s, found.sequence_s) == pytest.approx((0.02, 0.0005))
    for row in rows:
        row["rollout/generate_s"] = 0.03 * row["rollout/completion_length_max"] - 1e-6 * row["rollout/num_tokens"]
    found = names["decode_cost"]([{"steps": rows}])
    assert found.sequence_s == 0.0 and found.fixed_s == pytest.approx(0.03, rel=1e-2)


def test_controller_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "controller.json"
    run(monkeypatch, ROOT / "benchmarks/controller.py", "--sizes", "1024", "2048", "--json", str(target))
    figures = json.loads(target.read_text())
    assert [one["completions"] for one in figures["runs"]] == [1024, 2048]
    for one in (*figures["runs"], figures["delayed"]):
        assert one["per_s"] == pytest.approx(one["completions"] / one["cpu_s"])
    misses = runpy_globals(monkeypatch, "controller")["misses"]
    slow, fast = (
        {"completions": n, "per_s": r, "us_each": 1e6 / r, "peak_extra_bytes": n} for n, r in ((1, 4e3), (9, 9e3))
    )
    assert len(misses([fast, slow])) == 2, "too slow, and slower than at the start"
    assert misses([fast, fast]) == []
    assert len(misses([fast, fast, fast | {"peak_extra_bytes": 1 << 30}])) == 1


def test_soundness_knows_students_t(monkeypatch: pytest.MonkeyPatch):
    """Quantiles from any table; the interval of 1, 2, 3 by hand: 2 +- 4.3027 x 1 / sqrt(3)."""
    names = runpy_globals(monkeypatch, "soundness")
    assert [names["t_quantile"](0.975, n) for n in (1, 4, 30)] == pytest.approx([12.7062, 2.7764, 2.0423], abs=2e-4)
    assert names["confidence_interval"]([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)

    def runs(*last: float) -> list[dict[str, float]]:
        return [{"first": 0.0, "last": value} for value in last]

    same = names["verdict"]({"sync": runs(1.0, 1.0, 1.0), "async": runs(1.0, 0.99, 1.01)})
    assert same["is_same"] and same["margin"] == pytest.approx(0.1)
    assert not names["verdict"]({"sync": runs(1.0, 1.0, 1.0), "async": runs(0.8, 0.81, 0.79)})["is_same"]
    assert not names["verdict"]({"sync": runs(1.0, 1.0, 1.0), "async": runs(0.8, 1.2, 1.0)})["is_same"], (
        "too little known"
    )
