"""A judge's life: take the task once the guest exists, hold the program to it, tell the pool."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

from rewards.sandbox import frames
from rewards.sandbox.judge.asserts import judge_asserts
from rewards.sandbox.judge.calls import judge_calls
from rewards.sandbox.judge.check import judge_check
from rewards.sandbox.judge.connection import Connection, GuestGone
from rewards.sandbox.judge.preparation import TaskFault
from rewards.sandbox.judge.stdin import judge_stdin
from rewards.sandbox.judge.tally import Tally
from rewards.sandbox.program import Form

FROM_GUEST, TO_GUEST, POOL, GUEST_STDIN, GUEST_STDOUT = 3, 4, 5, 6, 7
_NOT_READY = 97
_RECURSION_LIMIT = 2000


def judge() -> None:
    """Judge one program. Does not return."""
    try:
        if os.read(FROM_GUEST, 1) != b"R":
            os._exit(_NOT_READY)
        tally = Tally(POOL)
        tally.ready()
        task = frames.receive(POOL)
        sys.setrecursionlimit(_RECURSION_LIMIT)
        gc.disable()  # it does not live long enough for that to be worth touching every object
        _follow(task, tally)
    finally:
        os._exit(0)


def _follow(task: dict[str, Any], tally: Tally) -> None:
    form = Form(task["form"])
    connection = Connection(FROM_GUEST, TO_GUEST, tally)
    try:
        if form is Form.STDIN:
            judge_stdin(task, tally)
        elif form is Form.ASSERTS:
            judge_asserts(task, connection)
        elif form is Form.CHECK:
            judge_check(task, connection)
        elif form is Form.CALLS:
            judge_calls(task, connection)
        else:
            # Late, because of all that it needs: a zygote that had it would fork more slowly for every other form.
            from rewards.sandbox.judge.test_file import judge_test_file

            judge_test_file(task, connection)
    except TaskFault as fault:
        tally.fault(str(fault))
    except GuestGone:
        pass
    except MemoryError:
        connection.lose("its values are too large for the tests")
    if connection.gone:
        tally.gone(connection.gone)
    tally.done()
