"""A reward without a trained head: the side of the mean on which an answer's embedding lies.

The score of an answer is d . (e - m): e is the mean of its tokens' states, d the difference between the mean embeddings
of compassionate and of indifferent answers, divided by its length, and m their midpoint. The difference of class means
is the direction of "Representation Engineering", https://arxiv.org/abs/2310.01405, and of many after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
#: Tensors of a file of centroids: [H] each but the last, which is [2]: mean and standard deviation of training scores.
TENSORS = ("compassionate", "indifferent", "center_and_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow(Row):
    """A conversation, with the place of the answer in it.

    Attributes:
        start, end: of the answer's tokens and of the one after it, so that an empty answer has one too.
    """

    start: int
    end: int


class Contrast:
    """Embeddings of answers against two centroids.

    Args:
        checkpoint: a language model whose last layer's states are taken.
        encoder: its chat template and tokenizer.
        centroids: file with `TENSORS`; empty: the built-in one.
        max_length: tokens of a conversation; the beginning of a longer one is cut off.

    Raises:
        RewardError: no such file, or one of another model.
    """

    def __init__(self, checkpoint: Checkpoint, encoder: ChatEncoder, *, centroids: str, max_length: int) -> None:
        tensors = _read(Path(centroids) if centroids else BUILT_IN)
        self._embedder = Embedder(checkpoint, encoder, max_length=max_length)
        width = self._embedder.width
        if len(tensors["compassionate"]) != width:
            raise RewardError(
                f"centroids={centroids!r}: of a model with states of width {len(tensors['compassionate'])}; model has "
                f"{width}. Compute them with this model (grpo.reward_heads.centroids)."
            )
        good, bad = tensors["compassionate"], tensors["indifferent"]
        direction = (good - bad) / (good - bad).norm()
        self._direction, self._offset = direction, float(direction @ (good + bad) / 2)
        self.center, self.scale = tensors["center_and_scale"].tolist()

    def encode(self, prompt: Messages, answer: str) -> AnswerRow:
        """The conversation, its end kept."""
        return self._embedder.encode(prompt, answer)

    def score(self, rows: Sequence[Row], micro_batch_tokens: int) -> list[Score]:
        """d . (e - m) of each row."""
        embeddings = self._embedder.embed(cast("Sequence[AnswerRow]", rows), micro_batch_tokens)
        return [Score(value=float(self._direction @ e) - self._offset) for e in embeddings]


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


def check_contrast(checkpoint: Checkpoint, centroids: str) -> None:
    """Raise RewardError for a model that is not there or a file that holds no centroids."""
    checkpoint.config()
    _read(Path(centroids) if centroids else BUILT_IN)


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
        return {name: tensors[name].float() for name in TENSORS}
    except (OSError, SafetensorError, LookupError) as error:
        raise RewardError(
            f"centroids={str(file)!r}: no file of centroids ({error}); write one with grpo.reward_heads.centroids."
        ) from error


def _num_equal(one: Sequence[int], other: Sequence[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
