"""Means and other figures with bootstrap intervals, and how small a difference can be seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

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


def minimal_detectable_effect(differences: Sequence[float], *, power: float = 0.8) -> float | None:
    """The smallest true mean difference that as many pairs would show, at the 5 % level, in `power` of all cases.

    (z(1 − 0.05/2) + z(power)) · s / √n, with s the standard deviation of the n paired differences and z the quantile
    of the normal distribution (Cohen 1988). None for fewer than two pairs. Raises ValueError for a power outside
    (0, 1).
    """
    if not 0 < power < 1:
        raise ValueError(f"power {power} is not between 0 and 1; 0.8 is usual")
    if len(differences) < 2:
        return None
    quantile = NormalDist().inv_cdf
    spread = float(np.std(np.asarray(differences, dtype=np.float64), ddof=1))
    return (quantile((1 + LEVEL) / 2) + quantile(power)) * spread / math.sqrt(len(differences))


def bootstrap_figures(
    count: int, figures: Callable[[np.ndarray], Mapping[str, float]], *, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of any figures of `count` items, by name: `figures` gets the indices of a resample.

    A figure that a resample does not have is left out of it, and one that fewer than half of them have has no interval.
    Raises ValueError without items.
    """
    if count < 1:
        raise ValueError("an interval needs items; got none")
    rng = np.random.default_rng((seed, 96))
    values: dict[str, list[float]] = {}
    for _ in range(resamples):
        for name, value in figures(rng.integers(count, size=count)).items():
            values.setdefault(name, []).append(value)
    often = {name: found for name, found in values.items() if 2 * len(found) >= resamples}
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    bounds = {name: np.quantile(found, tails) for name, found in often.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
