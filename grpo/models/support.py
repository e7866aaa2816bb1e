"""Which architectures the learner computes rightly: refuse the others before any of them trains on wrong numbers.

The learner applies the output head itself (logits = W h, to loss tokens only) and puts plain causal attention over
packed sequences in place of the model's own. Anything a model does beyond that would be left out in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo.config import ModelConfig
from grpo.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Attributes that change logits or attention scores: the value at which they change nothing, and what they do.
_NEUTRAL: dict[str, tuple[object, str]] = {
    "final_logit_softcapping": (None, "caps the logits"),
    "logits_soft_cap": (None, "caps the logits"),
    "attn_logit_softcapping": (None, "caps the attention scores"),
    "logit_scale": (1, "scales the logits"),
    "logits_scaling": (1, "scales the logits"),
    "lm_head_multiplier": (1, "scales the logits"),
    "alibi": (False, "adds position biases to the attention scores"),
    "quantization_config": (None, "quantises the weights, which can't be trained. Take the unquantised model"),
}
#: Models whose attention has learned sinks, a parameter and not an attribute of the configuration.
_WITH_SINKS = frozenset({"gpt_oss", "granite_swa", "granitemoe_swa", "mimo_v2_flash"})


def check_supported(path: Path, model: ModelConfig) -> PretrainedConfig:
    """Load a model's configuration and refuse what the learner would compute wrongly.

    Args:
        path: a directory that `resolve_model` returned.
        model: supplies `max_length`, in tokens, and `trust_remote_code`.

    Returns:
        The transformers configuration.

    Raises:
        ModelError: an unsupported architecture; names the attribute.
        ConfigError: `model.max_length` is beyond the model's positions.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, TypeError, KeyError) as error:
        message = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model.path={str(path)!r}: transformers does not accept its config.json ({message})"
        ) from error
    text = config.get_text_config(decoder=True)
    if reason := _refusal(config, model) or _attribute_refusal(text) or _window_refusal(text, model.max_length):
        raise ModelError(
            f"model.path={str(path)!r} ({config.model_type}): {reason}. Keel trains decoders with plain causal "
            "attention and a linear head (Llama, Qwen2, Qwen3, Mistral, OLMo, ...)"
        )
    positions = getattr(text, "max_position_embeddings", None)
    if isinstance(positions, int) and positions < model.max_length:
        raise ConfigError(
            "model.max_length",
            model.max_length,
            f"the model was made for max_position_embeddings={positions}",
            f"Set it to {positions} or less.",
        )
    return config


def _refusal(config: PretrainedConfig, model: ModelConfig) -> str | None:
    """What the model's class tells."""
    from transformers import AutoModelForCausalLM

    if config.is_encoder_decoder:
        return "is_encoder_decoder=True, it is no decoder-only model"
    if config.model_type in _WITH_SINKS:
        return f"model_type={config.model_type!r} has attention sinks, which the learner's attention leaves out"
    architecture: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if architecture is None:
        return None if model.trust_remote_code else f"model_type={config.model_type!r} is no causal language model"
    if getattr(architecture, "_is_stateful", False):
        return f"{architecture.__name__} has recurrent layers, whose state would leak across packed sequences"
    if not getattr(architecture, "_supports_attention_backend", False):
        return f"{architecture.__name__} takes no other attention than its own"
    return None


def _attribute_refusal(config: PretrainedConfig) -> str | None:
    for name, (neutral, effect) in _NEUTRAL.items():
        value = getattr(config, name, None)
        if value is not None and value != neutral:
            return f"{name}={_short(value)} {effect}"
    return None


def _window_refusal(config: PretrainedConfig, max_length: int) -> str | None:
    """A window or chunk that no sequence of at most `max_length` tokens reaches is no obstacle."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if other := kinds - {"full_attention", "attention", "sliding_attention", "chunked_attention"}:
        return f"layer_types has {', '.join(sorted(other))}, which the learner does not compute"
    limits = {"sliding_window": "sliding_attention", "attention_chunk_size": "chunked_attention"}
    for name, kind in limits.items():
        size = getattr(config, name, None)
        used = kind in kinds if kinds else getattr(config, "use_sliding_window", True)
        if isinstance(size, int) and used and size < max_length:
            return f"{name}={size} cuts the attention off below model.max_length={max_length}; lower that to {size}"
    return None


def _short(value: object) -> str:
    """The value, or what a nested one is called."""
    named = value.get("quant_method") if isinstance(value, dict) else None
    return repr(named or value)[:60]
