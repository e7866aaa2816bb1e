"""`grpo doctor` on this machine, which runs the tests and so has all that is needed, and where something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch import doctor
from launch.doctor import Finding, Health
from rewards.sandbox import pool


def test_this_machine_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        doctor.main(["--json", str(tmp_path / "findings.json")])
    shown = capsys.readouterr().out
    assert ended.value.code == 0, shown
    findings = {row["subject"]: row for row in json.loads((tmp_path / "findings.json").read_text())}
    assert {"python", "torch", "vllm", "ray", "device", "disk", "shared memory", "sandbox"} <= set(findings)
    assert all(subject in shown for subject in findings)
    assert "held" in findings["sandbox"]["text"] and "system_calls" in findings["sandbox"]["text"]


def test_a_machine_that_can_isolate_nothing_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise pool.SandboxError("sandbox: no zygote could start (no pipes left).")

    monkeypatch.setattr(pool, "Sandbox", refuse)
    with pytest.raises(SystemExit) as ended:
        doctor.main([])
    shown = capsys.readouterr().out
    assert ended.value.code == 1
    assert "BAD  sandbox        sandbox: no zygote could start" in shown
    assert "1 of" in shown and "need mending" in shown


def test_findings_are_printed_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding(subject="disk", health=Health.WARNING, text="1 GiB\nof 2", remedy="Free some.")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    with pytest.raises(SystemExit) as ended:
        doctor.main([])
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "note disk           1 GiB",
        "                    of 2",
        "                    -> Free some.",
    ]
