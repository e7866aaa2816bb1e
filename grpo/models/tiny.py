"""A random Llama of some hundred thousand parameters, with a real tokenizer: small enough for every test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from grpo.models.silence import silent_transformers

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Part of the cached directory's name: change it with anything that changes the files below.
TINY_VERSION = "1"
TINY_VOCAB_SIZE = 320

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_END_OF_TEXT, _END_OF_TURN = 0, 2
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# fmt: off
#: Words whose prefixes become tokens ("Ġ" is a space and "Ċ" a newline in byte-level BPE).
_WORDS = (
    "Ġreturn", "Ġfunction", "ĠPython", "ĠWrite", "Ġthat", "python", "assistant", "user", "Ġthe", "def", "ĊĠĠĠĠ", "```",
    "Ġlist", "Ġnumber",
)
# fmt: on


def tiny_model(directory: Path, *, seed: int = 0) -> Path:
    """Write a random Llama and its byte-level BPE tokenizer as a Hugging Face directory.

    Hidden 64, 2 layers, 4 query and 2 key/value heads of size 32 (vLLM's CPU attention takes no smaller one),
    intermediate 128, tied embeddings, float32, 320 tokens, ChatML, at most 2,048 positions. The same seed writes the
    same weights, and the caller's random state is left as it was.

    Args:
        directory: created if need be.
        seed: of the weights; the tokenizer is the same for all.

    Returns:
        `directory`.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=TINY_VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=_END_OF_TURN,
        pad_token_id=_END_OF_TEXT,
        dtype=torch.float32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=_END_OF_TURN, pad_token_id=_END_OF_TEXT)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(),
        eos_token=_SPECIAL[_END_OF_TURN],
        pad_token=_SPECIAL[_END_OF_TEXT],
        chat_template=_CHATML,
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )
    with silent_transformers():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directory


def _byte_level_bpe() -> Tokenizer:
    """All 256 bytes, the special tokens, and merges up to the vocabulary's size; every text is encoded losslessly."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocab = {token: index for index, token in enumerate((*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if "".join(pair) not in vocab and len(vocab) < TINY_VOCAB_SIZE:
                vocab["".join(pair)] = len(vocab)
                merges.append(pair)
    assert len(vocab) == TINY_VOCAB_SIZE
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    return tokenizer
