"""No prompt is lost, none is used twice, also over a resume."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.data.prompts import Prompts
from grpo.errors import CheckpointError
from grpo.records import Prompt
from grpo.schedule.ledger import Ledger
from tests.builders import make_group


class Stream:
    """Prompts by number. Only what a ledger asks of a stream."""

    def __init__(self) -> None:
        self.drawn = 0

    def take(self, n: int) -> list[Prompt]:
        assert n == 1
        self.drawn += 1
        return [make_group([], uid=self.drawn - 1).prompt]

    def state(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def restore(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]


def ledger() -> Ledger:
    stream: Any = Stream()
    prompts: Prompts = stream
    return Ledger(prompts)


@given(actions=st.lists(st.tuples(st.sampled_from(["draw", "close", "back", "resume"]), st.integers(0, 99))))
@settings(max_examples=200, deadline=None)
def test_every_prompt_is_closed_once(actions: list[tuple[str, int]]) -> None:
    book, held, closed = ledger(), list[Prompt](), list[int]()
    for action, number in actions:
        if action == "draw" or not held:
            held.append(book.draw())
        elif action == "close":
            prompt = held.pop(number % len(held))
            book.close([prompt.uid])
            closed.append(prompt.uid)
        elif action == "back":
            book.hand_back(held.pop(number % len(held)))
        else:
            state = json.loads(json.dumps(book.state()))
            book, held = ledger(), []
            book.restore(state)
            assert book.state() == state
    held += [book.draw() for _ in range(book.num_open - len(held))]
    while held:
        closed.append(held.pop().uid)
        book.close(closed[-1:])
    for _ in range(5):
        closed.append(book.draw().uid)
        book.close(closed[-1:])
    assert len(closed) == len(set(closed)), "a prompt was closed twice"
    assert set(closed) == set(range(max(closed) + 1)), "a prompt was lost"


def test_what_is_kept_does_not_grow() -> None:
    book = ledger()
    for _ in range(1000):
        open_ones = [book.draw() for _ in range(4)]
        book.close([p.uid for p in reversed(open_ones)])
    assert book.num_open == 0 and book.state() == {"position": {"drawn": 4000}, "closed": []}


@pytest.mark.parametrize("state", [{}, {"position": 3, "closed": []}, {"position": {"drawn": 1}, "closed": ["a"]}])
def test_a_malformed_state_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="malformed"):
        ledger().restore(state)
