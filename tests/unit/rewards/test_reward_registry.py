"""Reward kinds by name, built-in and from other packages, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import EntryPoint

import pytest

from rewards import registry
from rewards.base import MODEL, Attempt, Reward, RewardError, Verdict
from rewards.parses import Parses

KEY = "reward.terms.x.settings"


class Tone(StrEnum):
    plain = "plain"
    warm = "warm"


class Constant:
    """A third party's reward."""

    @dataclass(slots=True, kw_only=True)
    class Settings:
        value: float = 0.5
        tone: Tone = Tone.plain
        model: str | None = field(default=None, metadata=MODEL)
        words: list[str] = field(default_factory=list[str])

        def __post_init__(self) -> None:
            if self.value < 0:
                raise RewardError(f"value={self.value}: below 0. Set 0 or more.")

    def __init__(self, settings: Settings) -> None:
        if settings.tone is Tone.warm:
            raise RewardError("tone='warm': the heating is off. Set tone=plain.")
        self.value = settings.value

    @staticmethod
    def check(settings: Settings) -> None:
        if settings.value > 1:
            raise RewardError(f"value={settings.value}: above 1. Set 1 or less.")

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        return [Verdict.valid(self.value) for _ in attempts]

    def close(self) -> None:
        pass


class Nonsense:
    """No reward."""


def install(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    found = [EntryPoint(name, value, registry.ENTRY_POINT_GROUP) for name, value in points.items()]

    def entry_points(group: str) -> list[EntryPoint]:
        return found if group == registry.ENTRY_POINT_GROUP else []

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, constant=f"{__name__}:Constant")


@pytest.mark.parametrize("kind", sorted(registry.BUILT_IN))
def test_every_built_in_kind_can_be_loaded_and_described(kind: str) -> None:
    loaded = EntryPoint(kind, registry.BUILT_IN[kind], registry.ENTRY_POINT_GROUP).load()
    assert isinstance(loaded, type)
    assert loaded.__doc__
    assert hasattr(loaded, "judge") or "judge" in loaded.__annotations__
    assert hasattr(loaded, "close")


def test_a_kind_without_settings_takes_none() -> None:
    reward = registry.build("parses", registry.settings_of("parses", {}, KEY), KEY)
    assert isinstance(reward, Parses)
    assert isinstance(reward, Reward)
    with pytest.raises(RewardError, match=r"^reward\.terms\.x\.settings\.strict=1: unknown key\. There are: none\.$"):
        registry.settings_of("parses", {"strict": 1}, KEY)


@pytest.mark.usefixtures("constant")
def test_another_package_adds_a_kind_with_settings() -> None:
    assert "constant" in registry.known()
    settings = registry.settings_of("constant", {"value": 1, "tone": "plain", "words": ["a"]}, KEY)
    assert settings == Constant.Settings(value=1.0, words=["a"])
    assert isinstance(settings.value, float)
    assert registry.model_fields(settings) == ["model"]
    registry.preflight("constant", settings, KEY)
    reward = registry.build("constant", settings, KEY)
    assert isinstance(reward, Constant)
    assert reward.value == 1.0


@pytest.mark.usefixtures("constant")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"valeu": 1}, r"^reward\.terms\.x\.settings\.valeu=1: unknown key\. Did you mean 'value'\? There are: value"),
        ({"value": "much"}, r"^reward\.terms\.x\.settings\.value='much': input should be a valid number"),
        ({"tone": "loud"}, r"^reward\.terms\.x\.settings\.tone='loud': input should be 'plain' or 'warm'"),
        ({"words": ["a", 1]}, r"^reward\.terms\.x\.settings\.words\.1=1: input should be a valid string"),
        ({"value": -1}, r"^reward\.terms\.x\.settings\.value=-1\.0: below 0\. Set 0 or more\.$"),
    ],
)
def test_bad_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        registry.settings_of("constant", values, KEY)


@pytest.mark.usefixtures("constant")
def test_what_is_found_out_later_has_its_key_too() -> None:
    with pytest.raises(RewardError, match=r"^reward\.terms\.x\.settings\.value=2\.0: above 1"):
        registry.preflight("constant", Constant.Settings(value=2.0), KEY)
    with pytest.raises(RewardError, match=r"^reward\.terms\.x\.settings\.tone='warm': the heating"):
        registry.build("constant", Constant.Settings(tone=Tone.warm), KEY)


def test_an_unknown_kind_gets_a_suggestion() -> None:
    with pytest.raises(
        RewardError, match=r"^reward\.weights\.unit_test: no reward of kind 'unit_test'\. Did you mean 'unit_tests'\?"
    ):
        registry.check("unit_test", "reward.weights.unit_test")
    with pytest.raises(RewardError, match=r"no reward of kind 'zzz'\. Known: .*pattern"):
        registry.settings_of("zzz", {}, KEY)


def test_another_package_may_not_replace_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, parses=f"{__name__}:Constant")
    with pytest.raises(RewardError, match="'parses' is defined twice"):
        registry.known()


def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, gone="no_such_module_of_ours:build", nonsense=f"{__name__}:Nonsense")
    with pytest.raises(RewardError, match=r"kind 'gone' \(no_such_module_of_ours:build\) can't be loaded"):
        registry.settings_of("gone", {}, KEY)
    with pytest.raises(RewardError, match="built a Nonsense, which has no judge and close"):
        registry.build("nonsense", registry.settings_of("nonsense", {}, KEY), KEY)
