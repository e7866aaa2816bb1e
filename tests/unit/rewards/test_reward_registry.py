"""Reward terms by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint

import pytest

from rewards import registry
from rewards.base import Attempt, Reward, RewardError, Verdict
from rewards.code import UnitTests
from rewards.parses import Parses


class Constant:
    """A third party's reward."""

    name = "constant"

    def __init__(self, value: float) -> None:
        self.value = value

    def judge(self, attempts: list[Attempt]) -> list[Verdict]:
        return [Verdict.valid(self.value) for _ in attempts]

    def close(self) -> None:
        pass


def build_constant(settings: Mapping[str, object]) -> Constant:
    value = settings["constant"]
    assert isinstance(value, float)
    return Constant(value)


def build_nonsense(settings: Mapping[str, object]) -> object:
    del settings
    return object()


def install(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    found = [EntryPoint(name, value, registry.ENTRY_POINT_GROUP) for name, value in points.items()]

    def entry_points(group: str) -> list[EntryPoint]:
        return found if group == registry.ENTRY_POINT_GROUP else []

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_known() -> None:
    assert {"parses", "unit_tests"} <= set(registry.known())
    assert registry.known() == sorted(registry.known())


def test_names_match_their_keys() -> None:
    for name in registry.BUILT_IN:
        reward = registry.build(name, {"slots": 1, "pattern": {"regex": "x"}})
        try:
            assert reward.name == name
            assert isinstance(reward, Reward)
        finally:
            reward.close()


def test_unit_tests_takes_its_own_settings() -> None:
    settings = {"scoring": "all", "cpu_time_s": 1.0, "wall_time_s": 5.0, "memory_mib": 64, "output_kib": 8}
    reward = registry.build("unit_tests", {"unit_tests": settings, "slots": 1, "other": {}})
    assert isinstance(reward, UnitTests)
    reward.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scoring": "some"}, r"reward\.unit_tests\.scoring='some': set one of fraction, all"),
        ({"memory_mib": 0}, r"reward\.unit_tests\.memory_mib=0: set a positive number"),
        ({"memory": 1}, r"reward\.unit_tests=\{'memory': 1\}: .*unexpected keyword argument 'memory'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        registry.build("unit_tests", {"unit_tests": settings, "slots": 1})


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(RewardError, match=r"reward\.weights\.unit_test: no such.*Did you mean 'unit_tests'\?.*parses"):
        registry.build("unit_test", {})
    with pytest.raises(RewardError, match=r"no such reward term\. Known: "):
        registry.build("zzz", {})


def test_another_package_adds_a_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, constant=f"{__name__}:build_constant")
    assert "constant" in registry.known()
    reward = registry.build("constant", {"constant": 0.5})
    assert isinstance(reward, Constant)
    assert reward.value == 0.5
    assert isinstance(registry.build("parses", {}), Parses)


def test_another_package_may_not_replace_a_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, parses=f"{__name__}:build_constant")
    with pytest.raises(RewardError, match="'parses' is defined twice"):
        registry.known()


def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, gone="no_such_module_of_ours:build", nonsense=f"{__name__}:build_nonsense")
    with pytest.raises(RewardError, match="no_such_module_of_ours:build can't be loaded"):
        registry.build("gone", {})
    with pytest.raises(RewardError, match="built a object, no Reward"):
        registry.build("nonsense", {})
