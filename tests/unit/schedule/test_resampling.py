"""Which groups give way to fresh prompts, which tasks are retired, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from grpo.records import Group, JudgedGroup
from grpo.schedule.balance import Balance
from grpo.schedule.resampling import Retirement, SignalFilter, pass_rate
from rewards.base import Verdict
from tests.builders import make_completion, make_group, make_verdicts


def judged(lengths: Sequence[int] = (2, 2), *, uid: int = 0, domain: str = "code") -> JudgedGroup:
    group = make_group([make_completion(list(range(n))) for n in lengths], uid=uid, domain=domain)
    return JudgedGroup(group=group, verdicts={"t": make_verdicts([0.0] * len(lengths))})


def test_groups_without_signal_are_dropped_up_to_a_limit() -> None:
    gate = SignalFilter(is_on=True, most_dropped=2)
    assert [gate.accepts(judged(), signal) for signal in (False, True, False, False)] == [False, True, False, True]
    metrics = gate.finish_step([judged(), judged()])
    assert metrics["sampling/num_dropped"] == 2
    assert not gate.accepts(judged(), False), "a new step, a new limit"


def test_off_it_only_counts() -> None:
    gate = SignalFilter(is_on=False, most_dropped=2)
    assert all(gate.accepts(judged(), False) for _ in range(5))
    metrics = gate.finish_step([judged()] * 5)
    assert metrics["sampling/num_dropped"] == 0 and "sampling/length_bias" not in metrics


def test_the_share_with_signal_is_measured_and_bounded() -> None:
    gate = SignalFilter(is_on=True, most_dropped=100)
    for _ in range(40):
        for signal in (True, False):
            gate.accepts(judged(), signal)
        gate.finish_step([judged()])
    assert gate.share == pytest.approx(0.5, abs=1e-3)
    for _ in range(60):
        gate.accepts(judged(), False)
        gate.finish_step([judged()])
    assert gate.share == pytest.approx(0.25, abs=1e-3), "more over-sampling would only delay"


def test_bias_of_the_sample() -> None:
    gate = SignalFilter(is_on=True, most_dropped=9)
    short, long = judged((2, 2)), judged((6, 6), domain="chat")
    gate.accepts(short, False)
    gate.accepts(long, True)
    metrics = gate.finish_step([long])
    assert metrics["sampling/length_bias"] == pytest.approx(6 / 4 - 1)
    assert metrics["sampling/code/share_bias"] == -0.5 and metrics["sampling/chat/share_bias"] == 0.5


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": [1.0, 0.0]}, 0.5),
        ({"a": [1.0, 1.0], "b": [1.0, 0.0]}, 0.5),
        ({"a": [1.0, None]}, None),
        ({"a": [0.5, 1.0]}, None),
        ({"a": [1.0, float("nan")]}, None),
    ],
)
def test_pass_rate(columns: dict[str, list[float | None]], expected: float | None) -> None:
    one = judged()
    verdicts = {name: make_verdicts(values) for name, values in columns.items()}
    assert pass_rate(JudgedGroup(group=one.group, verdicts=verdicts)) == expected


def test_pass_rate_of_tests() -> None:
    tested = tuple(Verdict.valid(p / 3, {"tests_passed": p, "tests_total": 3}) for p in (3, 2))
    graded = make_verdicts([0.7, -0.2])
    assert pass_rate(JudgedGroup(group=judged().group, verdicts={"tests": tested, "helpful": graded})) == 0.5


def test_retirement() -> None:
    retirement = Retirement(0.5)
    for uid, values in enumerate(([1.0, 1.0], [1.0, 0.0], [0.0, 0.0])):
        group: Group = judged(uid=uid).group
        retirement.note(JudgedGroup(group=group, verdicts={"t": make_verdicts(values)}))
    assert retirement.state() == ["task/0", "task/1"] and "task/2" not in retirement
    assert len(Retirement(None)) == 0 and "task/0" in Retirement(0.5, retirement.state())
    retirement.clear()
    assert "task/0" not in retirement


def test_work_goes_where_least_is_left() -> None:
    balance = Balance(num_workers=2, group_size=4, expected_tokens=10.0)
    assert [balance.assign(uid, 100) for uid in (0, 1)] == [0, 1]
    assert balance.assign(2, 5) == 0 and balance.assign(3, 500) == 1
    assert balance.assign(4, 5) == 0, "the other has a long prompt"
    for uid in range(5):
        balance.done(uid, [30] * 4)
    assert balance.outstanding() == pytest.approx((0.0, 0.0))
    assert 10.0 < balance.expected_tokens < 30.0
    balance.assign(9, 1)
    balance.done(9)
    assert balance.outstanding() == pytest.approx((0.0, 0.0))
