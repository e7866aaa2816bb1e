"""Lengths and times for a simulation: constant, long-tailed, or measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
#: Draws n values, [n] float64.
Sampler = Callable[[np.random.Generator, int], FloatArray]


def constant(value: float) -> Sampler:
    """Always `value`."""
    return lambda _, n: np.full(n, value)


ZERO = constant(0.0)


def measured(values: Sequence[float]) -> Sampler:
    """One of `values`, each as likely as the others; with replacement."""
    assert len(values)
    pool = np.asarray(values, dtype=np.float64)
    return lambda random, n: random.choice(pool, n)


def long_tailed(median: float, spread: float, longest: float) -> Sampler:
    """Lengths with a long tail: lognormal, the 99th percentile `spread` times the median, cut off at `longest`.

    Rounded up to whole tokens.
    """
    sigma = math.log(spread) / NormalDist().inv_cdf(0.99)
    return lambda random, n: np.ceil(np.minimum(median * np.exp(sigma * random.standard_normal(n)), longest))
