"""How far two judges agree on the same edits: Cohen's kappa, plain and weighted, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .bench_summary import Item, verdict_of
from .bench_summary import judge_of as chosen_judge
from .statistics import bootstrap_figures, paired_difference

WEIGHTS = {"kappa": 0, "linear_kappa": 1, "quadratic_kappa": 2}
"""The kappas, with the power of the distance between two scores that their disagreement weighs; 0 is any distance."""


def kappa(a: Sequence[float], b: Sequence[float], power: int = 0) -> float | None:
    """Cohen's kappa of two judges' scores of the same items, in [-1, 1]; 0 is what chance alone would give.

    1 − Σ w·observed / Σ w·expected over all pairs of scores, with weights w = |x − y|^power, and w = [x ≠ y] for a
    power of 0 (Cohen 1960, 1968): 1 is the linear kappa, 2 the quadratic one. None when both judges gave one and the
    same score throughout. Raises ValueError without items, or for different lengths.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"kappa needs two scores of every item; got {len(a)} and {len(b)}")
    table, weights = _table(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64), power)
    return _kappa(table, weights)


def agreement(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """The share of equal scores, the kappas and the mean difference a − b, each with its interval over items.

    Raises ValueError as `kappa`.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"agreement needs two scores of every item; got {len(a)} and {len(b)}")
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    values = np.unique(np.concatenate([left, right]))
    places = np.searchsorted(values, left), np.searchsorted(values, right)
    weights = {name: _weights(values, power) for name, power in WEIGHTS.items()}

    def figures(drawn: np.ndarray) -> dict[str, float]:
        table = _counts(places[0][drawn], places[1][drawn], len(values))
        kappas = {name: _kappa(table, weight) for name, weight in weights.items()}
        equal = float(np.trace(table) / table.sum())
        return {"equal": equal, **{name: value for name, value in kappas.items() if value is not None}}

    whole = figures(np.arange(len(left)))
    intervals = bootstrap_figures(len(left), figures)
    difference = paired_difference(list(left), list(right))
    return {
        "items": len(left),
        **{name: _with_interval(whole.get(name), intervals.get(name)) for name in ("equal", *WEIGHTS)},
        "difference": {"value": difference.mean, "interval": [difference.low, difference.high]},
    }


def agree_on_runs(
    items_a: Sequence[Item], items_b: Sequence[Item], judge_a: str | None = None, judge_b: str | None = None
) -> dict[str, Any]:
    """The agreement of two judges on the same edits, by criterion and overall (the mean of an item's criteria).

    The two runs may be one, judged twice. "missing" counts the edits that only one of them, or neither, could score.
    Raises ValueError when the runs are not of the same edited pictures, or no edit was scored by both.
    """
    first, second = chosen_judge(items_a, judge_a), chosen_judge(items_b, judge_b)
    pairs = _same_edits(items_a, items_b)
    scores = [(verdict_of(x, first).scores, verdict_of(y, second).scores) for x, y in pairs]
    criteria = list(dict.fromkeys(name for x, y in scores for name in x if name in y))
    if not criteria:
        raise ValueError(f"{first} and {second} have scored no edit in common; judge the same run with both")
    both = {name: [(x[name], y[name]) for x, y in scores if name in x and name in y] for name in criteria}
    whole = [(x, y) for x, y in scores if x and x.keys() == y.keys()]
    found = {name: agreement([x for x, _ in of_both], [y for _, y in of_both]) for name, of_both in both.items()}
    if len(criteria) > 1 and whole:
        found = {"overall": agreement([_mean(x) for x, _ in whole], [_mean(y) for _, y in whole]), **found}
    return {"judges": [first, second], "edits": len(pairs), "missing": len(pairs) - len(whole), "figures": found}


def _same_edits(items_a: Sequence[Item], items_b: Sequence[Item]) -> list[tuple[Item, Item]]:
    """The edits that both runs have. Raises ValueError when their pictures are not the same ones."""
    other = {item["key"]: item for item in items_b}
    pairs = [(item, other[item["key"]]) for item in items_a if item["key"] in other]
    changed = sum(x["image_sha256"] != y["image_sha256"] for x, y in pairs)
    if not pairs or changed:
        raise ValueError(
            f"the two runs do not show the same edits: {len(pairs)} in common, {changed} of them with other pictures; "
            "judge one run twice"
        )
    return pairs


def _mean(scores: Mapping[str, float]) -> float:
    return math.fsum(scores.values()) / len(scores)  # exact: their order does not matter


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> dict[str, Any]:
    return {"value": value, "interval": None if interval is None else list(interval)}


def _table(a: np.ndarray, b: np.ndarray, power: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.unique(np.concatenate([a, b]))
    return _counts(np.searchsorted(values, a), np.searchsorted(values, b), len(values)), _weights(values, power)


def _counts(a: np.ndarray, b: np.ndarray, size: int) -> np.ndarray:
    """How often the first judge gave score a and the second score b: size size."""
    return np.bincount(a * size + b, minlength=size * size).reshape(size, size)


def _weights(values: np.ndarray, power: int) -> np.ndarray:
    distance = np.abs(values[:, None] - values[None, :])
    return (distance > 0).astype(np.float64) if power == 0 else distance**power


def _kappa(table: np.ndarray, weights: np.ndarray) -> float | None:
    total = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    by_chance = float((weights * expected).sum())
    return None if by_chance == 0 else 1.0 - float((weights * table).sum()) / by_chance
