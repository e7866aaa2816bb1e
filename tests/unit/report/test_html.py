from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from grpo.report.html import write_report
from grpo.report.metrics_log import MetricsLog
from grpo.report.rollouts import write_rollouts
from grpo.report.run_directory import RunDirectory
from grpo.report.run_log import Level, RunLog

if TYPE_CHECKING:
    from .conftest import GroupMaker, MetricsMaker

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\x00 http://evil.example/ & \"quotes'"
CONFIG = "experiment: python_tasks\nsteps: 25\nmodel:\n  path: some-model\nreward:\n  weights: {unit_tests: 1.0}\n"


class _Elements(HTMLParser):
    """Collects start tags and checks that what opens is closed."""

    VOID = frozenset({"meta", "line", "circle", "path", "polyline", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parse(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Elements()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser.found


@pytest.fixture
def run(tmp_path: Path, step_metrics: MetricsMaker, scored_group: GroupMaker) -> RunDirectory:
    with RunDirectory.claim(tmp_path / "run", config_text=CONFIG) as run:
        log = MetricsLog(run.metrics, run.tensorboard)
        for step in range(1, 26):
            log.append(step, step, step_metrics(step))
        log.close()
        hostile = scored_group((HOSTILE, "fine", "so so"), (1.0, 0.0, 0.5), prompt=HOSTILE)
        write_rollouts(run.rollout_file(1), 1, [scored_group()])
        write_rollouts(run.rollout_file(25), 25, [hostile])
        run_log = RunLog(run.run_log)
        run_log.write(Level.WARNING, f"worker said {HOSTILE}")
        run_log.write(Level.WARNING, "KL is 0.21")
        run_log.write(Level.WARNING, "KL is 0.34")
        run_log.close()
    return run


def test_report_of_a_finished_run(run: RunDirectory) -> None:
    run.policy.mkdir()
    (run.policy / "config.json").write_text("{}")
    started = time.monotonic()
    path = write_report(run.path)
    assert time.monotonic() - started < 3
    text = path.read_text()
    _parse(text)
    for expected in (
        "python_tasks",
        "25 of 25 steps, finished",
        "0.476&nbsp;→&nbsp;0.767",
        "+0.291",
        "Completion length",
        "Time of a step",
        "KL is 0.34 <b>(x2)</b>",
        "Best",
        "Worst",
        "Random",
        "weights.unit_tests",
        f'from_pretrained("{run.policy}")',
        "prefers-color-scheme: dark",
    ):
        assert expected in text


def test_model_output_stays_text(run: RunDirectory) -> None:
    text = write_report(run.path).read_text()
    tags = {tag for tag, _ in _parse(text)}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "link", "a"})
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_nothing_is_loaded_from_elsewhere(run: RunDirectory) -> None:
    text = write_report(run.path).read_text()
    elements = _parse(text)
    attributes = [(name, value or "") for _, found in elements for name, value in found.items()]
    assert not [pair for pair in attributes if pair[0] in ("src", "href", "action", "srcset", "data")]
    assert not [pair for pair in attributes if pair[0].startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    # The only address is the one in the hostile completion and warning, as text.
    assert set(re.findall(r"https?://[\w.]+", text)) == {"http://evil.example"}
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    "missing", ["metrics.jsonl", "config.yaml", "environment.json", "run.log", "rollouts/step_000001.parquet"]
)
def test_report_of_a_run_that_lacks_a_file(run: RunDirectory, missing: str) -> None:
    (run.path / missing).unlink()
    _parse(write_report(run.path).read_text())


def test_report_of_nothing_but_a_directory(tmp_path: Path) -> None:
    text = write_report(tmp_path).read_text()
    _parse(text)
    for expected in ("No step finished yet", "No rollouts written yet", "No policy exported yet"):
        assert expected in text


def test_damaged_files_are_said_not_fatal(run: RunDirectory) -> None:
    run.config.write_text("a: [unclosed <b>")
    run.environment.write_text("{")
    run.rollout_file(25).write_bytes(b"PAR1 torn")
    with run.metrics.open("a") as file:
        file.write('{"step": 26, "rewa')
    text = write_report(run.path).read_text()
    _parse(text)
    assert "step_000025.parquet can't be read" in text.replace("&#x27;", "'")
    assert "[unclosed &lt;b&gt;" in text
    assert "25 steps so far" in text
