"""A reward head on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grpo.errors import ModelError

_SCORE, _NORM = "score.weight", "norm.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardHead:
    """A linear reward on one layer's states.

    score = score_weight . (norm_weight * h / rms(h)), with h the state after `layer` blocks at the last token of the
    conversation as `chat_template` writes it.

    Attributes:
        score_weight, norm_weight: float32, [H].
        backbone: built-in name or hub id of the model whose states it reads.
        layer: how many blocks of it.
        chat_template: Jinja text.
        facts: where it comes from and what it achieves: data, licence, pairs, held-out figures. For people and for
            `grpo reward_head evaluate`; loading does not depend on it.
    """

    score_weight: np.ndarray
    norm_weight: np.ndarray
    backbone: str
    layer: int
    chat_template: str
    facts: Mapping[str, Any]

    def save(self, file: Path) -> None:
        """Write ``file`` (.safetensors) and the .json beside it."""
        from safetensors.numpy import save_file

        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {_SCORE: self.score_weight[None], _NORM: self.norm_weight}
        save_file({name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}, file)
        about = {
            "backbone": self.backbone,
            "layer": self.layer,
            "chat_template": self.chat_template,
            **self.facts,
        }
        file.with_suffix(".json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> RewardHead:
        """Read ``file`` (.safetensors) and the .json beside it. Raises ModelError if they are no head."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = load_file(file)
            about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
            return cls(
                score_weight=tensors[_SCORE][0],
                norm_weight=tensors[_NORM],
                backbone=about.pop("backbone"),
                layer=about.pop("layer"),
                chat_template=about.pop("chat_template"),
                facts=about,
            )
        except (OSError, SafetensorError, ValueError, LookupError) as error:
            raise ModelError(f"{file}: no reward head ({error}). Fit it anew with grpo reward_head fit") from error
