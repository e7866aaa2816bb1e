"""A client for chat completions in OpenAI's format (vLLM, SGLang, TGI and most hosted models speak it).

Format: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence

import httpx2

from rewards.background import BackgroundLoop
from rewards.endpoint_arguments import api_key, check_endpoint
from rewards.retry import is_transient, retry_after_s

_MAX_REPLY_BYTES = 8 << 20
_CONNECT_TIMEOUT_S = 10.0
_MAX_BACKOFF_S = 30.0
_EXCERPT = 200


class EndpointError(Exception):
    """No usable reply came.

    Attributes:
        reason: short and stable, for counting: "endpoint_timeout", "endpoint_connection", "endpoint_http_<status>",
            "endpoint_too_large" or "endpoint_malformed".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class _TransientError(EndpointError):
    """Worth another try, at the earliest after `wait_s`."""

    def __init__(self, reason: str, message: str, wait_s: float | None = None) -> None:
        super().__init__(reason, message)
        self.wait_s = wait_s


class ChatEndpoint:
    """Asks one model at one address, a bounded number of requests at a time.

    `complete` may be awaited in any event loop and any thread: the connections live in a thread of their own.

    Args:
        base_url: up to and including the version, e.g. ``http://10.0.0.5:8000/v1``.
        model: name the endpoint knows the model by.
        api_key_env: environment variable that holds the API key; empty: none is sent.
        timeout_s: seconds for one reply, retries and the waits between them included. Waiting for one of the
            `max_concurrency` places is not.
        max_concurrency: requests under way at the same time.
        retries: further tries after a connection error, a status 408, 409, 429 or 5xx.
        extra_body: further fields of each request; None takes a field out, e.g. for OpenAI's reasoning models
            ``{"max_tokens": None, "max_completion_tokens": 2048, "temperature": None}``.
        backoff_s: wait before the first retry; doubles with each, times a random factor from 0.5 to 1. A longer
            ``Retry-After`` of the endpoint is obeyed.

    Raises:
        RewardError: an argument that can't work, or an API key that is not there.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str = "",
        timeout_s: float = 120.0,
        max_concurrency: int = 16,
        retries: int = 4,
        *,
        extra_body: Mapping[str, object] | None = None,
        backoff_s: float = 0.5,
    ) -> None:
        check_endpoint(base_url, model, timeout_s, max_concurrency, retries)
        self._key = api_key(api_key_env)
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model, self._extra_body = model, dict(extra_body or {})
        self._timeout_s, self._retries, self._backoff_s = timeout_s, retries, backoff_s
        self._max_concurrency = max_concurrency
        self._places = asyncio.Semaphore(max_concurrency)
        self._client: httpx2.AsyncClient | None = None
        self._jitter = random.Random()  # not the global one, which the trainer seeds
        self._loop = BackgroundLoop("chat-endpoint")

    async def complete(
        self, messages: Sequence[tuple[str, str]], *, temperature: float = 0.0, max_tokens: int = 1024
    ) -> str:
        """The text of the model's reply to a conversation of (role, content) pairs.

        Raises:
            EndpointError: no usable reply within `timeout_s`.
            RuntimeError: the endpoint is closed, or was meanwhile.
        """
        body: dict[str, object] = {
            "model": self._model,
            "messages": [{"role": role, "content": content} for role, content in messages],
            "temperature": temperature,
            "max_tokens": max_tokens,
            **self._extra_body,
        }
        kept = {name: value for name, value in body.items() if value is not None}
        # ASCII, so that a lone surrogate in a sampled text travels too: UTF-8 would refuse it.
        return await self._loop.run(self._in_place(json.dumps(kept).encode("ascii")))

    def close(self) -> None:
        """Close connections; who still awaits a reply gets RuntimeError. Does nothing when called again."""
        self._loop.close(self._disconnect())

    async def _disconnect(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _in_place(self, body: bytes) -> str:
        async with self._places:
            try:
                async with asyncio.timeout(self._timeout_s) as limit:
                    return await self._persist(body, limit)
            except TimeoutError as error:
                raise EndpointError("endpoint_timeout", f"no reply within {self._timeout_s:g} s") from error

    async def _persist(self, body: bytes, limit: asyncio.Timeout) -> str:
        for attempt in range(self._retries + 1):
            try:
                return await self._ask(body)
            except _TransientError as error:
                pause_s = min(_MAX_BACKOFF_S, self._backoff_s * 2**attempt) * self._jitter.uniform(0.5, 1.0)
                pause_s = max(pause_s, error.wait_s or 0.0)
                deadline = limit.when()
                # Waiting past the time limit would only turn a telling reason into "endpoint_timeout".
                is_late = deadline is not None and asyncio.get_running_loop().time() + pause_s >= deadline
                if attempt == self._retries or is_late:
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    async def _ask(self, body: bytes) -> str:
        client = self._connected()
        try:
            async with client.stream("POST", self._url, content=body) as response:
                data = await self._read(response)
        except httpx2.TimeoutException as error:  # of connecting; the rest is limited as a whole
            raise _TransientError("endpoint_connection", f"{type(error).__name__}") from error
        except httpx2.TransportError as error:
            raise _TransientError("endpoint_connection", f"{type(error).__name__}: {error}") from error
        except httpx2.DecodingError as error:
            raise EndpointError("endpoint_malformed", f"{error}") from error
        if response.status_code == 200:
            return self._content(data)
        reason, excerpt = f"endpoint_http_{response.status_code}", self._excerpt(data)
        if is_transient(response.status_code):
            raise _TransientError(reason, excerpt, retry_after_s(response.headers.get("retry-after")))
        raise EndpointError(reason, excerpt)

    async def _read(self, response: httpx2.Response) -> bytes:
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > _MAX_REPLY_BYTES:
                raise EndpointError("endpoint_too_large", f"a reply of more than {_MAX_REPLY_BYTES >> 20} MiB")
        return bytes(data)

    def _content(self, data: bytes) -> str:
        try:
            reply = json.loads(data)
            content = reply["choices"][0]["message"]["content"]
        except (ValueError, RecursionError, LookupError, TypeError) as error:
            message = f"{type(error).__name__} in {self._excerpt(data)}"
            raise EndpointError("endpoint_malformed", message) from error
        if not isinstance(content, str):  # null: the model refused, or ran out of tokens while it was thinking
            raise EndpointError("endpoint_malformed", f"content is no text in {self._excerpt(data)}")
        return content

    def _excerpt(self, data: bytes) -> str:
        text = data.decode("utf-8", "replace")
        if self._key:  # some endpoints repeat a key that they refuse
            text = text.replace(self._key, "[API key]")
        return repr(text[:_EXCERPT])

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._client = httpx2.AsyncClient(
                headers=headers,
                timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
                limits=httpx2.Limits(max_connections=self._max_concurrency),
            )
        return self._client
