"""A chat endpoint on loopback that misbehaves as it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behave = Callable[["ChatHandler", dict[str, Any]], None]


class ChatServer(ThreadingHTTPServer):
    """Answers request after request with the next of `behaviours`; the last one goes on for ever."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, behaviours: tuple[Behave, ...]) -> None:
        super().__init__(("127.0.0.1", 0), ChatHandler)
        self.lock = threading.Lock()
        self.behaviours = behaviours
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.released = threading.Event()
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what some tests are about."""


class ChatHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            behave = server.behaviours[min(len(server.bodies), len(server.behaviours) - 1)]
            server.bodies.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.paths.append(self.path)
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            behave(self, body)
        finally:
            with server.lock:
                server.under_way -= 1

    def reply(self, status: int, payload: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving(*behaviours: Behave) -> Iterator[ChatServer]:
    server = ChatServer(behaviours)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def says(text: object) -> Behave:
    """A well-formed reply with this content."""
    return raw(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode())


def raw(status: int, payload: bytes = b"", **headers: str) -> Behave:
    return lambda handler, body: handler.reply(status, payload, **headers)


def hangs(handler: ChatHandler, body: dict[str, Any]) -> None:
    """Takes the request and says nothing."""
    del body
    handler.server.released.wait(30)
    handler.close_connection = True


def trickles(handler: ChatHandler, body: dict[str, Any]) -> None:
    """Sends a byte now and then: no single read ever times out."""
    del body
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    try:
        while not handler.server.released.wait(0.02):
            handler.wfile.write(b" ")
    except OSError:
        handler.close_connection = True


def half_closes(handler: ChatHandler, body: dict[str, Any]) -> None:
    """Promises more than it sends, then closes its sending side."""
    del body
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_WR)
    handler.close_connection = True


def floods(handler: ChatHandler, body: dict[str, Any]) -> None:
    """Sends without end."""
    del body
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 40))
    handler.end_headers()
    try:
        while not handler.server.released.is_set():
            handler.wfile.write(b"x" * (1 << 16))
    except OSError:
        handler.close_connection = True
