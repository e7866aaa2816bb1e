"""Which weights sampled which tokens of a completion."""

from __future__ import annotations

from collections.abc import Sequence


def version_spans(arrivals: Sequence[tuple[int, int]], num_tokens: int) -> tuple[tuple[int, int], ...]:
    """(policy version, number of tokens) in order, without empty ones; one empty span where there are no tokens.

    Args:
        arrivals: (policy version, tokens there were when it arrived), oldest first. The first is of 0 tokens.
        num_tokens: of the finished completion.
    """
    starts = [min(start, num_tokens) for _, start in arrivals]
    ends = [*starts[1:], num_tokens]
    spans = [(version, end - start) for (version, _), start, end in zip(arrivals, starts, ends, strict=True)]
    return tuple(span for span in spans if span[1]) or ((arrivals[-1][0], 0),)
