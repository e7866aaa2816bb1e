"""What a child process may be asked to do."""

from __future__ import annotations

import os
import signal
import time


def double(number: int) -> int:
    print("noise on stdout")
    return number * 2


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def spin(digits: int) -> int:
    return (10**digits).bit_length()  # one C call that no signal handler interrupts


def die(status: int) -> None:
    os._exit(status)


def crash(signal_number: int) -> None:
    os.kill(os.getpid(), signal.Signals(signal_number))


def fail(text: str) -> None:
    raise KeyError(text)


def fill_memory(num_bytes: int) -> int:
    return len(bytes(num_bytes))


def secrets(name: str) -> str | None:
    return os.environ.get(name)


def echo(text: str) -> str:
    return text


def process() -> int:
    return os.getpid()
