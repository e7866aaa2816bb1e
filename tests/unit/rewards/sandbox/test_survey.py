"""Which layers there must be, and what the sandbox does without."""

from __future__ import annotations

import logging

import pytest

from rewards.base import RewardError
from rewards.sandbox.pool import Sandbox, SandboxError
from rewards.sandbox.program import Kind, Program
from rewards.sandbox.survey import EITHER, REQUIRED, CanaryState, Layer, LayerState, Survey

ALL = tuple(LayerState(layer=layer, in_force=True) for layer in Layer)


def without(*layers: Layer) -> Survey:
    return Survey(layers=tuple(LayerState(layer=s.layer, in_force=s.layer not in layers, reason="why") for s in ALL))


def test_required_layers() -> None:
    assert Survey(layers=ALL).missing() == []
    for layer in Layer:
        reasons = without(layer).missing()
        assert reasons == ([f"{layer.value}: why"] if layer in REQUIRED else [])
    assert without(*EITHER).missing() == ["file_access: why and mount_namespace: why"]
    assert len(Survey(layers=()).missing()) == len(REQUIRED) + 1
    broken = CanaryState(name="escape", held=False, reason="it could")
    assert Survey(layers=ALL, canaries=(broken,)).missing() == ["canary escape: it could"]


def test_the_table_names_everything() -> None:
    text = Survey(layers=without(Layer.FILE_ACCESS).layers, canaries=(CanaryState(name="x", held=True),)).table()
    assert all(layer.value in text for layer in Layer)
    assert "OFF file_access        why" in text
    assert "held x" in text


def test_a_sandbox_says_what_protects_it(sandbox: Sandbox) -> None:
    survey = sandbox.survey
    assert {state.layer for state in survey.layers} == set(Layer)
    assert survey.missing() == []
    assert all(state.in_force or state.reason for state in survey.layers)
    names = {state.name for state in survey.canaries if state.held}
    assert names == {
        "read a file",
        "open a connection",
        "start a process",
        "write outside",
        "forge a verdict",
        "outlive its limit",
    }


@pytest.mark.parametrize(
    ("off", "names"),
    [
        ([Layer.SYSTEM_CALLS], ["system_calls: turned off", "start a process"]),
        ([*EITHER], ["file_access: turned off and mount_namespace: turned off"]),
        ([Layer.RESOURCE_LIMITS], ["resource_limits: turned off"]),
    ],
)
def test_without_a_required_layer_it_refuses_or_says_so_loudly(
    off: list[Layer], names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SandboxError, match="allow_unsafe") as caught:
        Sandbox(1, without=off)
    assert isinstance(caught.value, RewardError)
    assert names[0] in str(caught.value)
    with caplog.at_level(logging.ERROR), Sandbox(1, without=off, allow_unsafe=True) as sandbox:
        assert sandbox.run(Program(source="f = abs", tests=("assert f(-1) == 1",))).kind is Kind.PASSED
    assert "UNSAFE" in caplog.text
    assert all(name in caplog.text for name in names)
