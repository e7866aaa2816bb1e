"""Work goes to whoever has the least; the number of groups in flight follows what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.schedule.balance import Balance


@given(
    num_workers=st.integers(1, 6),
    calls=st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=300),
)
def test_the_least_loaded_worker_is_chosen(num_workers: int, calls: list[tuple[bool, int]]) -> None:
    balance = Balance(num_workers, 4, expected_tokens=10.0)
    given_out: list[int] = []
    for number, (ends, value) in enumerate(calls):
        if ends and given_out:
            balance.done(given_out.pop(value % len(given_out)), [value] * 4)
            continue
        before = balance.outstanding()
        worker = balance.assign(number, value)
        assert worker == before.index(min(before))
        given_out.append(number)
    for uid in given_out:
        balance.done(uid)
    assert balance.outstanding() == pytest.approx([0.0] * num_workers)


def test_groups_in_flight_by_the_lengths_that_were_seen() -> None:
    balance = Balance(3, 4, expected_tokens=10.0)
    assert balance.groups_in_flight(29) == 3 * (15 + 1), "29 / 4 groups x 2 = 14.5, and one"
    for uid in range(300):
        balance.assign(uid, 5)
        balance.done(uid, [10, 10, 10, 50])
    assert balance.groups_in_flight(29) == 3 * (19 + 1), "29 / 4 groups x 50 / 20 = 18.1, and one"
    balance.assign(999, 5)
    balance.done(999)
    assert balance.groups_in_flight(29) == 3 * (19 + 1), "what was given up says nothing of lengths"
