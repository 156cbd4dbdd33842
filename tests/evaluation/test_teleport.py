"""The baseline that puts the subject where such edits end on average."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chronoedit.evaluation.physics import score
from chronoedit.evaluation.teleport import TRAINING_ITEMS, mean_end, teleported
from chronoedit.world import FIRST_EVALUATION_SEED, SCENES, Item, sample_item


def place(item: Item) -> tuple[float, float]:
    assert item.subject is not None
    body = item.end.body(item.subject)
    assert body is not None
    return body.x, body.y


def test_the_mean_is_that_of_training_scenes() -> None:
    found = mean_end("falling", "release")
    places = [place(sample_item(seed, family="falling", edit="release")) for seed in range(TRAINING_ITEMS)]
    assert found == pytest.approx(np.mean(places, axis=0))
    assert mean_end("any", "remove") is None


def test_the_subject_moves_and_the_truth_is_not_looked_at() -> None:
    item = replace(sample_item(FIRST_EVALUATION_SEED, family="table", edit="push"))  # with nothing drawn yet
    moved = teleported(item)
    assert not {"end", "target"} & vars(item).keys()
    end, subject = mean_end("table", "push"), item.start.body(item.subject or 0)
    assert end is not None and subject is not None
    ys, xs = np.nonzero((moved != item.input).any(axis=-1))
    places = (end, (subject.x, subject.y))
    away = np.min([np.hypot(xs - x, ys - y) for x, y in places], axis=0)
    assert len(xs) and away.max() < 2.2 * subject.size  # with its shadow
    assert {int(np.argmin([abs(x - place[0]) for place in places])) for x in xs} == {0, 1}


def test_a_still_scene_stays() -> None:
    held = sample_item(FIRST_EVALUATION_SEED, family="table", edit="hold_still")
    assert np.array_equal(teleported(held), held.input) and score(held, teleported(held)).success


@pytest.mark.parametrize("edit", ["remove", "add", "nothing"])
def test_where_nothing_can_be_put_it_copies(edit: str) -> None:
    item = sample_item(FIRST_EVALUATION_SEED, family="any", edit=edit)
    assert np.array_equal(teleported(item), item.input)


@pytest.mark.parametrize("family", list(SCENES))
def test_every_edit_has_one(family: str) -> None:
    for edit in SCENES[family].edits:
        item = sample_item(FIRST_EVALUATION_SEED + 3, family=family, edit=edit, split="all")
        assert teleported(item).shape == (item.size, item.size, 3)
