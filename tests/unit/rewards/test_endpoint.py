"""The chat client against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from rewards.base import RewardError
from rewards.endpoint import ChatEndpoint, EndpointError
from rewards.retry import is_transient, retry_after_s
from tests.unit.rewards import chat_server as server

ASKED = (("system", "Be short."), ("user", "Hello?"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def endpoint(url: str, **arguments: Any) -> ChatEndpoint:
    return ChatEndpoint(url, "judge-1", **{"timeout_s": 20.0, "backoff_s": 0.01, **arguments})


def ask(chat: ChatEndpoint, **arguments: Any) -> str:
    try:
        return asyncio.run(chat.complete(ASKED, max_tokens=7, **arguments))
    finally:
        chat.close()


def failure(chat: ChatEndpoint) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        ask(chat)
    return caught.value


def test_a_reply_and_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_JUDGE_KEY", "sk-secret\n")
    with server.serving(server.says("Hi.")) as up:
        chat = endpoint(up.url + "/", api_key_env="TEST_JUDGE_KEY")
        assert ask(chat, temperature=0.5) == "Hi."
    assert up.paths == ["/v1/chat/completions"]
    assert up.headers[0]["authorization"] == "Bearer sk-secret"
    assert up.headers[0]["content-type"] == "application/json"
    assert up.bodies == [
        {
            "model": "judge-1",
            "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello?"}],
            "temperature": 0.5,
            "max_tokens": 7,
        }
    ]


def test_no_key_named_none_sent_and_extra_fields() -> None:
    with server.serving(server.says("Hi.")) as up:
        ask(endpoint(up.url, extra_body={"max_tokens": None, "max_completion_tokens": 9, "seed": 3}))
    assert "authorization" not in up.headers[0]
    assert up.bodies[0].keys() == {"model", "messages", "temperature", "max_completion_tokens", "seed"}


def test_any_text_travels() -> None:
    text = 'a\ud800\0 \U0001f600 \u2028 \\ " é'
    with server.serving(server.says(text)) as up:
        chat = endpoint(up.url)
        try:
            assert asyncio.run(chat.complete([("user", text)])) == text
        finally:
            chat.close()
    assert up.bodies[0]["messages"][0]["content"] == text


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param((server.raw(500, b"oops"), server.raw(503), server.raw(408), server.raw(409)), id="statuses"),
        pytest.param((server.half_closes, server.raw(502, b"<html>")), id="half-closed"),
        pytest.param((server.raw(429, b"slow down", Retry_After="0.01"),), id="too many requests"),
        pytest.param((server.raw(429, b"", Retry_After="later"),), id="nonsense in Retry-After"),
    ],
)
def test_passing_trouble_is_retried(trouble: tuple[server.Behave, ...]) -> None:
    with server.serving(*trouble, server.says("At last.")) as up:
        assert ask(endpoint(up.url)) == "At last."
    assert len(up.bodies) == len(trouble) + 1


def test_retry_after_is_obeyed() -> None:
    with server.serving(server.raw(429, b"", Retry_After="0.4"), server.says("Now.")) as up:
        start = time.monotonic()
        assert ask(endpoint(up.url)) == "Now."
    assert time.monotonic() - start >= 0.4


def test_a_wait_beyond_the_time_limit_is_not_begun() -> None:
    with server.serving(server.raw(429, b"busy", Retry_After="3600")) as up:
        start = time.monotonic()
        assert failure(endpoint(up.url)).reason == "endpoint_http_429"
    assert time.monotonic() - start < 10
    assert len(up.bodies) == 1


@pytest.mark.parametrize(
    ("behave", "reason", "requests"),
    [
        pytest.param(server.raw(503, b"down"), "endpoint_http_503", 3, id="always 503"),
        pytest.param(server.half_closes, "endpoint_connection", 3, id="always half-closed"),
        pytest.param(server.raw(401, b"who are you?"), "endpoint_http_401", 1, id="not allowed"),
        pytest.param(server.raw(400, b"{}"), "endpoint_http_400", 1, id="bad request"),
        pytest.param(
            server.raw(302, b"", Location="/elsewhere"), "endpoint_http_302", 1, id="redirect: key stays here"
        ),
        pytest.param(server.raw(200, b"<html><body>Welcome</body></html>"), "endpoint_malformed", 1, id="HTML"),
        pytest.param(server.raw(200, b"\xff\xfe\x00"), "endpoint_malformed", 1, id="bytes"),
        pytest.param(server.raw(200, b""), "endpoint_malformed", 1, id="nothing"),
        pytest.param(server.raw(200, b"[" * 100_000), "endpoint_malformed", 1, id="deep"),
        pytest.param(server.raw(200, b"[]"), "endpoint_malformed", 1, id="array"),
        pytest.param(server.raw(200, b'{"choices": []}'), "endpoint_malformed", 1, id="no choice"),
        pytest.param(server.raw(200, b'{"choices": [{"message": null}]}'), "endpoint_malformed", 1, id="no message"),
        pytest.param(server.says(None), "endpoint_malformed", 1, id="content null"),
        pytest.param(server.raw(200, b"x" * 40, Content_Encoding="gzip"), "endpoint_malformed", 1, id="no gzip"),
        pytest.param(server.floods, "endpoint_too_large", 1, id="huge body"),
    ],
)
def test_failures_have_a_reason(behave: server.Behave, reason: str, requests: int) -> None:
    with server.serving(behave) as up:
        assert failure(endpoint(up.url, retries=2)).reason == reason
    assert len(up.bodies) == requests


@pytest.mark.parametrize("behave", [server.hangs, server.trickles])
def test_a_hanging_endpoint_ends_in_time(behave: server.Behave) -> None:
    with server.serving(behave) as up:
        start = time.monotonic()
        assert failure(endpoint(up.url, timeout_s=0.3)).reason == "endpoint_timeout"
    assert time.monotonic() - start < 5


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: nobody else can answer there
        error = failure(endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", retries=1))
    assert error.reason == "endpoint_connection"


def test_a_key_that_the_endpoint_repeats_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_JUDGE_KEY", "sk-secret")
    with server.serving(server.raw(401, b"Incorrect key: sk-secret")) as up:
        error = failure(endpoint(up.url, api_key_env="TEST_JUDGE_KEY"))
    assert "secret" not in str(error)
    assert "Incorrect key: [API key]" in str(error)


def test_concurrency_is_bounded_over_threads_and_loops() -> None:
    def slow(handler: server.ChatHandler, body: dict[str, Any]) -> None:
        time.sleep(0.05)
        server.says(body["messages"][0]["content"])(handler, body)

    with server.serving(slow) as up:
        chat = endpoint(up.url, max_concurrency=3)

        async def several(name: str) -> list[str]:
            return list(await asyncio.gather(*(chat.complete([("user", f"{name}{i}")]) for i in range(6))))

        replies: dict[str, list[str]] = {}
        threads = [
            threading.Thread(target=lambda name=name: replies.update({name: asyncio.run(several(name))}))
            for name in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        chat.close()
    assert replies == {name: [f"{name}{i}" for i in range(6)] for name in "ab"}
    assert 2 <= up.most_under_way <= 3


def test_waiting_for_a_place_costs_no_time_limit() -> None:
    def slow(handler: server.ChatHandler, body: dict[str, Any]) -> None:
        time.sleep(0.3)
        server.says("ok")(handler, body)

    with server.serving(slow) as up:
        chat = endpoint(up.url, max_concurrency=1, timeout_s=1.5)

        async def several() -> list[str]:
            return list(await asyncio.gather(*(chat.complete(ASKED) for _ in range(6))))

        assert asyncio.run(several()) == ["ok"] * 6
        chat.close()


@pytest.fixture
def hanging() -> Iterator[server.ChatServer]:
    with server.serving(server.hangs) as up:
        yield up


def wait_for_request(up: server.ChatServer) -> None:
    while not up.bodies:
        time.sleep(0.005)


def test_closing_ends_what_is_under_way(hanging: server.ChatServer) -> None:
    chat = endpoint(hanging.url)

    async def close_meanwhile() -> None:
        waiting = asyncio.create_task(chat.complete(ASKED))
        await asyncio.to_thread(wait_for_request, hanging)
        await asyncio.to_thread(chat.close)
        with pytest.raises(RuntimeError, match="was closed"):
            await waiting

    asyncio.run(close_meanwhile())
    chat.close()
    with pytest.raises(RuntimeError, match="is closed"):
        asyncio.run(chat.complete(ASKED))


def test_a_cancelled_caller_frees_its_place() -> None:
    with server.serving(server.hangs, server.says("Free.")) as up:
        chat = endpoint(up.url, max_concurrency=1)

        async def cancel() -> None:
            waiting = asyncio.create_task(chat.complete(ASKED))
            await asyncio.to_thread(wait_for_request, up)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await chat.complete(ASKED) == "Free."

        asyncio.run(cancel())
        chat.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_url": ""}, r"base_url='': set the endpoint's address"),
        ({"base_url": "localhost:8000"}, r"base_url='localhost:8000': "),
        ({"base_url": "http://[::1/v1"}, r"base_url='http://\[::1/v1': no address"),
        ({"model": ""}, r"model='': "),
        ({"timeout_s": 0.0}, r"timeout_s=0\.0: "),
        ({"timeout_s": float("nan")}, r"timeout_s=nan: "),
        ({"timeout_s": float("inf")}, r"timeout_s=inf: "),
        ({"max_concurrency": 0}, r"max_concurrency=0: "),
        ({"retries": -1}, r"retries=-1: "),
        ({"api_key_env": "NO_SUCH_VARIABLE_HERE"}, r"api_key_env='NO_SUCH_VARIABLE_HERE': .*not set"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=f"^{message}"):
        ChatEndpoint(**{"base_url": "http://localhost/v1", "model": "m", **arguments})


def test_secrets_in_the_wrong_place_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://me:secret@localhost/v1", "http://me:secret@[::1/v1", "me:secret@localhost"):
        with pytest.raises(RewardError) as address:
            ChatEndpoint(url, "m")
        assert "secr" not in str(address.value)
    monkeypatch.setenv("TEST_JUDGE_KEY", "sk secrét")
    with pytest.raises(RewardError) as key:
        ChatEndpoint("http://localhost/v1", "m", "TEST_JUDGE_KEY")
    assert "secr" not in str(key.value)


def test_what_is_transient() -> None:
    assert [
        status for status in (200, 302, 400, 401, 404, 408, 409, 422, 429, 500, 503, 529) if is_transient(status)
    ] == [
        408,
        409,
        429,
        500,
        503,
        529,
    ]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0.25", 0.25),
        ("-4", 0.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds
