"""Every benchmark explains itself and writes JSON, runs at a tiny size, and says so where it misses a bar."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

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
