"""Who is next, so that shares are kept at every moment: no chance, no drift."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def next_index(counts: Sequence[int], weights: Sequence[Fraction]) -> int:
    """Whose turn it is after each has had `counts`, so that no count strays a whole turn from its share.

    After n turns every count is within 1 - 1/(2k - 2) of n * weight / sum of the k weights (k > 1): Tijdeman's solution
    of the chairman assignment problem (Discrete Mathematics 32, 1980, 323-330). Of those whose deficit allows a turn,
    the one whose deficit would become too large first takes it; of equals, the first.

    Exact, since weights are fractions: the same on every machine.
    """
    if len(counts) == 1:
        return 0
    total, turn = sum(weights), sum(counts) + 1
    slack = Fraction(1, 2 * len(counts) - 2)
    best, best_deadline = -1, Fraction(0)
    for index, (count, weight) in enumerate(zip(counts, weights, strict=True)):
        deficit = turn * weight / total - count
        if deficit < slack or not weight:
            continue
        deadline = (1 - slack - deficit) * total / weight
        if best < 0 or deadline < best_deadline:
            best, best_deadline = index, deadline
    assert best >= 0, "some deficit is at least 1 / k, which is enough"
    return best


def apportion(weights: Sequence[Fraction], num_turns: int) -> list[int]:
    """The first `num_turns` turns of `next_index`."""
    counts = [0] * len(weights)
    turns: list[int] = []
    for _ in range(num_turns):
        turns.append(next_index(counts, weights))
        counts[turns[-1]] += 1
    return turns
