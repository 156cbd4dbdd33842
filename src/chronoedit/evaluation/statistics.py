"""Means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over `count` items with its 95 % interval; one item, or equal ones, give an interval of no width."""

    mean: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, float | int | list[float]]:
        return {"mean": self.mean, "interval": [self.low, self.high], "items": self.count}


def bootstrap_mean(values: Sequence[float], *, seed: int = 0) -> Mean:
    """Mean with the percentile bootstrap interval over items (Efron 1979); the same values and seed, the same interval.

    Raises ValueError without values, or when one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"a mean needs finite values in one row; got {array.shape}, finite {np.isfinite(array).all()}")
    rng = np.random.default_rng((seed, 95))
    means = array[rng.integers(array.size, size=(RESAMPLES, array.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Mean(float(array.mean()), float(low), float(high), int(array.size))


def paired_difference(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Mean:
    """Mean of a − b item by item, with its interval: items are resampled, never the two runs apart.

    Raises ValueError when the two have different lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"a paired difference needs the same items; got {len(a)} and {len(b)} values")
    return bootstrap_mean([float(x) - float(y) for x, y in zip(a, b, strict=True)], seed=seed)
