"""A body becomes larger or smaller where it stands; the rest is pixel-still."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from chronoedit.evaluation.morphology import dilate
from chronoedit.world import FRAMES, WORLD_SIZE, Item, sample_item
from chronoedit.world.checks import CHECKS, overlap_radii
from chronoedit.world.physics import gap_px
from chronoedit.world.scenes.resizing import FACTORS, SMALLEST_PX, Resizing
from chronoedit.world.state import Body, State


@pytest.fixture(scope="module")
def items(property_seeds: range) -> list[Item]:
    edits = itertools.cycle(Resizing.edits)
    return [sample_item(seed, family="resizing", edit=next(edits)) for seed in property_seeds]


def subject(item: Item, state: State) -> Body:
    body = state.body(item.subject or 0)
    assert body is not None
    return body


def test_same_seed_same_bytes(items: list[Item]) -> None:
    for item in items:
        again = sample_item(item.seed, family="resizing", edit=item.edit)
        assert json.dumps(again.to_json()) == json.dumps(item.to_json())
        assert again.target.tobytes() == item.target.tobytes()


def test_it_is_as_large_as_was_said(items: list[Item]) -> None:
    for item in items:
        factor = subject(item, item.end).size / subject(item, item.start).size
        if item.edit == "resize":
            how = max((name for name in FACTORS if f" {name} " in f" {item.prompt} "), key=len)
            assert factor == pytest.approx(FACTORS[how])
        else:
            assert factor > 1.4 if item.edit == "enlarge" else factor < 0.65


def test_it_stays_on_the_ground_and_reaches_nobody(items: list[Item]) -> None:
    for item in items:
        for state in (item.scene.state(k / (FRAMES - 1)) for k in range(FRAMES)):
            body = subject(item, state)
            assert abs(body.span[3] - state.backdrop.floor_y) < 1e-6 and CHECKS["supported"](state, body) < 1e-6
            assert body.x == subject(item, item.start).x and body.size >= SMALLEST_PX
            assert all(gap_px(body, other) > 1 for other in state.others(body.id))
            assert body.span[0] > 0 and body.span[2] < WORLD_SIZE
        assert overlap_radii(item.end) < 1e-6


def test_it_only_grows_or_only_shrinks(items: list[Item]) -> None:
    for item in items:
        sizes = [subject(item, item.scene.state(k / (FRAMES - 1))).size for k in range(FRAMES)]
        steps = np.diff(sizes)
        assert np.all(steps >= 0) or np.all(steps <= 0)


def test_the_rest_is_still_to_the_pixel(items: list[Item]) -> None:
    for item in items:
        assert list(item.end.others(item.subject or 0)) == list(item.start.others(item.subject or 0))
        own = (item.input_ids == item.subject) | (item.target_ids == item.subject)
        y = np.arange(WORLD_SIZE)[:, None] + 0.5
        # its shadow on the floor grows and shrinks with it
        shadow = np.abs(y - item.start.backdrop.floor_y) < 8
        changed = (item.input != item.target).any(axis=-1)
        assert not (changed & ~dilate(own, 2) & ~shadow).any(), item.seed
