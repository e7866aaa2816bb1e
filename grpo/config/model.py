"""The policy, and the number formats of learner and engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from grpo.config.checks import at_least
from grpo.errors import ConfigError


class Dtype(StrEnum):
    """Floating point types, by torch's names."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(slots=True, kw_only=True)
class ModelConfig:
    """The policy's weights, tokenizer and number format."""

    path: str = "smollm2-135m-instruct"  #: built-in name, directory, or Hugging Face id
    revision: str | None = None
    trust_remote_code: bool = False
    param_dtype: Dtype = Dtype.float32  #: of the learner's forward and backward; the optimiser always holds float32
    rollout_dtype: Dtype = Dtype.float32  #: of the engine and of the weights on the wire
    max_length: int = 2048  #: prompt and completion together, tokens

    def __post_init__(self) -> None:
        at_least("model", self, 2, "max_length")
        if not self.path:
            raise ConfigError(
                "model.path", self.path, "empty", "Name a model directory, a Hugging Face id, or a built-in."
            )
