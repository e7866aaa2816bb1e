"""From `model.path` to a directory on disk."""

from __future__ import annotations

import difflib
from pathlib import Path

from grpo.config import ModelConfig
from grpo.errors import ModelError
from grpo.models.builtin import BUILTIN_MODELS
from grpo.models.directory import check_directory

_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer*", "*.model", "*.txt"]


def resolve_model(config: ModelConfig) -> Path:
    """The directory of a model: a built-in name, an existing path, or a Hugging Face id, in this order.

    Built-in models are prepared and ids downloaded on first use. A local directory is never taken for an id, nor an id
    for a directory: `./name` is always a path.

    Raises:
        ModelError: no such directory, one that is no causal language model with whole safetensors weights and a
            tokenizer, or a hub that can't be reached or refuses.
    """
    if config.path in BUILTIN_MODELS:
        path = BUILTIN_MODELS[config.path]()
        try:
            check_directory(path)
        except ModelError as error:
            raise ModelError(f"the cached model is damaged: {error}. Delete {path}; it will be built anew") from error
        return path
    path = Path(config.path).expanduser()
    if not path.exists():
        if config.path.startswith((".", "/", "~")) or config.path.count("/") > 1:
            raise ModelError(f"model.path={config.path!r}: no such directory (looked for {path.absolute()})")
        path = _download(config)
    check_directory(path, trust_remote_code=config.trust_remote_code)
    return path.absolute()


def _download(config: ModelConfig) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"model.path={config.path!r}"
    hub = f"the Hugging Face hub ({constants.ENDPOINT})"
    patterns = [*_WANTED, "*.py"] if config.trust_remote_code else _WANTED
    try:
        folder = snapshot_download(
            config.path, revision=config.revision, allow_patterns=patterns, ignore_patterns=["original/*", "onnx/*"]
        )
    except GatedRepoError as error:  # a RepositoryNotFoundError, so it comes first
        raise ModelError(f"{where}: gated. Accept its terms on {hub} and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{where}: no model.revision={config.revision!r} on {hub}") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"{where}: no such directory here, and no such model on {hub}. {_hint(config.path)}Check the spelling; a "
            "private model needs HF_TOKEN"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{where}: no such directory here, and {hub} can't be reached. {_hint(config.path)}Give a local model "
            "directory, or connect this machine (HF_TOKEN for gated models)"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{where}: the download from {hub} failed ({' '.join(str(error).split())[:300]})") from error
    return Path(folder)


def _hint(path: str) -> str:
    """A built-in name that is spelled nearly so."""
    close = difflib.get_close_matches(path.lower(), BUILTIN_MODELS, n=1)
    return f"Did you mean {close[0]}? " if close else ""
