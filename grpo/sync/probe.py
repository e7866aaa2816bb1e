"""Does the engine compute with the weights that it was sent? Logprobs of a fixed prompt, engine against learner.

Checksums end where the engine begins to load; this does not. It finds weights that are wrong, not those that are one
small update old: an update with a learning rate of 1e-6 moves logprobs by less than the tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from grpo.config import Dtype
from grpo.errors import SyncError
from grpo.packing import pack
from grpo.records import FloatArray, MicroBatch, TrainSequence

#: Plain prose, in which every model is sure of something: noise is smallest where a logprob is near 0.
PROBE_TEXT = (
    "The weights of a network are numbers, and numbers can be compared. If two machines hold the same numbers and read "
    "the same words, they expect the same words to follow. Where they do not, one of them has been told something else."
)
#: Nats, over the tokens of the probe. bfloat16 spaces numbers between 16 and 32, where large logits lie, by 1/8; both
#: sides round there after rounding in every layer before: four spacings. float16 has three bits more. float32 differs
#: by the order of its sums alone.
TOLERANCES = {Dtype.float32: 1e-3, Dtype.float16: 0.0625, Dtype.bfloat16: 0.5}
_MOST_TOKENS = 64


def probe_tokens(encoded: Sequence[int], max_length: int) -> tuple[int, ...]:
    """The probe's token ids, [T], two at least: the encoded text, cut to what the engine takes with one token more."""
    tokens = tuple(encoded[: min(_MOST_TOKENS, max_length - 1)])
    return tokens if len(tokens) > 1 else (0, 1)


def probe_batch(token_ids: Sequence[int]) -> MicroBatch:
    """The learner's batch for those tokens, [T]: its loss tokens are all but the first, [T - 1]."""
    sequence = TrainSequence(
        token_ids=np.asarray(token_ids, dtype=np.int64),
        num_prompt_tokens=1,
        behavior_logprobs=np.zeros(len(token_ids) - 1, dtype=np.float32),
        advantage=0.0,
        prompt_uid=0,
    )
    return pack([[sequence]], [[1.0]])


def tolerance(*dtypes: Dtype) -> float:
    """Largest difference in nats that rounding explains where these types take part."""
    return max(TOLERANCES[dtype] for dtype in dtypes)


def largest_difference(engine: FloatArray, learner: FloatArray) -> float:
    """Over the tokens of the probe, [T - 1] each; infinite where one is not finite."""
    first, second = np.asarray(engine, dtype=np.float64), np.asarray(learner, dtype=np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("inf")
    return float(np.abs(first - second).max())


def first_different(sent: Mapping[str, int], held: Sequence[Mapping[str, int]]) -> tuple[str, int] | None:
    """The first tensor, in the order sent, of which an engine process holds something else, and that process.

    Args:
        sent: checksums by name.
        held: for each process those of the tensors that could be read back.
    """
    for name, expected in sent.items():
        for process, checksums in enumerate(held):
            if checksums.get(name, expected) != expected:
                return name, process
    return None


def mismatch(version: int, worker: str, difference: float, limit: float, found: tuple[str, int] | None) -> SyncError:
    """The error that stops the run."""
    where = (
        f"The first tensor that differs is {found[0]} in its process {found[1]}"
        if found
        else "No tensor that could be read back differs, so it is one that the engine keeps in a layout of its own, or "
        "the engine computes something else"
    )
    return SyncError(
        f"policy version {version}: {worker} does not compute what the learner does. Logprobs of the probe differ by "
        f"{difference:.4g} nats, and rounding explains {limit:g}. {where}. Its samples can't be trained on; "
        "sync.probe_every=0 turns this check off."
    )
