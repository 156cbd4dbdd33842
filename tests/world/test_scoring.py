"""The scorer on families that are drawn: true targets pass, spoiled ones and copies of the input fail."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chronoedit.evaluation.physics import score
from chronoedit.evaluation.spoil import SPOILINGS, spoiled
from chronoedit.world import FIRST_EVALUATION_SEED, sample_item


@pytest.mark.parametrize("family", ["tools", "toppling", "resizing"])
def test_the_scorer_knows_right_from_wrong(family: str, property_seeds: range) -> None:
    spoilings, count = itertools.cycle(SPOILINGS), len(property_seeds) // 4
    refused, taken = 0, 0
    for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + count):
        item = sample_item(seed, family=family)
        soft = np.asarray(Image.fromarray(item.target).filter(ImageFilter.GaussianBlur(0.7))).astype(float)
        noisy = soft + np.random.default_rng(seed).normal(0, 3, soft.shape)
        refused += not score(item, np.clip(noisy, 0, 255).round().astype(np.uint8)).success
        wrong = spoiled(item, next(spoilings))
        taken += wrong is not None and score(item, wrong).success
        assert not score(item, item.input).success, seed
    assert max(refused, taken) <= 0.02 * count
