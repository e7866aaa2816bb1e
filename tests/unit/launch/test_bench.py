"""`grpo bench rollout` refuses what can't work in one line, before anything is started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launch import bench

TINY = "experiment=tiny_cpu"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        bench.main(list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([TINY, "--groups", "0"], r"--groups=0: .*Set 1 or more"),
        ([TINY, "--rounds", "-1"], r"--rounds=-1: .*Set 1 or more"),
        ([TINY, "rollout.grp_size=4"], r"rollout\.grp_size='4': .*Did you mean rollout\.group_size"),
        ([TINY, "cluster.address=auto"], r"cluster\.address='auto': .*Drop it"),
        (
            [TINY, "--json", "/nowhere/at/all.json"],
            r"--json='/nowhere/at/all\.json': no such directory\. Make /nowhere",
        ),
        ([TINY, "--json", "a.png"], r"--json='a\.png': .*Name the figures \.json"),
        ([TINY, "rollout.cpus_per_worker=1000"], r"rollout\.num_workers x cpus_per_worker = 2000"),
        ([TINY, "--lengths", "long"], r"--lengths.*'replay'.*'natural'"),
    ],
)
def test_bad_arguments_name_field_value_and_remedy(
    capsys: pytest.CaptureFixture[str], arguments: list[str], pattern: str
) -> None:
    message = refused(capsys, "rollout", *arguments)
    assert re.search(pattern, message), message
    assert "Traceback" not in message


def test_workers_that_are_not_started_need_no_cpus(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused here is the data, which is looked at after the CPUs."""
    monkeypatch.chdir(Path(__file__).parent)
    message = refused(capsys, "rollout", TINY, "learner.cpus_per_rank=1000", "data.path=nowhere.jsonl")
    assert "nowhere.jsonl" in message and "cpus_per_rank" not in message


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no benchmark 'learner'; there is: rollout" in refused(capsys, "learner")
