"""ArmoRM: many objectives, weighted by a gate that looks at the prompt.

Paper: Wang et al., Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts,
https://arxiv.org/abs/2406.12845. The layout of the checkpoint is that of RLHFlow/ArmoRM-Llama3-8B-v0.1, of which a
description, the tensors' names and shapes, and code derived from its own were at hand, but not the weights: the
arithmetic is checked against a straight-line computation on a small random checkpoint of that layout.

It departs from the code that comes with the checkpoint in three points: heads are computed in float32, not in the
backbone's format; the prompt's end is found in the prompt's own rendering, not by searching the whole conversation, so
that no answer can move it; and an answer that is longer than `max_length` loses its beginning, not the prompt's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewards.base import RewardError
from rewards.reward_models.batching import pad_right, run_in_batches
from rewards.reward_models.conversation import Row, Score
from rewards.reward_models.encoding import ChatEncoder, EncodingError, Messages
from rewards.reward_models.loading import Checkpoint

_REGRESSION, _TRANSFORM, _SCALE = "regression_layer.weight", "reward_transform_matrix", "gating.logit_scale"
_DEFAULT_TEMPERATURE = 10.0
#: Share of `max_length` that the prompt's end keeps where the answer alone would fill it.
_PROMPT_SHARE = 4


class ArmoRM:
    """score = sum over objectives k of g_k(prompt) * (r M)_k, with r = W h_end and M the transform matrix.

    g = s * softmax(MLP(h_prompt) / temperature); h_end is the last hidden state of the conversation's last token and
    h_prompt that of the prompt's last token, which in Llama 3 is the ``<|eot_id|>`` before the assistant's header.

    Args:
        checkpoint, encoder, max_length: as in `SequenceClassifier`.

    Raises:
        RewardError: a tensor of this layout is not in the checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint, encoder: ChatEncoder, *, max_length: int) -> None:
        from transformers import AutoModel

        check_armorm(checkpoint)
        self._backbone: Any = checkpoint.load(AutoModel)
        self._encoder, self._max_length, self._place = encoder, max_length, checkpoint.place()
        layers = _gate_layers(checkpoint)
        gate = [f"{name}.{part}" for name in layers for part in ("weight", "bias")]
        wanted = [_REGRESSION, _TRANSFORM, _SCALE, *gate]
        tensors = checkpoint.tensors(wanted)
        self._regression, self._transform, self._scale = (tensors[name] for name in wanted[:3])
        self._gate = [(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in layers]
        temperature = checkpoint.config().get("gating_temperature", _DEFAULT_TEMPERATURE)
        if not isinstance(temperature, int | float) or not temperature > 0:
            raise RewardError(f"model={str(checkpoint.path)!r}: gating_temperature={temperature!r} in config.json.")
        self._temperature = float(temperature)

    def encode(self, prompt: Messages, answer: str) -> Row:
        """The conversation, cut so that the prompt's end, the assistant's header and the answer's end stay."""
        before = self._encoder.encode(prompt)
        ids = self._encoder.encode([*prompt, ("assistant", answer)])
        if ids[: len(before)] != before:
            raise EncodingError("prompt_changed_by_answer")
        opened = self._encoder.encode(prompt, add_generation_prompt=True)
        header_end = len(opened) if ids[: len(opened)] == opened else len(before)
        if len(ids) <= self._max_length:
            return Row(ids=ids, prompt_end=len(before) - 1)
        return self._cut(ids, len(before) - 1, header_end)

    def score(self, rows: Sequence[Row], micro_batch_tokens: int) -> list[Score]:
        """One score for each row; the details are r M, objective by objective."""
        return run_in_batches(rows, lambda row: len(row.ids), micro_batch_tokens, self._forward)

    def _cut(self, ids: list[int], prompt_end: int, header_end: int) -> Row:
        head = self._encoder.num_leading(ids)
        start = len(ids) - self._max_length + head  # of what stays, if only a beginning goes
        start = min(start, max(head, prompt_end - self._max_length // _PROMPT_SHARE))
        kept = [*ids[:head], *ids[start:header_end]]
        kept += ids[max(header_end, len(ids) - self._max_length + len(kept)) :]
        return Row(ids=kept, is_truncated=True, prompt_end=head + prompt_end - start)

    def _forward(self, rows: list[Row]) -> list[Score]:
        import torch

        ids, mask = pad_right([row.ids for row in rows], 0, self._place)
        with torch.inference_mode():
            hidden = self._backbone(input_ids=ids, attention_mask=mask).last_hidden_state
            each = torch.arange(len(rows), device=hidden.device)
            last = torch.tensor([len(row.ids) - 1 for row in rows], device=hidden.device)
            prompt_end = torch.tensor([row.prompt_end for row in rows], device=hidden.device)
            objectives = hidden[each, last].float() @ self._regression.T @ self._transform
            gate = hidden[each, prompt_end].float()
            for number, (weight, bias) in enumerate(self._gate):
                gate = torch.nn.functional.linear(gate.relu() if number else gate, weight, bias)
            gate = self._scale * torch.softmax(gate / self._temperature, dim=-1)
            values = (gate * objectives).sum(-1)
        names = [f"objective_{k}" for k in range(objectives.shape[-1])]
        return [
            Score(value=value, details=dict(zip(names, parts, strict=True)))
            for value, parts in zip(values.tolist(), objectives.tolist(), strict=True)
        ]


def check_armorm(checkpoint: Checkpoint) -> None:
    """Raise RewardError, from headers alone, for what is no ArmoRM checkpoint."""
    names = checkpoint.tensor_names()
    if missing := [name for name in (_REGRESSION, _TRANSFORM, _SCALE, "gating.layers.0.weight") if name not in names]:
        raise RewardError(
            f"model={str(checkpoint.path)!r}: {', '.join(missing)} not in the checkpoint, so it is no ArmoRM; set the "
            "form that fits it, or give another model."
        )


def _gate_layers(checkpoint: Checkpoint) -> list[str]:
    names = {name.rsplit(".", 1)[0] for name in checkpoint.tensor_names() if name.startswith("gating.layers.")}
    return sorted(names, key=lambda name: int(name.rsplit(".", 1)[1]))
