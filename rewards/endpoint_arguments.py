"""What an endpoint is told: checked before anything is sent, and without showing a secret."""

from __future__ import annotations

import math
import os

import httpx2

from rewards.base import RewardError


def check_endpoint(base_url: str, model: str, timeout_s: float, max_concurrency: int, retries: int) -> None:
    """Raise RewardError, starting with the argument's name, for one that can't work."""
    if "@" in base_url:  # first, so that no later message shows it
        raise RewardError("base_url: carries a password; name the variable that holds the API key in api_key_env.")
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise RewardError(
            f"base_url={base_url!r}: no address ({error}); set e.g. 'http://localhost:8000/v1'."
        ) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise RewardError(f"base_url={base_url!r}: set the endpoint's address, e.g. 'http://localhost:8000/v1'.")
    if not model:
        raise RewardError("model='': set the name that the endpoint knows the model by.")
    if not 0 < timeout_s < math.inf:
        raise RewardError(f"timeout_s={timeout_s}: set a positive number of seconds.")
    if max_concurrency < 1:
        raise RewardError(f"max_concurrency={max_concurrency}: set at least 1.")
    if retries < 0:
        raise RewardError(f"retries={retries}: set 0 or more.")


def api_key(variable: str) -> str:
    """The API key in the environment variable; empty if none is named. Raises RewardError, without the key."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise RewardError(
            f"api_key_env={variable!r}: this environment variable is not set here; export it, or set '' to send none."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RewardError(f"api_key_env={variable!r}: what it holds can't be sent: it has blanks or is not ASCII.")
    return key
