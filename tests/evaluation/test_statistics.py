"""Bootstrap means and paired differences against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from chronoedit.evaluation.statistics import (
    bootstrap_figures,
    bootstrap_mean,
    minimal_detectable_effect,
    paired_difference,
)


def test_mean_and_interval_of_coin_throws() -> None:
    values = [1.0] * 80 + [0.0] * 20
    mean = bootstrap_mean(values)
    assert mean.mean == pytest.approx(0.8) and mean.count == 100
    # normal approximation: 0.8 ± 1.96 · 0.04
    assert mean.low == pytest.approx(0.722, abs=0.015) and mean.high == pytest.approx(0.878, abs=0.015)


def test_equal_values_have_no_width() -> None:
    mean = bootstrap_mean([0.25] * 7)
    assert mean.low == mean.mean == mean.high == 0.25


def test_same_values_same_interval() -> None:
    values = list(np.random.default_rng(0).normal(size=50))
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values).to_json()["items"] == 50


def test_pairing_removes_what_both_share() -> None:
    shared = np.random.default_rng(0).normal(0, 10, 100)
    difference = paired_difference(list(shared + 0.5), list(shared))
    assert difference.mean == pytest.approx(0.5) and difference.high - difference.low < 1e-9


def test_interval_covers_the_true_mean() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        mean = bootstrap_mean(list(rng.normal(3, 1, 40)))
        covered += mean.low <= 3 <= mean.high
    assert 34 <= covered <= 40


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_values_without_a_mean_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        bootstrap_mean(values)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="same items; got 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])


def test_a_difference_of_the_detectable_size_is_seen_in_four_of_five_cases() -> None:
    rng = np.random.default_rng(2)
    effect = minimal_detectable_effect(list(rng.normal(0, 2, 4000)))
    assert effect == pytest.approx((1.959964 + 0.841621) * 2 / np.sqrt(4000), rel=0.05)
    seen = 0
    for _ in range(600):
        differences = rng.normal(effect, 2, 4000)
        seen += abs(differences.mean()) > 1.959964 * differences.std(ddof=1) / np.sqrt(4000)
    assert 0.75 < seen / 600 < 0.85


def test_detectable_effects_at_their_ends() -> None:
    assert minimal_detectable_effect([1.0]) is None and minimal_detectable_effect([]) is None
    assert minimal_detectable_effect([0.5, 0.5, 0.5]) == 0
    differences = [0.0, 1.0, 2.0, 5.0]
    strict, usual = (minimal_detectable_effect(differences, power=power) for power in (0.95, 0.8))
    assert strict is not None and usual is not None and strict > usual > 0
    with pytest.raises(ValueError, match="power 1 is not between"):
        minimal_detectable_effect(differences, power=1)


def test_figures_of_a_bootstrap_agree_with_that_of_a_mean() -> None:
    values = np.random.default_rng(3).normal(3, 1, 60)

    def figures(drawn: np.ndarray) -> dict[str, float]:
        mean = float(values[drawn].mean())
        return {"mean": mean, "twice": 2 * mean, **({"rare": mean} if mean > 3.3 else {})}

    found = bootstrap_figures(60, figures)
    mean = bootstrap_mean(list(values))
    assert found["mean"] == pytest.approx((mean.low, mean.high), abs=0.05)
    assert found["twice"] == pytest.approx(tuple(2 * bound for bound in found["mean"]))
    assert "rare" not in found
    assert found == bootstrap_figures(60, figures)
    with pytest.raises(ValueError, match="needs items"):
        bootstrap_figures(0, figures)
