"""Portraits: glasses sit on the eyes and hats on the brow, the face stays, and the background alone is another one."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chronoedit.evaluation.morphology import dilate, erode
from chronoedit.evaluation.physics import score
from chronoedit.evaluation.spoil import SPOILINGS, spoiled
from chronoedit.world import FIRST_EVALUATION_SEED, FRAMES, Item, sample_item
from chronoedit.world.checks import CHECKS
from chronoedit.world.kinds.portrait import PORTRAIT, brow_of, eyes_of
from chronoedit.world.kinds.portrait_features import on_head
from chronoedit.world.kinds.portrait_wear import HATS, LENS_X
from chronoedit.world.language import PHRASES
from chronoedit.world.phrases.portrait import PLACES
from chronoedit.world.places.portrait import SETTINGS
from chronoedit.world.render import render
from chronoedit.world.scenes.portrait import FACE, GLASSES, HAT
from chronoedit.world.state import Body, State

MOMENTS = (0.0, 0.15, 0.3, 0.45, 0.55, 0.7, 0.85, 1.0)


@pytest.fixture(scope="module")
def items(property_seeds: range) -> list[Item]:
    return [sample_item(FIRST_EVALUATION_SEED + seed, family="portrait") for seed in property_seeds]


def of(items: list[Item], edit: str) -> list[Item]:
    chosen = [item for item in items if item.edit == edit]
    assert chosen
    return chosen


def body_of(state: State, body_id: int) -> Body:
    body = state.body(body_id)
    assert body is not None
    return body


def test_same_seed_same_bytes(items: list[Item]) -> None:
    for item in items[::5]:
        again = sample_item(item.seed, family="portrait")
        assert json.dumps(again.to_json()) == json.dumps(item.to_json())
        assert again.frame(14).tobytes() == item.frame(14).tobytes()
        assert State.from_json(json.loads(json.dumps(item.end.to_json()))) == item.end


def test_glasses_sit_on_the_eyes(items: list[Item]) -> None:
    worn = [(item, state) for item in items for state in (item.start, item.end) if state.body(GLASSES)]
    assert worn
    for item, state in worn:
        face, glasses = body_of(state, FACE), body_of(state, GLASSES)
        dx, y = eyes_of(face)
        eyes = face.placed([on_head(face, (side * dx, y)) for side in (-1, 1)])
        lenses = glasses.placed([(-LENS_X, 0.0), (LENS_X, 0.0)])
        assert np.allclose(eyes, lenses, atol=0.05), item.seed
        assert CHECKS["attached"](state, glasses) < 1e-6 and glasses.size >= 5


def test_hats_sit_on_the_brow(items: list[Item]) -> None:
    worn = [(item, state) for item in items for state in (item.start, item.end) if state.body(HAT)]
    assert worn
    for item, state in worn:
        face, hat = body_of(state, FACE), body_of(state, HAT)
        line, half = brow_of(face)
        (brow,) = face.placed([on_head(face, (0.0, line))])
        assert np.allclose(hat.placed([(0.0, 0.84)])[0], brow, atol=0.05), item.seed
        assert hat.size == pytest.approx(half * face.size) and CHECKS["attached"](state, hat) < 1e-6
        # the eyes stay free
        assert on_head(face, (0.0, line))[1] < on_head(face, (0.0, eyes_of(face)[1]))[1]


def test_the_face_is_unchanged_elsewhere(items: list[Item]) -> None:
    for item in items:
        changed = np.abs(item.input.astype(int) - item.target).max(axis=-1) > 0
        if item.edit == "change_background":
            face = np.isin(item.input_ids, (FACE, HAT, GLASSES)) & (item.input_ids == item.target_ids)
            # the sharp corners between head and shoulders let a pixel of what is behind them through
            assert np.count_nonzero(changed & erode(face, 2)) <= 8, item.seed
        else:
            thing = (item.input_ids == item.subject) | (item.target_ids == item.subject)
            assert thing.any() and not (changed & ~dilate(thing, 4)).any(), item.seed


def test_only_what_the_edit_is_about_changes(items: list[Item]) -> None:
    for item in items:
        for t in MOMENTS:
            state = item.state(t)
            if item.edit == "change_background":
                assert state.bodies == item.start.bodies
                continue
            assert state.backdrop == item.start.backdrop
            others = [[body for body in each.bodies if body.id != item.subject] for each in (state, item.start)]
            assert others[0] == others[1], (item.seed, t)


def test_what_is_put_on_comes_and_what_is_taken_off_goes(items: list[Item]) -> None:
    for edit, thing in (("add_glasses", GLASSES), ("add_hat", HAT)):
        for item in of(items, edit):
            assert item.subject == thing and item.start.body(thing) is None and item.end.body(thing) is not None
            assert item.state(0.99).body(thing) is not None
    for item in of(items, "take_off"):
        assert item.start.body(item.subject or 0) is not None and item.end.body(item.subject or 0) is None


def test_motion_is_smooth_and_begins_out_of_the_picture(items: list[Item]) -> None:
    for item in items:
        if item.edit == "change_background":
            continue
        states = [item.state(k / (FRAMES - 1)) for k in range(FRAMES)]
        path = [(body.x, body.y) for state in states if (body := state.body(item.subject or 0)) is not None]
        assert len(path) == FRAMES - 1
        assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 10
        assert min(y for _, y in path) < 0


def test_the_background_is_let_down_before_the_old_one(items: list[Item]) -> None:
    for item in of(items, "change_background"):
        before, after = item.start.backdrop, item.end.backdrop
        assert before.place != after.place and any(words in item.prompt for words in PLACES[after.place])
        assert (before.floor_y, before.light) == (after.floor_y, after.light)
        empty = [render(replace(item.state(t), bodies=()), 64).astype(int) for t in (0.0, 0.5, 1.0)]
        top, foot = np.abs(empty[1] - empty[0])[:20], np.abs(empty[1] - empty[0])[40:]
        assert top.max() > 40 and foot.max() == 0
        shares = [item.state(t).backdrop.detail("share", 0.0) for t in MOMENTS[1:-1]]
        assert shares == sorted(shares) and shares[0] > 0 and shares[-1] < 1


def test_every_place_and_every_face_looks_its_own(items: list[Item]) -> None:
    item = of(items, "change_background")[0]
    empty = replace(item.end, bodies=())
    places = [render(replace(empty, backdrop=replace(empty.backdrop, place=name)), 64).astype(int) for name in SETTINGS]
    assert all(np.abs(a - b).mean() > 10 for a, b in itertools.combinations(places, 2))
    face = body_of(item.end, FACE)
    faces = [name for name, kind in PORTRAIT.items() if kind.group == "faces"]
    drawn = [render(empty.with_body(replace(face, kind=name)), 64).astype(int) for name in faces]
    assert all(np.abs(a - b).max(axis=-1).mean() > 4 for a, b in itertools.combinations(drawn, 2))


def test_light_comes_from_the_side_that_the_backdrop_says() -> None:
    for kind in ("cat", "person", "bear"):
        item = next(
            item
            for seed in range(200)
            for item in [sample_item(seed, family="portrait", edit="change_background")]
            if body_of(item.start, FACE).kind == kind
        )
        face = body_of(item.start, FACE).with_details(tilt=0.0, wear="none", mark="plain")
        pictures = []
        for light in (-0.001, 0.001):
            backdrop = replace(item.start.backdrop, light=light, place="studio")
            pictures.append(render(State(backdrop=backdrop, bodies=(replace(face, x=64.0),)), 128).mean(axis=-1))
        lit_right = pictures[1] - pictures[0]
        assert lit_right[105:, 64:104].mean() > lit_right[105:, 24:64].mean()


def test_all_that_is_worn_can_be_worn_by_all() -> None:
    faces: set[str] = set()
    hats: set[str] = set()
    for seed in range(150):
        item = sample_item(seed, family="portrait", edit="add_hat")
        faces.add(body_of(item.end, FACE).kind)
        hats.add(body_of(item.end, HAT).kind)
    assert hats == set(HATS) and faces == {name for name, kind in PORTRAIT.items() if kind.group == "faces"}


def test_the_published_example_can_be_said() -> None:
    said = {phrase.format(a="sunglasses", b="cat") for phrase in PHRASES["add_glasses"]}
    assert "add sunglasses to the cat's face" in said
    prompts = [sample_item(seed, family="portrait", edit="add_glasses").prompt for seed in range(150)]
    assert any(" sunglasses " in f" {each} " and "cat" in each for each in prompts)
    assert any(each.startswith("add sunglasses to the ") for each in prompts)


def blurred(picture: np.ndarray) -> np.ndarray:
    """As a decent autoencoder returns it: a little blurred, a little noisy."""
    soft = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(0.7)))
    noise = np.random.default_rng(0).normal(0, 3, picture.shape)
    return np.clip(soft + noise, 0, 255).round().astype(np.uint8)


def test_truth_passes_and_copies_and_spoiled_targets_fail(items: list[Item]) -> None:
    some = items[: 2 * len(items) // 5]
    assert all(score(item, item.target).success for item in some)
    assert sum(score(item, blurred(item.target)).success for item in some) >= 0.98 * len(some)
    assert not any(score(item, item.input).success for item in some)
    pictures = [(item, picture) for item in some for how in SPOILINGS if (picture := spoiled(item, how)) is not None]
    assert sum(score(item, picture).success for item, picture in pictures) <= 0.02 * len(pictures)
