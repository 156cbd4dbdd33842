"""The edit that no seed draws by itself: bodies become stars; some of them are held out from training."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from chronoedit.evaluation.appearance import observe
from chronoedit.evaluation.physics import score
from chronoedit.evaluation.spoil import SPOILINGS, spoiled
from chronoedit.world import FIRST_EVALUATION_SEED, Item, sample_item
from chronoedit.world.checks import supported
from chronoedit.world.physics import gap_px
from chronoedit.world.render import render
from chronoedit.world.scenes.star import held_out
from chronoedit.world.state import KINDS, Body


@pytest.fixture(scope="module")
def items(property_seeds: range) -> list[Item]:
    return [sample_item(FIRST_EVALUATION_SEED + seed, family="star") for seed in property_seeds]


def test_no_seed_draws_it(property_seeds: range) -> None:
    assert all(sample_item(seed).family != "star" for seed in property_seeds) and "star" not in KINDS


def test_the_subject_becomes_a_star_of_its_colour_where_it_stood(items: list[Item]) -> None:
    for item in items:
        before, after = item.start.body(item.subject or 0), item.end.body(item.subject or 0)
        assert before is not None and after is not None and before.kind in KINDS and after.kind == "star"
        assert (before.albedo, before.x, before.y, before.size) == (after.albedo, after.x, after.y, after.size)
        assert supported(item.end, after) <= 0.05
        for t in (0.2, 0.5, 0.8):
            small = item.scene.state(t).body(after.id)
            assert (
                small is not None
                and small.size < after.size
                and small.y + small.size == pytest.approx(after.y + after.size)
            )
        assert list(item.start.others(after.id)) == list(item.end.others(after.id))


def test_truth_passes_and_copies_and_spoiled_targets_fail(items: list[Item]) -> None:
    assert sum(score(item, item.target).success for item in items) >= 0.98 * len(items)
    assert not any(score(item, item.input).success for item in items)
    for how in SPOILINGS:
        pictures = [(item, picture) for item in items if (picture := spoiled(item, how)) is not None]
        assert sum(score(item, picture).success for item, picture in pictures) <= 0.02 * len(pictures), how


def test_a_star_has_room(items: list[Item]) -> None:
    for item in items:
        star = item.end.body(item.subject or 0)
        assert star is not None and all(0 <= x <= 128 for x, _ in star.outline())
        assert all(gap_px(star, other) >= 4 for other in item.end.others(star.id))


def test_no_other_kind_passes_for_a_star(items: list[Item]) -> None:
    for item in items:
        star = item.end.body(item.subject or 0)
        assert star is not None
        for kind in KINDS:
            other = Body(**{**star.__dict__, "kind": kind})
            wrong = score(item, render(item.end.with_body(other), item.size))
            assert not wrong.success
            # a cone is so much narrower that no star is seen at all, then none of another kind
            assert not (wrong.checks["kind"] and wrong.checks["present"])


def test_a_star_among_the_known_edits_is_seen_where_it_is_asked_for() -> None:
    item = sample_item(FIRST_EVALUATION_SEED, family="any", edit="nothing")
    body = item.end.bodies[0]
    picture = render(item.end.with_body(Body(**{**body.__dict__, "kind": "star"})), item.size)
    assert observe(picture, item.end, also=("star",)).bodies[body.id].kind == "star"
    assert observe(item.target, item.end, also=("star",)).bodies[body.id].kind == body.kind


def test_what_is_held_out(items: list[Item]) -> None:
    found = {name for item in items for name in held_out(item.scene)}
    assert found == {"kind", "colour", "backdrop"} and any(held_out(item.scene) == () for item in items)
    with pytest.raises(ValueError, match="a table scene has nothing held out"):
        held_out(sample_item(0, family="table").scene)


def test_the_training_set_has_nothing_held_out() -> None:
    path = Path(__file__).parents[2] / "examples" / "star" / "make_set.py"
    spec = importlib.util.spec_from_file_location("make_set", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    chosen = list(module.star_items(64))
    assert len(chosen) == 64 and all(held_out(item.scene) == () for item in chosen)
    assert max(item.seed for item in chosen) < FIRST_EVALUATION_SEED
