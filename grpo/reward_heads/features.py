"""Hidden states of conversations at several layers: one forward pass for those that begin alike, such as a pair."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo.data.preferences import PreferencePair
from rewards.reward_models.encoding import ChatEncoder, Messages
from rewards.reward_models.loading import Checkpoint, Dtype

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger(__name__)
_CHUNK = 100  # pairs in one file of the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRun:
    """Which states are read.

    Attributes:
        backbone: directory of a causal language model.
        chat_template: Jinja text; the state is read at the rendered conversation's last token.
        layers: after how many blocks, e.g. (10, 20); a head can read one of them.
        max_length: tokens of a conversation; the beginning of a longer one is cut off.
        dtype: number format of the pass; bfloat16 is half again as fast on CPUs that know it, and rounds the states.
        cache: directory for what is done already; an interrupted pass goes on from there.
    """

    backbone: Path
    chat_template: str
    layers: tuple[int, ...]
    max_length: int
    dtype: Dtype
    cache: Path


def read_features(run: FeatureRun, pairs: Sequence[PreferencePair]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """States of the chosen and of the rejected dialogue, float32, [N, 2, layers, H].

    Each is divided by its root mean square, as the model's last norm does with weight 1.
    """
    run.cache.mkdir(parents=True, exist_ok=True)
    reader: _Reader | None = None
    chunks, started, num_read = [], time.monotonic(), 0
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        file = run.cache / f"{_digest(run, chunk)}.npy"
        if not file.is_file():
            reader = reader or _Reader(run)
            dialogues = ([[*pair.prompt, *answer] for answer in (pair.chosen, pair.rejected)] for pair in chunk)
            _write(file, np.stack([reader.read(both) for both in dialogues]))
            num_read += len(chunk)
            pace = (time.monotonic() - started) / num_read
            _LOG.info("%d of %d pairs, %.2f s a pair", start + len(chunk), len(pairs), pace)
        chunks.append(np.load(file))
    return np.concatenate(chunks)


def read_prompt_states(run: FeatureRun, prompts: Sequence[Messages]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """States after prompts alone, float32, [N, layers, H], divided as in `read_features`. Nothing is cached."""
    reader = _Reader(run)
    return np.stack([reader.read([prompt])[0] for prompt in prompts])


class _Reader:
    def __init__(self, run: FeatureRun) -> None:
        from transformers import AutoModel

        checkpoint = Checkpoint(path=run.backbone, dtype=run.dtype)
        self._encoder = ChatEncoder(checkpoint.tokenizer(), chat_template=run.chat_template)
        self._max_length = run.max_length
        self._model = checkpoint.load(AutoModel)
        del self._model.layers[max(run.layers) :]  # nothing above is asked for
        self._states: dict[int, Tensor] = {}
        for layer in run.layers:
            self._model.layers[layer - 1].register_forward_hook(self._keep(layer))

    def read(self, dialogues: Sequence[Messages]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """[dialogues, layers, H]."""
        import torch

        rows = [self._encoder.encode(dialogue) for dialogue in dialogues]
        ids, positions, mask, ends = join_rows([self._encoder.keep_end(row, self._max_length) for row in rows])
        device = self._model.device
        with torch.inference_mode():
            self._model(
                input_ids=ids.to(device),
                position_ids=positions.to(device),
                attention_mask=mask.to(device, self._model.dtype),
            )
            states = torch.stack([self._states[layer][0, ends].float() for layer in sorted(self._states)], dim=1)
            scale = (states.pow(2).mean(-1, keepdim=True) + self._model.config.rms_norm_eps).rsqrt()
            return (states * scale).cpu().numpy()

    def _keep(self, layer: int) -> Any:
        def hook(_: object, __: object, output: Any) -> None:
            self._states[layer] = output[0] if isinstance(output, tuple) else output

        return hook


def join_rows(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Sequences that begin alike as one, their common beginning written once.

    Each one's tokens see that beginning and their own predecessors, so every state is what it would be in a pass of its
    own.

    Returns:
        ids and positions [1, T], the additive mask [1, 1, T, T], and where each sequence ends.
    """
    import torch

    shared = 0
    while all(shared < len(row) - 1 and row[shared] == rows[0][shared] for row in rows):
        shared += 1
    ids, positions, ends = list(rows[0][:shared]), list(range(shared)), list[int]()
    total = shared + sum(len(row) - shared for row in rows)
    visible = torch.zeros(total, total, dtype=torch.bool)
    visible[:shared, :shared] = torch.ones(shared, shared, dtype=torch.bool).tril()
    for row in rows:
        start, end = len(ids), len(ids) + len(row) - shared
        ids += row[shared:]
        positions += range(shared, len(row))
        visible[start:end, :shared] = True
        visible[start:end, start:end] = torch.ones(end - start, end - start, dtype=torch.bool).tril()
        ends.append(end - 1)
    mask = torch.zeros(total, total).masked_fill(~visible, torch.finfo(torch.bfloat16).min)
    return torch.tensor([ids]), torch.tensor([positions]), mask[None, None], ends


def _digest(run: FeatureRun, pairs: Sequence[PreferencePair]) -> str:
    texts = [[pair.prompt, pair.chosen, pair.rejected] for pair in pairs]
    what = [str(run.backbone), run.chat_template, sorted(run.layers), run.max_length, run.dtype.value, texts]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]


def _write(file: Path, array: np.ndarray[Any, Any]) -> None:
    aside = file.with_suffix(".tmp")
    with aside.open("wb") as stream:
        np.save(stream, array)
    aside.rename(file)
