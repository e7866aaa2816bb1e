"""Checks of a model directory on disk, before anything loads it: each failure in one sentence with its remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from grpo.errors import ModelError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "tekken.json")
_INDEX = "model.safetensors.index.json"


def check_directory(path: Path, *, trust_remote_code: bool = False) -> None:
    """Check that a directory holds a causal language model: configuration, whole safetensors weights, tokenizer.

    Reads headers only, no weights.

    Raises:
        ModelError: it does not; names the file.
    """
    where = f"model.path={str(path)!r}"
    if not path.is_dir():
        raise ModelError(f"{where}: a file. Give the directory that holds config.json and the weights")
    config = _read_config(path, where)
    _check_model_type(config, where, trust_remote_code)
    _check_weights(path, where)
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{where}: no tokenizer (none of {', '.join(_TOKENIZER_FILES)}). Copy the base model's there")


def _read_config(path: Path, where: str) -> dict[str, object]:
    file = path / "config.json"
    if file.is_file():
        return _read_object(file, where)
    if (path / "adapter_config.json").is_file():
        raise ModelError(f"{where}: a LoRA adapter, not a whole model. Merge it into its base model and save that")
    below = sorted(child.parent for child in path.glob("*/config.json"))
    hint = f"Did you mean {below[0]}?" if below else "Give the directory that holds config.json and the weights"
    raise ModelError(f"{where}: no model, since it holds no config.json. {hint}")


def _read_object(file: Path, where: str) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}: {file.name} can't be read ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{where}: {file.name} holds no JSON object")
    return cast("dict[str, object]", content)


def _check_model_type(config: dict[str, object], where: str, trust_remote_code: bool) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    model_type = config.get("model_type")
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    if "auto_map" not in config:
        raise ModelError(
            f"{where}: model_type={model_type!r} is no causal language model known to the transformers installed. "
            "Take another model, or a newer transformers"
        )
    if not trust_remote_code:
        raise ModelError(
            f"{where}: model_type={model_type!r} brings its own code. Read that code, then set "
            "model.trust_remote_code=true"
        )


def _check_weights(path: Path, where: str) -> None:
    shards = sorted(file.name for file in path.glob("*.safetensors"))
    if (path / _INDEX).is_file():
        weight_map = _read_object(path / _INDEX, where).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{where}: {_INDEX} has no weight_map. Copy the file again")
        named = sorted({str(name) for name in cast("dict[str, object]", weight_map).values()})
        if missing := sorted(set(named) - set(shards)):
            raise ModelError(
                f"{where}: {len(missing)} of {len(named)} weight files named in {_INDEX} are missing: "
                f"{', '.join(missing[:3])}. Copy or download them again"
            )
        shards = named
    if not shards:
        if any(path.glob("*.bin")) or any(path.glob("*.pt*")):
            raise ModelError(
                f"{where}: weights in pickle format (.bin) only, which can run code when loaded. Convert them: "
                "AutoModelForCausalLM.from_pretrained(PATH).save_pretrained(NEW_PATH)"
            )
        raise ModelError(f"{where}: no weights (*.safetensors). Copy or download them again")
    for shard in shards:
        _check_header(path / shard, where)


def _check_header(file: Path, where: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            if not list(tensors.keys()):
                raise ModelError(f"{where}: {file.name} holds no tensors")
    except (SafetensorError, OSError) as error:
        with file.open("rb") as raw:
            pointer = raw.read(64).startswith(b"version https://git-lfs")
        problem = "is a Git LFS pointer, not the weights. Run git lfs pull" if pointer else None
        problem = problem or f"is damaged or cut off ({error}). Copy or download it again"
        raise ModelError(f"{where}: {file.name} {problem}") from error
