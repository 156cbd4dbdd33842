"""The street: wheels and feet stay on their surface, one lamp is lit, the car that changes stays where it is."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chronoedit.evaluation.physics import score
from chronoedit.evaluation.spoil import SPOILINGS, spoiled
from chronoedit.world import FIRST_EVALUATION_SEED, FRAMES, Item, sample_item
from chronoedit.world.checks import CHECKS, overlap_radii
from chronoedit.world.drawing import Light
from chronoedit.world.kinds.street import LAMP_Y
from chronoedit.world.kinds.street_cars import CARS, MODELS, coachwork
from chronoedit.world.kinds.street_people import CYCLE, feet
from chronoedit.world.language import PHRASES
from chronoedit.world.physics import gap_px
from chronoedit.world.places.street import stop_line_x
from chronoedit.world.scenes.street import Street
from chronoedit.world.scenes.street_stage import CAR_COLOURS
from chronoedit.world.state import ALBEDO, Body, State

MOMENTS = (0.0, 0.15, 0.3, 0.45, 0.55, 0.7, 0.85, 1.0)


@pytest.fixture(scope="module")
def items(property_seeds: range) -> list[Item]:
    return [sample_item(FIRST_EVALUATION_SEED + seed, family="street") for seed in property_seeds]


def of(items: list[Item], edit: str) -> list[Item]:
    chosen = [item for item in items if item.edit == edit]
    assert chosen
    return chosen


def subject_at(item: Item, t: float) -> Body:
    body = item.state(t).body(item.subject or 0)
    assert body is not None
    return body


def lowest_painted_y(body: Body) -> float:
    """The foot of what hides something, in world px."""
    paints = body.look.paint(body, Light(x=0.6, y=-0.8))
    return max(y for paint in paints if paint.alpha > 0.9 for _, y in body.placed(list(paint.polygon)))


def test_same_seed_same_bytes(items: list[Item]) -> None:
    for item in items[::5]:
        again = sample_item(item.seed, family="street")
        assert json.dumps(again.to_json()) == json.dumps(item.to_json())
        assert again.frame(14).tobytes() == item.frame(14).tobytes()
        assert State.from_json(json.loads(json.dumps(item.end.to_json()))) == item.end


def test_wheels_and_feet_are_on_their_surface(items: list[Item]) -> None:
    for item in items:
        for t in MOMENTS:
            state = item.state(t)
            for body in state.bodies:
                if body.kind not in ("signal", "arrow_signal"):
                    ground = body.ground_y(state.backdrop)
                    assert CHECKS["on_ground"](state, body) < 1e-6, (item.seed, t, body.kind)
                    assert lowest_painted_y(body) == pytest.approx(ground, abs=0.3), (item.seed, t, body.kind)


def test_nothing_solid_overlaps_in_one_lane(items: list[Item]) -> None:
    for item in items:
        for t in MOMENTS:
            state = item.state(t)
            solid = [body for body in state.bodies if body.look.solid]
            for a, b in itertools.combinations(solid, 2):
                if a.layer == b.layer and a.ground_y(state.backdrop) == b.ground_y(state.backdrop):
                    assert gap_px(a, b) > -1, (item.seed, t, a.kind, b.kind)
        assert overlap_radii(item.end) < 0.1


def test_only_what_the_edit_is_about_changes(items: list[Item]) -> None:
    for item in items:
        lamps = {body.id for body in item.start.bodies if body.kind in ("signal", "arrow_signal")}
        may = lamps if item.edit == "set_light" else {item.subject}
        for t in MOMENTS:
            state = item.state(t)
            assert state.backdrop == item.start.backdrop
            assert [body.id for body in state.bodies] == [body.id for body in item.start.bodies]
            for before, now in zip(item.start.bodies, state.bodies, strict=True):
                assert before == now or before.id in may, (item.seed, t, before.kind)


def test_motion_is_smooth(items: list[Item]) -> None:
    for item in items[::4]:
        path = np.array([(body.x, body.y) for k in range(FRAMES) for body in [subject_at(item, k / (FRAMES - 1))]])
        steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
        assert steps.max() < 6 and steps[0] < 0.2 and steps[-1] < 0.2, item.seed


def test_one_lamp_is_lit_and_it_is_the_one_that_was_asked_for(items: list[Item]) -> None:
    for item in of(items, "set_light"):
        for state in (item.start, item.end):
            lamps = {body.colour: body.detail("on", 0.0) for body in state.bodies if body.kind.endswith("signal")}
            assert set(lamps) == set(LAMP_Y) and sorted(lamps.values()) == [0.0, 0.0, 1.0]
        assert subject_at(item, 0.0).detail("on", 0.0) == 0 and subject_at(item, 1.0).detail("on", 0.0) == 1
        assert subject_at(item, 1.0).colour in item.prompt
        for t in MOMENTS:
            brightness = [body.detail("on", 0.0) for body in item.state(t).bodies if body.kind.endswith("signal")]
            assert sum(brightness) == pytest.approx(1, abs=0.01)


def test_the_light_turns_red_by_way_of_yellow() -> None:
    found = 0
    for seed in range(60):
        item = sample_item(seed, family="street", edit="set_light")
        lit = next(body.colour for body in item.start.bodies if body.detail("on", 0.0) == 1)
        if (lit, subject_at(item, 1.0).colour) == ("green", "red"):
            found += 1
            assert next(b for b in item.state(0.5).bodies if b.colour == "yellow").detail("on", 0.0) > 0.9
    assert found


def test_the_pedestrian_ends_in_the_middle_of_the_crosswalk(items: list[Item]) -> None:
    for item in of(items, "cross"):
        before, after = subject_at(item, 0.0), subject_at(item, 1.0)
        backdrop = item.end.backdrop
        assert after.x == backdrop.detail("crossing", 0.0) and after.ground_y(backdrop) == backdrop.floor_y
        assert abs(before.x - after.x) > 15 and before.ground_y(backdrop) != backdrop.floor_y
        assert before.albedo == after.albedo and before.detail("stride", 1.0) == after.detail("stride", 1.0) == 0
        assert np.sign(after.x - before.x) == after.detail("flip", 0.0)
        # who comes nearer grows
        assert (after.size > before.size) == (backdrop.floor_y > before.ground_y(backdrop))


def test_a_foot_that_carries_stays_where_it_is() -> None:
    for phase in np.linspace(0, 0.99, 40):
        places = feet(float(phase), 1.0)
        assert min(up for _, up in places) == 0
        step = 0.004
        later = feet(float(phase) + step, 1.0)
        for (x, up), (x_later, up_later) in zip(places, later, strict=True):
            if up == up_later == 0:
                assert x_later - x == pytest.approx(-CYCLE * step)


def test_wheels_turn_as_far_as_the_car_goes(items: list[Item]) -> None:
    for item in of(items, "drive_to_line"):
        before, after = subject_at(item, 0.0), subject_at(item, 1.0)
        side = item.end.backdrop.detail("side", 0.0)
        way = side * (after.x - before.x)
        assert way > 20
        for t in MOMENTS[1:]:
            now = subject_at(item, t)
            turned = now.detail("roll", 0.0) * now.size * coachwork(now).wheel
            assert turned == pytest.approx(side * (now.x - before.x), abs=0.05)


def test_the_nose_is_at_the_line(items: list[Item]) -> None:
    for item in of(items, "drive_to_line"):
        backdrop = item.end.backdrop
        side = backdrop.detail("side", 0.0)
        left, _, right, _ = subject_at(item, 1.0).span
        gap = side * (stop_line_x(backdrop.detail("crossing", 0.0), side) - (right if side > 0 else left))
        assert 0 < gap < 2.5


def test_the_car_is_replaced_where_it_stands(items: list[Item]) -> None:
    for item in of(items, "replace_car"):
        before, after = subject_at(item, 0.0), subject_at(item, 1.0)
        assert before.x == after.x and before.kind != after.kind and before.colour != after.colour
        assert before.detail("flip", 0.0) == after.detail("flip", 0.0)
        assert f"{after.colour} {after.look.noun}" in item.prompt
        assert subject_at(item, 0.4).kind == before.kind and subject_at(item, 0.6).kind == after.kind


def test_models_mix_one_by_one() -> None:
    car = Body(id=2, kind="sedan", colour="black", albedo=ALBEDO["black"], x=60.0, y=90.0, size=9.0)
    for name in CARS:
        half = coachwork(car.with_details(into=name, share=0.5))
        assert half.wheel == pytest.approx((MODELS["sedan"].wheel + MODELS[name].wheel) / 2)
        whole = coachwork(car.with_details(into=name, share=1.0))
        assert np.allclose(whole.shell, MODELS[name].shell)


def test_the_published_examples_can_be_said() -> None:
    assert {"black", "red"} <= set(CAR_COLOURS)
    slots = {
        edit: [sample_item(seed, family="street", edit=edit).words.slots for seed in range(120)]
        for edit in Street.edits
    }
    assert "change the traffic light to {colour}" in PHRASES["set_light"] and {"colour": "red"} in slots["set_light"]
    assert "make {a} move to the center of the crosswalk" in PHRASES["cross"]
    assert {"a": "the pedestrian"} in slots["cross"]
    assert "replace the {a} with a {b}" in PHRASES["replace_car"]
    assert any(each["a"].endswith("sedan") and each["b"].endswith("SUV") for each in slots["replace_car"])


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
