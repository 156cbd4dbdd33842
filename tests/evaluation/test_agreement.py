"""Agreement of two judges against figures worked out by hand, and against itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chronoedit.evaluation.agreement import agree_on_runs, agreement, kappa


def from_table(table: list[list[int]], values: list[float] | None = None) -> tuple[list[float], list[float]]:
    """Scores of two judges: `table[i][j]` items have the i-th score from the first and the j-th from the second."""
    values = values or [float(k + 1) for k in range(len(table))]
    pairs = [(values[i], values[j]) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return [a for a, _ in pairs], [b for _, b in pairs]


BY_HAND = [[4, 1, 0], [1, 2, 1], [0, 0, 1]]
"""Observed agreement 7/10; sums of rows 5, 4, 1 and of columns 5, 3, 2."""


def test_two_categories_by_hand() -> None:
    # observed (20 + 15) / 50, expected (25 · 30 + 25 · 20) / 2500
    a, b = from_table([[20, 5], [10, 15]])
    assert kappa(a, b) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert kappa(a, b, 1) == pytest.approx(0.4) and kappa(a, b, 2) == pytest.approx(0.4)


def test_three_categories_by_hand() -> None:
    a, b = from_table(BY_HAND)
    assert kappa(a, b) == pytest.approx((0.7 - 0.39) / 0.61)
    assert kappa(a, b, 1) == pytest.approx(1 - 0.3 / 0.76)  # expected: (46 · 1 + 15 · 2) / 100
    assert kappa(a, b, 2) == pytest.approx(1 - 0.3 / 1.06)  # expected: (46 · 1 + 15 · 4) / 100


def test_weights_follow_the_scores_themselves() -> None:
    a, b = from_table(BY_HAND, [1.0, 2.0, 5.0])
    # |x − y|: observed 1 + 1 + 1 · 3, expected (35 · 1 + 11 · 3 + 15 · 4) / 10
    assert kappa(a, b, 1) == pytest.approx(1 - 5 / 12.8)
    assert kappa(a, b) == pytest.approx((0.7 - 0.39) / 0.61)


def test_agreement_and_contradiction_at_their_ends() -> None:
    assert kappa([1, 2, 3], [1, 2, 3], 2) == 1
    assert kappa([1, 5, 1, 5], [5, 1, 5, 1]) == -1
    assert kappa([3, 3], [3, 3]) is None
    assert kappa([3, 3], [4, 4]) == 0
    rng = np.random.default_rng(0)
    chance = kappa(list(rng.integers(1, 6, 4000)), list(rng.integers(1, 6, 4000)), 2)
    assert chance is not None and abs(chance) < 0.05


def test_the_interval_covers_the_true_kappa() -> None:
    """Judges that repeat a common score with probability 0.7 and else guess: kappa is 0.49."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(20):
        truth = rng.integers(1, 6, 120)
        a, b = (np.where(rng.random(120) < 0.7, truth, rng.integers(1, 6, 120)) for _ in range(2))
        low, high = agreement(list(a), list(b))["kappa"]["interval"]
        covered += low <= 0.49 <= high
    assert covered >= 16


def test_all_figures_stand_together() -> None:
    a, b = from_table(BY_HAND)
    found = agreement(a, b)
    assert found["items"] == 10 and found["equal"]["value"] == pytest.approx(0.7)
    assert found["quadratic_kappa"]["value"] == pytest.approx(1 - 0.3 / 1.06)
    low, high = found["linear_kappa"]["interval"]
    assert low < found["linear_kappa"]["value"] < high
    assert found["difference"]["value"] == pytest.approx(-0.1)
    constant = agreement([2, 2, 2], [2, 2, 2])
    assert constant["kappa"] == {"value": None, "interval": None} and constant["equal"]["value"] == 1


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0])])
def test_scores_that_do_not_pair_are_refused(a: list[float], b: list[float]) -> None:
    for function in (kappa, agreement):
        with pytest.raises(ValueError, match="every item"):
            function(a, b)


def item(key: str, judges: dict[str, dict[str, float]], sha: str = "s") -> dict[str, Any]:
    verdicts = {
        name: {"scores": scores, "reason": "", "problem": None if scores else "unread", "refused": False}
        for name, scores in judges.items()
    }
    return {"key": key, "case": key, "row": "editor", "error": None, "image_sha256": sha, "verdicts": verdicts}


def test_two_judges_of_one_run() -> None:
    items = [item(str(k), {"x": {"p": k % 3, "q": 1}, "y": {"p": k % 3, "q": k % 2}}) for k in range(12)]
    items.append(item("unread", {"x": {}, "y": {"p": 1, "q": 1}}))
    found = agree_on_runs(items, items, "x", "y")
    assert found["judges"] == ["x", "y"] and found["edits"] == 13 and found["missing"] == 1
    assert list(found["figures"]) == ["overall", "p", "q"]
    assert found["figures"]["p"]["kappa"]["value"] == 1 and found["figures"]["p"]["items"] == 12
    assert found["figures"]["q"]["kappa"]["value"] == 0 and found["figures"]["q"]["difference"]["value"] == 0.5


def test_the_order_of_criteria_does_not_make_a_difference() -> None:
    scores = {"p": 0.1, "q": 0.2, "r": 0.3}
    items = [item("a", {"x": scores, "y": dict(reversed(scores.items()))})]
    assert agree_on_runs(items, items, "x", "y")["figures"]["overall"]["equal"]["value"] == 1


def test_what_cannot_be_compared_is_refused() -> None:
    items = [item("a", {"x": {"p": 1}, "y": {"p": 1}})]
    with pytest.raises(ValueError, match="no judge was named; choose from x, y"):
        agree_on_runs(items, items)
    with pytest.raises(ValueError, match="'z' has not judged this run; choose from x, y"):
        agree_on_runs(items, items, "x", "z")
    with pytest.raises(ValueError, match="1 of them with other pictures"):
        agree_on_runs(items, [item("a", {"y": {"p": 1}}, "other")], "x", "y")
    with pytest.raises(ValueError, match="0 in common"):
        agree_on_runs(items, [item("b", {"y": {"p": 1}})], "x", "y")
    with pytest.raises(ValueError, match="scored no edit in common"):
        agree_on_runs(items, [item("a", {"y": {}})], "x", "y")
