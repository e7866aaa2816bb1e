"""Backbone and head as one model directory."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo.errors import ModelError
from grpo.reward_heads.head import RewardHead
from rewards.head_facts import FACTS_FILE

_BLOCK = re.compile(r"model\.layers\.(\d+)\.")
_FINAL_NORM = "model.norm.weight"
_LANGUAGE_MODEL = "ForCausalLM"
#: Of the backbone's directory; the weights, the configuration and the chat template are written anew.
_TOKENIZER_FILES = ("tokenizer*", "*.model", "vocab*", "merges*", "special_tokens_map.json", "added_tokens.json")


def compose(backbone: Path, head: RewardHead, directory: Path) -> Path:
    """Write a *ForSequenceClassification directory: the backbone's first blocks, and the head on top.

    Works for models laid out like Llama (``model.layers.N``, ``model.norm``): Llama, Mistral, Qwen2 and more.

    Args:
        backbone: directory of the causal language model that the head was fitted to.
        directory: created if need be.

    Returns:
        `directory`.

    Raises:
        ModelError: another layout, too few blocks, or another width than the head's.
    """
    config: dict[str, Any] = json.loads((backbone / "config.json").read_text(encoding="utf-8"))
    architecture = (config.get("architectures") or [""])[0]
    width, blocks = config.get("hidden_size"), config.get("num_hidden_layers", 0)
    if not architecture.endswith(_LANGUAGE_MODEL):
        raise ModelError(f"{backbone}: a {architecture or 'model of unknown kind'}, no backbone for a reward head")
    if width != len(head.score_weight) or blocks < head.layer:
        raise ModelError(
            f"{backbone}: hidden_size={width}, {blocks} blocks; the head was fitted to {len(head.score_weight)} and "
            f"reads block {head.layer}. Give the backbone it was fitted to, {head.backbone}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    _write_weights(backbone, head, directory / "model.safetensors")
    config |= {
        "architectures": [architecture.removesuffix(_LANGUAGE_MODEL) + "ForSequenceClassification"],
        "num_hidden_layers": head.layer,
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        "tie_word_embeddings": False,
        "pad_token_id": _padding(backbone, config),
    }
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][: head.layer]
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for pattern in _TOKENIZER_FILES:
        for file in backbone.glob(pattern):
            shutil.copy(file, directory / file.name)
    _write_template(directory, head.chat_template)
    facts = {"backbone": head.backbone, "layer": head.layer, **head.facts}
    (directory / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return directory


def _padding(backbone: Path, config: Mapping[str, Any]) -> int | None:
    """A special token that is no end of a turn. Classifiers are read at the last token that is not the padding."""
    tokens = json.loads((backbone / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ends = config.get("eos_token_id")
    special = sorted(token["id"] for token in tokens if token["special"])
    return next((token for token in special if token not in (ends if isinstance(ends, list) else [ends])), None)


def _write_weights(backbone: Path, head: RewardHead, file: Path) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(backbone.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as found:
            for name in found.keys():  # noqa: SIM118 - no mapping
                block = _BLOCK.match(name)
                if name.startswith("model.") and (block is None or int(block[1]) < head.layer):
                    tensors[name] = found.get_tensor(name)
    if _FINAL_NORM not in tensors:
        raise ModelError(f"{backbone}: has no {_FINAL_NORM}, so it is not laid out like Llama. Take another backbone")
    dtype = tensors[_FINAL_NORM].dtype
    tensors[_FINAL_NORM] = torch.from_numpy(head.norm_weight).to(dtype)
    tensors["score.weight"] = torch.from_numpy(head.score_weight)[None].to(dtype)
    save_file(tensors, file, metadata={"format": "pt"})


def _write_template(directory: Path, template: str) -> None:
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = directory / "tokenizer_config.json"
    if settings.is_file():  # older checkpoints keep it there
        content = json.loads(settings.read_text(encoding="utf-8"))
        if content.pop("chat_template", None) is not None:
            settings.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
