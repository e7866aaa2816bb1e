"""Pairwise preference: a language model that says "A" or "B", as RLHFlow/pair-preference-model-LLaMA3-8B.

Source: Dong et al., RLHF Workflow, https://arxiv.org/abs/2405.07863, and the model's card. The probability that A is
the better one is softmax over the two labels' logits, so sigmoid(logit_A - logit_B), after the assistant's header.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rewards.base import RewardError
from rewards.reward_models.batching import as_floats, pad_left, run_in_batches
from rewards.reward_models.encoding import ChatEncoder, Messages
from rewards.reward_models.loading import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

_TURN = "\n<turn> {role}\n {content}"
_SUFFIX = "ForCausalLM"


class PairwisePreference:
    """Probability that one answer is better than another, the mean over both orders.

    Args:
        checkpoint, encoder, max_length: as in `SequenceClassifier`. Of a comparison that is too long, the beginning of
            the context goes first, then the beginning of whichever answer stands first.

    Raises:
        RewardError: no causal language model, weights that are not there, or labels that are not one token each.
    """

    def __init__(self, checkpoint: Checkpoint, encoder: ChatEncoder, *, max_length: int) -> None:
        from transformers import AutoModelForCausalLM

        check_pairwise(checkpoint)
        self._labels = [encoder.single_id("A"), encoder.single_id("B")]
        self._model: Any = checkpoint.load(AutoModelForCausalLM)
        self._encoder, self._max_length, self._place = encoder, max_length, checkpoint.place()

    def win_probabilities(
        self, prompt: Messages, pairs: Sequence[tuple[str, str]], micro_batch_tokens: int
    ) -> list[float]:
        """P(first beats second) of each pair of answers to one prompt; two forward passes each.

        (sigmoid(d of first as A) + 1 - sigmoid(d of first as B)) / 2, with d = logit_A - logit_B: so P(x, y) =
        1 - P(y, x), and 1/2 for equal answers. NaN if the model is broken.

        Raises:
            EncodingError: the chat template refuses the comparison.
        """
        rows = [self._encode(prompt, a, b) for first, second in pairs for a, b in ((first, second), (second, first))]
        gaps = run_in_batches(rows, len, micro_batch_tokens, self._forward)
        return [(_sigmoid(one) + _sigmoid(-other)) / 2 for one, other in zip(gaps[::2], gaps[1::2], strict=True)]

    def _encode(self, prompt: Messages, a: str, b: str) -> list[int]:
        # The comparison as that model was trained to see it.
        context = "\n" + "".join(_TURN.format(role=role, content=content) for role, content in prompt) + "\n"
        text = f"[CONTEXT] {context} [RESPONSE A] {a} [RESPONSE B] {b} \n"
        ids = self._encoder.encode([("user", text)], add_generation_prompt=True)
        return self._encoder.keep_end(ids, self._max_length)

    def _forward(self, rows: list[list[int]]) -> list[float]:
        import torch

        # On the left, so that all rows end at the same place and only that one's logits are computed.
        ids, mask = pad_left(rows, 0, self._place)
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        with torch.inference_mode():
            logits: Tensor = self._model(
                input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1
            ).logits
        a, b = self._labels
        return as_floats(logits[:, -1, a].float() - logits[:, -1, b].float())


def check_pairwise(checkpoint: Checkpoint) -> None:
    """Raise RewardError, from config.json alone, for what is no causal language model."""
    name = checkpoint.architecture()
    if not name.endswith(_SUFFIX):
        raise RewardError(
            f"model={str(checkpoint.path)!r}: a {name or 'model without a named architecture'}, not a *{_SUFFIX}; "
            "set the form that fits it, or give another model."
        )


def opponents(count: int, per_attempt: int | None) -> list[tuple[int, int]]:
    """Which of `count` answers are compared: pairs (i, j), i < j.

    All count * (count - 1) / 2 of them, or a ring in which each meets its `per_attempt` nearest: a choice that is the
    same every time and gives each answer as many opponents (an odd number is rounded up).

    Args:
        per_attempt: None: all.
    """
    reach = count // 2 if per_attempt is None else min(count // 2, math.ceil(per_attempt / 2))
    pairs = {tuple(sorted((i, (i + step) % count))) for i in range(count) for step in range(1, reach + 1)}
    return sorted((i, j) for i, j in pairs)


def _sigmoid(x: float) -> float:
    if math.isnan(x):
        return math.nan
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
