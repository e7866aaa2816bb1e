"""Every prompt that was drawn, until it was trained on or dropped: none is lost, none is used twice."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Mapping
from typing import Any

from grpo.data.prompts import Prompts, position
from grpo.errors import CheckpointError
from grpo.records import Prompt


class Ledger:
    """Draws prompts and keeps account of them.

    Its state is the position of the stream before the oldest prompt that is still open, and which of the later ones are
    closed. So a checkpoint holds no prompts, and a resumed run draws exactly those again that nobody trained on.
    """

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        self._before: OrderedDict[int, dict[str, Any]] = OrderedDict()  # position before each open prompt, oldest first
        self._closed: set[int] = set()  # later than the oldest open one
        self._skip: set[int] = set()  # closed before the run was resumed
        self._again: deque[Prompt] = deque()  # open, and handed back

    def draw(self) -> Prompt:
        """The next prompt, open from now on."""
        if self._again:
            return self._again.popleft()
        while True:
            before = self._prompts.state()
            (prompt,) = self._prompts.take(1)
            if prompt.uid in self._skip:
                self._skip.remove(prompt.uid)
                self._note_closed(prompt.uid)
                continue
            self._before[prompt.uid] = before
            return prompt

    def hand_back(self, prompt: Prompt) -> None:
        """Nobody will train on what was sampled of an open prompt; it is drawn again before any other."""
        assert prompt.uid in self._before
        self._again.append(prompt)

    def close(self, uids: Collection[int]) -> None:
        """These were trained on, or dropped for good."""
        for uid in uids:
            del self._before[uid]
            self._closed.add(uid)
        self._forget()

    @property
    def num_open(self) -> int:
        """Prompts that were drawn and are neither trained on nor dropped."""
        return len(self._before)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, ready for JSON."""
        position_now = next(iter(self._before.values()), None)
        return {
            "position": self._prompts.state() if position_now is None else position_now,
            "closed": sorted(self._closed | self._skip),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to a state that `state` returned. Raises CheckpointError."""
        at, closed = state.get("position"), state.get("closed")
        if not isinstance(at, Mapping) or not isinstance(closed, list):
            raise CheckpointError(f"the checkpoint's prompt ledger is malformed: {str(state)[:200]}")
        self._prompts.restore(at)  # pyright: ignore[reportUnknownArgumentType] - of a JSON document
        self._before.clear()
        self._again.clear()
        self._closed = set()
        self._skip = {position({"closed": uid}, "closed") for uid in closed}  # pyright: ignore[reportUnknownVariableType]

    def _note_closed(self, uid: int) -> None:
        self._closed.add(uid)
        self._forget()

    def _forget(self) -> None:
        """Drop what is older than the oldest open prompt: the position says it already."""
        oldest = next(iter(self._before), None)
        if oldest is None:
            self._closed.clear()
        elif self._closed and min(self._closed) < oldest:
            self._closed = {uid for uid in self._closed if uid > oldest}
