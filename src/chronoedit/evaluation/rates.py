"""Shares of yes among yes and no, with intervals that stay honest at 0 and 1 and where several answers share an item.

All intervals are of 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054  # of the normal distribution, for 95 %
Answers = Sequence[tuple[Hashable, float]]
"""(item, value in [0, 1]) of each answer."""


@dataclass(frozen=True)
class Rate:
    """A share, or half the sum or difference of two, over `count` answers on `items` items, with its interval."""

    rate: float
    low: float
    high: float
    count: int
    items: int

    def to_json(self) -> dict[str, float | int | list[float]]:
        return {"rate": self.rate, "interval": [self.low, self.high], "answers": self.count, "items": self.items}


def wilson(rate: float, count: float) -> tuple[float, float]:
    """Wilson's interval (1927) of a share `rate` in [0, 1] seen in `count` answers; `count` need not be whole.

    Raises ValueError for a share outside [0, 1] or without answers.
    """
    if not (0 <= rate <= 1 and count > 0):
        raise ValueError(f"an interval needs a share in [0, 1] of at least one answer; got {rate} of {count}")
    centre = rate + Z * Z / (2 * count)
    half = Z * math.sqrt(rate * (1 - rate) / count + Z * Z / (4 * count * count))
    scale = 1 + Z * Z / count
    # Rounding must not put the share itself outside: at 0 and 1 a bound equals it.
    return min(rate, max(0.0, (centre - half) / scale)), max(rate, min(1.0, (centre + half) / scale))


def rate_of(answers: Answers) -> Rate:
    """The mean of the answers with Wilson's interval, widened where answers on one item go together.

    The number of answers is divided by the design effect (Rao and Scott 1992), which is the variance between items over
    that of independent answers, never taken below 1. Where all answers agree there is nothing to estimate it from, and
    each item counts as one answer. Raises ValueError without answers, or for one outside [0, 1].
    """
    if not answers:
        raise ValueError("a share needs at least one answer; got none")
    values = np.array([value for _, value in answers], dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"answers are numbers from 0 to 1; got {values.min()} to {values.max()}")
    rate = float(values.mean())
    items = len({item for item, _ in answers})
    low, high = wilson(min(1.0, rate), _independent(answers, rate, items))
    return Rate(rate, low, high, len(answers), items)


def mean_of(first: Answers, second: Answers) -> Rate:
    """Half the sum of two shares; see `_combined`. Raises as `rate_of`."""
    return _combined(first, second, 1)


def difference_of(first: Answers, second: Answers) -> Rate:
    """The first share less the second; see `_combined`. Raises as `rate_of`."""
    half = _combined(first, second, -1)
    return Rate(2 * half.rate, 2 * half.low, 2 * half.high, half.count, half.items)


def half_difference_of(first: Answers, second: Answers) -> Rate:
    """Half of the first share less the second; see `_combined`. Raises as `rate_of`."""
    return _combined(first, second, -1)


def _combined(first: Answers, second: Answers, sign: int) -> Rate:
    """Half of first + sign · second, its interval made of theirs and of how far the two go together over items.

    The method of variance estimates recovery (Newcombe 1998, Zou and Donner 2008).
    """
    a, b = rate_of(first), rate_of(second)
    together = sign * _correlation(first, second, a.rate, b.rate)
    b_down, b_up = (b.rate - b.low, b.high - b.rate) if sign > 0 else (b.high - b.rate, b.rate - b.low)
    rate = (a.rate + sign * b.rate) / 2
    low = rate - _joined(a.rate - a.low, b_down, together) / 2
    high = rate + _joined(a.high - a.rate, b_up, together) / 2
    items = len({item for item, _ in (*first, *second)})
    return Rate(rate, low, high, a.count + b.count, items)


def _joined(x: float, y: float, correlation: float) -> float:
    return math.sqrt(max(0.0, x * x + y * y + 2 * correlation * x * y))


def _independent(answers: Answers, rate: float, items: int) -> float:
    """How many independent answers these are worth."""
    spread = rate * (1 - rate)
    if items == 1 or spread <= 0:
        return items
    residuals = np.array(list(_residuals(answers, rate).values()))
    variance = float((residuals**2).sum()) / len(answers) ** 2 * items / (items - 1)
    return len(answers) / max(1.0, variance / (spread / (len(answers) - 1)))


def _correlation(first: Answers, second: Answers, rate_a: float, rate_b: float) -> float:
    a, b = _residuals(first, rate_a), _residuals(second, rate_b)
    size = math.sqrt(sum(x * x for x in a.values()) * sum(y * y for y in b.values()))
    return sum(x * b.get(item, 0.0) for item, x in a.items()) / size if size else 0.0


def _residuals(answers: Answers, rate: float) -> Mapping[Hashable, float]:
    """By item, the sum of its answers less what the rate would have."""
    residuals: dict[Hashable, float] = {}
    for item, value in answers:
        residuals[item] = residuals.get(item, 0.0) + value - rate
    return residuals
