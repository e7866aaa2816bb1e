"""Framed JSON messages over a descriptor: four bytes of length, then the message."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

_HEADER = struct.Struct(">I")


class FrameError(ValueError):
    """The other side sent what is no message, or one too long."""


def send(fd: int, message: Any) -> None:
    """Send one message. Raises OSError if the other side is gone."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    view = memoryview(_HEADER.pack(len(body)) + body)
    while view:
        view = view[os.write(fd, view) :]


def receive(fd: int, longest: int = 1 << 30) -> Any:
    """The next message.

    Raises:
        EOFError: the other side is gone.
        FrameError: longer than `longest` bytes, or not JSON. The stream is of no use after that.
    """
    (length,) = _HEADER.unpack(_exactly(fd, _HEADER.size))
    if length > longest:
        raise FrameError(f"a message of {length} bytes, more than {longest}")
    try:
        return json.loads(_exactly(fd, length))
    except (ValueError, RecursionError, MemoryError) as error:
        raise FrameError(f"{type(error).__name__}: {error}"[:200]) from error


def _exactly(fd: int, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = os.read(fd, min(1 << 20, length - len(data)))
        if not piece:
            raise EOFError("the other side is gone")
        data += piece
    return bytes(data)
