"""Framed JSON messages between pool and zygote: four bytes of length, then the message."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

_HEADER = struct.Struct(">I")


def send(control: socket.socket, message: Mapping[str, Any]) -> None:
    """Send one message. Raises OSError if the other side is gone."""
    body = json.dumps(message).encode("ascii")
    control.sendall(_HEADER.pack(len(body)) + body)


def receive(control: socket.socket) -> dict[str, Any]:
    """The next message.

    Raises:
        EOFError: the other side is gone.
        TimeoutError: the socket's own timeout passed.
    """
    (length,) = _HEADER.unpack(_exactly(control, _HEADER.size))
    return json.loads(_exactly(control, length))


def _exactly(control: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = control.recv(min(1 << 16, length - len(data)))
        if not piece:
            raise EOFError("the control socket was closed")
        data += piece
    return bytes(data)
