"""Checkpoints from a local directory: device, number format, and a refusal of weights that are not there."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rewards.base import RewardError

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = 3  # missing tensors named in a message


class Dtype(StrEnum):
    """Number format of a reward model's weights. Heads are always computed in float32."""

    auto = "auto"  #: bfloat16 on a GPU, float32 on a CPU
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model directory and how it is to be loaded.

    Attributes:
        path: holds config.json, *.safetensors and the tokenizer.
        dtype: number format of the weights.
        device: "auto" (a GPU where one is visible), "cpu", "cuda" or "cuda:N".
    """

    path: Path
    dtype: Dtype = Dtype.auto
    device: str = "auto"

    def config(self) -> dict[str, object]:
        """Content of config.json. Raises RewardError if there is none."""
        try:
            content = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RewardError(
                f"model={str(self.path)!r}: no model directory here ({error}); set a local directory, a built-in name "
                "or a Hugging Face id."
            ) from error
        return cast("dict[str, object]", content)

    def architecture(self) -> str:
        """The first of config.json's `architectures`, or ""."""
        names = self.config().get("architectures")
        return str(cast("list[object]", names)[0]) if isinstance(names, list) and names else ""

    def longest(self) -> int:
        """Tokens of the longest sequence that the model has positions for."""
        positions = self.config().get("max_position_embeddings")
        return positions if isinstance(positions, int) else sys.maxsize

    def place(self) -> str:
        """The device, as torch names it."""
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def number_format(self) -> Any:
        """The torch.dtype."""
        import torch

        if self.dtype is Dtype.auto:
            return torch.bfloat16 if self.place().startswith("cuda") else torch.float32
        return getattr(torch, self.dtype.value)

    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        from transformers import AutoTokenizer

        with quiet():
            return cast("Any", AutoTokenizer).from_pretrained(self.path, trust_remote_code=False)

    def load(self, kind: Any) -> Any:
        """The weights in a model class of transformers, ready for inference.

        Raises:
            RewardError: tensors that the class needs are not in the checkpoint, or have another shape. Transformers
                would fill them with random numbers and only warn: the classic reward model with a random head.
        """
        options = {"dtype": self.number_format(), "output_loading_info": True, "trust_remote_code": False}
        try:
            with quiet():
                model, found = kind.from_pretrained(self.path, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise RewardError(f"model={str(self.path)!r}: can't be loaded: {_one_line(error)}") from error
        missing = sorted({*found["missing_keys"], *(str(key[0]) for key in found["mismatched_keys"])})
        if missing:
            raise RewardError(
                f"model={str(self.path)!r}: {', '.join(missing[:_NAMED])}{' ...' if missing[_NAMED:] else ''} not in "
                f"the checkpoint, so {type(model).__name__} would score with random weights; give a trained reward "
                "model."
            )
        model.config.use_cache = False
        return model.to(self.place()).eval().requires_grad_(False)

    def tensor_names(self) -> dict[str, Path]:
        """The file of every tensor in *.safetensors; reads headers only."""
        from safetensors import SafetensorError, safe_open

        names: dict[str, Path] = {}
        for file in sorted(self.path.glob("*.safetensors")):
            try:
                with cast("Any", safe_open)(file, framework="pt") as tensors:
                    names.update(dict.fromkeys(tensors.keys(), file))
            except (SafetensorError, OSError) as error:
                raise RewardError(f"model={str(self.path)!r}: {file.name} can't be read ({error}).") from error
        return names

    def tensors(self, wanted: Sequence[str]) -> dict[str, Tensor]:
        """Some tensors by name, float32, on the device. Raises RewardError for one that is not there."""
        from safetensors import safe_open

        files = self.tensor_names()
        found: dict[str, Tensor] = {}
        for name in wanted:
            if name not in files:
                raise RewardError(f"model={str(self.path)!r}: {name} is not in the checkpoint.")
            with cast("Any", safe_open)(files[name], framework="pt") as tensors:
                found[name] = tensors.get_tensor(name).float().to(self.place())
        return found


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """No progress bars and no warnings of transformers inside."""
    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
