"""A reward without a trained head: the side of the mean on which an answer's embedding lies.

The score of an answer is d . (e - m): e is the mean of its tokens' states, d the difference between the mean embeddings
of compassionate and of indifferent answers, divided by its length, and m their midpoint. The difference of class means
is the direction of "Representation Engineering", https://arxiv.org/abs/2310.01405, and of many after it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rewards.base import RewardError
from rewards.reward_models.batching import pad_right, run_in_batches
from rewards.reward_models.conversation import Row, Score
from rewards.reward_models.encoding import ChatEncoder, Messages
from rewards.reward_models.loading import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

BUILT_IN = Path(__file__).with_name("compassion_centroids.safetensors")
_TENSORS = ("compassionate", "indifferent", "center_and_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to one prompt, of which one is compassionate."""

    prompt: Messages
    compassionate: str
    indifferent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow(Row):
    """A conversation, with the place of the answer in it.

    Attributes:
        start, end: of the answer's tokens and of the one after it, so that an empty answer has one too.
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Centroids:
    """Mean embeddings of two kinds of answers, and how the scores of single ones spread around their midpoint.

    Attributes:
        compassionate, indifferent: float32, [H] each.
        center, scale: mean and standard deviation of the scores of all answers, of both kinds.
    """

    compassionate: Tensor
    indifferent: Tensor
    center: float = 0.0
    scale: float = 1.0

    def scores(self, embeddings: Tensor) -> Tensor:
        """d . (e - m) of each row; [N, H] -> [N]."""
        difference = self.compassionate - self.indifferent
        return (embeddings - (self.compassionate + self.indifferent) / 2) @ (
            difference / difference.square().sum().sqrt()
        )

    @classmethod
    def of(cls, embedder: Embedder, pairs: Sequence[Pair], micro_batch_tokens: int) -> Centroids:
        """Of some pairs. Raises EncodingError if the chat template refuses one."""
        import torch

        rows = [embedder.encode(pair.prompt, pair.compassionate) for pair in pairs]
        rows += [embedder.encode(pair.prompt, pair.indifferent) for pair in pairs]
        embeddings = torch.stack(embedder.embed(rows, micro_batch_tokens))
        means = cls(compassionate=embeddings[: len(pairs)].mean(0), indifferent=embeddings[len(pairs) :].mean(0))
        scores = means.scores(embeddings)
        return replace(means, center=float(scores.mean()), scale=float(scores.std(correction=0)))

    @classmethod
    def load(cls, file: Path) -> Centroids:
        """Read what `save` wrote. Raises RewardError."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

        try:
            compassionate, indifferent, spread = (cast("Any", load_file)(file)[name] for name in _TENSORS)
        except (OSError, SafetensorError, LookupError) as error:
            raise RewardError(f"pairs='': {file} holds no centroids ({error}); set a file of pairs.") from error
        center, scale = spread.tolist()
        return cls(compassionate=compassionate, indifferent=indifferent, center=center, scale=scale)

    def save(self, file: Path) -> None:
        """Write a safetensors file."""
        import torch
        from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

        tensors = (self.compassionate, self.indifferent, torch.tensor([self.center, self.scale]))
        cast("Any", save_file)(dict(zip(_TENSORS, tensors, strict=True)), file)


class Contrast:
    """Embeddings of answers against two centroids.

    Args:
        checkpoint: a language model whose last layer's states are taken.
        encoder: its chat template and tokenizer.
        pairs: a file as `read_pairs` takes it, of which the centroids are computed with this model; empty: the built-in
            centroids, which go with the default model alone.
        max_length: tokens of a conversation; the beginning of a longer one is cut off.
        micro_batch_tokens: of one forward pass over `pairs`.

    Raises:
        RewardError: no such pairs, or centroids of another model.
    """

    def __init__(
        self, checkpoint: Checkpoint, encoder: ChatEncoder, *, pairs: str, max_length: int, micro_batch_tokens: int
    ) -> None:
        self._embedder = Embedder(checkpoint, encoder, max_length=max_length)
        if pairs:
            self.centroids = Centroids.of(self._embedder, read_pairs(Path(pairs)), micro_batch_tokens)
        else:
            self.centroids = Centroids.load(BUILT_IN)
        if (width := len(self.centroids.compassionate)) != self._embedder.width:
            raise RewardError(
                f"pairs='': the built-in centroids have width {width}, the model {self._embedder.width}; set a file of "
                "pairs, from which they are computed anew."
            )

    def encode(self, prompt: Messages, answer: str) -> AnswerRow:
        """The conversation, its end kept."""
        return self._embedder.encode(prompt, answer)

    def score(self, rows: Sequence[Row], micro_batch_tokens: int) -> list[Score]:
        """d . (e - m) of each row."""
        import torch

        embeddings = self._embedder.embed(cast("Sequence[AnswerRow]", rows), micro_batch_tokens)
        if not embeddings:
            return []
        values: list[float] = cast("Any", self.centroids.scores(torch.stack(embeddings))).tolist()
        return [Score(value=value) for value in values]


class Embedder:
    """Mean states of answers, float32 on the CPU, each state first divided by its root mean square."""

    def __init__(self, checkpoint: Checkpoint, encoder: ChatEncoder, *, max_length: int) -> None:
        from transformers import AutoModel

        self._model: Any = checkpoint.load(AutoModel)
        self._encoder, self._max_length = encoder, max_length
        self.width: int = self._model.config.get_text_config().hidden_size

    def encode(self, prompt: Messages, answer: str) -> AnswerRow:
        """The conversation, its end kept, and where the answer stands in it. Raises EncodingError."""
        ids = self._encoder.encode([*prompt, ("assistant", answer)])
        bare = self._encoder.encode([*prompt, ("assistant", "")])
        start = _num_equal(ids, bare)
        after = min(_num_equal(ids[::-1], bare[::-1]), len(bare) - start)
        kept = self._encoder.keep_end(ids, self._max_length)
        cut = len(ids) - len(kept)
        start, end = max(0, start - cut), min(len(kept), len(ids) - after + 1 - cut)
        return AnswerRow(ids=kept, is_truncated=cut > 0, start=min(start, end - 1), end=end)

    def embed(self, rows: Sequence[AnswerRow], micro_batch_tokens: int) -> list[Tensor]:
        """[H] of each row."""
        return run_in_batches(rows, lambda row: len(row.ids), micro_batch_tokens, self._forward)

    def _forward(self, rows: list[AnswerRow]) -> list[Tensor]:
        import torch

        ids, mask = pad_right([row.ids for row in rows], 0, self._model.device)
        with torch.inference_mode():
            states: Tensor = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            states = states * (states.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
            return [states[number, row.start : row.end].mean(0).cpu() for number, row in enumerate(rows)]


def read_pairs(file: Path) -> list[Pair]:
    """Pairs of a JSON lines file with `prompt` (text), `chosen` (compassionate) and `rejected` (indifferent).

    Raises:
        RewardError: no such file, no pairs in it, or a row that is none.
    """
    pairs: list[Pair] = []
    try:
        for line in filter(str.strip, file.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            prompt, good, bad = (str(row[name]) for name in ("prompt", "chosen", "rejected"))
            pairs.append(Pair(prompt=(("user", prompt),), compassionate=good, indifferent=bad))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RewardError(
            f"pairs={str(file)!r}: row {len(pairs) + 1}: no JSON line with prompt, chosen and rejected ({error!r})."
        ) from error
    if not pairs:
        raise RewardError(f"pairs={str(file)!r}: holds no pairs; set a file of JSON lines.")
    return pairs


def check_contrast(checkpoint: Checkpoint, pairs: str) -> None:
    """Raise RewardError for a model that is not there, or a file that holds no pairs."""
    checkpoint.config()
    if pairs:
        read_pairs(Path(pairs))


def _num_equal(one: Sequence[int], other: Sequence[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
