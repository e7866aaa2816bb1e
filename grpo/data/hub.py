"""Rows of a dataset on the Hugging Face hub."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from grpo.config import DataConfig
from grpo.data.files import Located
from grpo.errors import DataError

_PROBE_TIMEOUT_S = 5.0
#: https://huggingface.co/docs/dataset-viewer/parquet
_CONVERTED = "refs/convert/parquet"


def read_hub(config: DataConfig) -> Iterator[Located]:
    """Rows of the hub's dataset `data.path`, configuration `data.subset`, split `data.split`.

    Raises:
        DataError: the hub can't be reached, or has no such dataset, subset or split.
    """
    for index, row in enumerate(_load(config)):
        yield f"{config.path}: row {index}", row


def stream_hub(config: DataConfig, start: int) -> Iterator[Located]:
    """The same rows without a copy on disk, from row `start` on.

    Raises:
        DataError: as `read_hub`, also where the connection breaks on the way.
    """
    rows = _load(config, streaming=True)
    try:
        for index, row in enumerate(rows.skip(start) if start else rows, start=start):
            yield f"{config.path}: row {index}", row
    except OSError as error:
        raise DataError(f"data.path={config.path!r}: broke off ({' '.join(str(error).split())[:500]})") from error


def _load(config: DataConfig, **options: Any) -> Any:
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub import constants

    name = f"data.path={config.path!r}"
    # `datasets` retries for half a minute and prints each attempt; offline, it reads its cache at once.
    if not constants.is_offline_mode() and not _reachable(constants.ENDPOINT):
        raise DataError(_unreachable(name, constants.ENDPOINT))
    try:
        try:
            return datasets.load_dataset(config.path, name=config.subset, split=config.split, **options)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            # An old set, APPS or TACO, that is made by a program; the hub keeps what it makes as Parquet, beside it.
            files = {config.split: f"{config.subset or 'default'}/{config.split}/*.parquet"}
            return datasets.load_dataset(
                config.path, data_files=files, revision=_CONVERTED, split=config.split, **options
            )
    except DatasetNotFoundError as error:
        raise DataError(
            f"{name}: no such file or directory here, and no such dataset on {constants.ENDPOINT}. Check the spelling; "
            "a private or gated set needs HF_TOKEN"
        ) from error
    except ConnectionError as error:
        raise DataError(_unreachable(name, constants.ENDPOINT)) from error
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        # A split or subset that does not exist comes here; the message lists those that do.
        found = " ".join(str(error).split())[:500]
        raise DataError(f"{name} (data.subset={config.subset!r}, data.split={config.split!r}): {found}") from error


def _unreachable(name: str, endpoint: str) -> str:
    return (
        f"{name}: no such file or directory here, and the Hugging Face hub ({endpoint}) can't be reached. Copy the "
        "dataset here and give its path, or set HF_HUB_OFFLINE=1 if it is in this machine's cache already"
    )


def _reachable(endpoint: str) -> bool:
    """Whether anything answers there, through whatever proxy is set."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except OSError as error:
        # A certificate that Python's own store does not know says nothing about the hub client's.
        return isinstance(getattr(error, "reason", None), ssl.SSLError)
    return True
