"""Polygons, paints, kinds and places: what is drawn is where its outline is, and light comes from where it should."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from chronoedit.world import SCENES, sample_item
from chronoedit.world.checks import attached, inside, on_ground, overlap_radii
from chronoedit.world.drawing import Light, bands, column, facets, glow, sphere
from chronoedit.world.geometry import area, box, centre, clip, ellipse, filled, halves, rounded, smooth, span, turned
from chronoedit.world.kinds import KIND_TABLE, kind_of
from chronoedit.world.palette import COLOURS, lit, turned_hue
from chronoedit.world.physics import tween
from chronoedit.world.places import BACKDROPS
from chronoedit.world.places.room import DECORATIONS, FLOORINGS, WALLPAPERS
from chronoedit.world.render import id_mask, light_of, render
from chronoedit.world.scenes import MIX
from chronoedit.world.state import Backdrop, Body, State

SIMULATED = ("falling", "toppling")  # the last digits of a simulation are the machine's
OWN_KINDS = ("ball", "cube", "cone", "cup", "star")


def thing(kind: str = "cube", **changes: object) -> Body:
    values = {"id": 2, "kind": kind, "colour": "red", "albedo": COLOURS["red"], "x": 64.0, "y": 80.0, "size": 20.0}
    return Body(**{**values, **changes})


def place(*bodies: Body, light: float = -0.1, **changes: object) -> State:
    values = {"wall": (226, 222, 212), "floor": (158, 132, 106), "floor_y": 100.0, "decoration_x": 64.0}
    return State(backdrop=Backdrop(**{**values, "light": light, "decoration": "none", **changes}), bodies=bodies)


def test_the_world_is_drawn_as_the_embedded_model_learned_it() -> None:
    digest = hashlib.sha256()
    for family in (family for family in SCENES if family not in SIMULATED):
        for seed in range(3):
            item = sample_item(seed, family=family)
            for pixels in (item.input, item.target, item.target_ids):
                digest.update(pixels.tobytes())
    assert digest.hexdigest() == "0cb7a2e13971b634dd09e0517b565fe8ffbac7607b55d4efc67d7cc8848fe15c"


def test_a_mix_names_families() -> None:
    assert MIX.keys() <= SCENES.keys() and all(weight > 0 for weight in MIX.values())


def test_areas_and_centres() -> None:
    assert area(box(1, 2, 4, 6)) == 12 and centre(box(1, 2, 4, 6)) == (2.5, 4)
    assert area(ellipse(0, 0, 2, corners=400)) == pytest.approx(4 * math.pi, rel=1e-3)
    assert area(turned(box(0, 0, 3, 5), 0.7)) == pytest.approx(15)
    assert area(rounded(0, 0, 10, 10, 2)) == pytest.approx(100 - (4 - math.pi) * 4, rel=0.01)
    assert span(smooth([(0, 0), (4, 0), (4, 4), (0, 4)])) == pytest.approx((-0.5, -0.5, 4.5, 4.5), abs=0.3)
    assert clip(box(0, 0, 2, 2), (1.0, 0.0), -1.0) == []


@pytest.mark.parametrize("tilt", [0.0, 0.4, -1.1])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97, 1.0])
def test_a_vessel_holds_what_is_poured_with_a_level_surface(tilt: float, share: float) -> None:
    vessel = turned([(-3, -5), (3, -5), (2, 5), (-2, 5)], tilt)
    contents = filled(vessel, share * area(vessel))
    assert area(contents) == pytest.approx(share * area(vessel), rel=1e-6)
    top = min(y for _, y in contents)
    assert sum(abs(y - top) < 1e-6 for _, y in contents) >= (2 if share < 1 else 1)


def test_a_vessel_cannot_hold_more_than_it_does() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        filled(box(0, 0, 2, 2), 5.0)


def test_halves_are_equal_and_whole() -> None:
    shape = smooth([(0, 0), (6, 1), (7, 5), (2, 6)])
    first, second = halves(shape, (math.cos(0.3), math.sin(0.3)))
    assert area(first) == pytest.approx(area(second), rel=1e-6)
    assert area(first) + area(second) == pytest.approx(area(shape), rel=1e-6)


def test_light_and_shadow_keep_the_order_of_brightness() -> None:
    for rgb in COLOURS.values():
        steps = [sum(lit(rgb, amount)) for amount in (-1, -0.5, 0, 0.5, 1)]
        assert steps == sorted(steps) and lit(rgb, 0) == rgb
        assert np.abs(np.subtract(turned_hue(rgb, 0.5), rgb)).max() > 60


@pytest.mark.parametrize("x", [-0.6, 0.6])
def test_shading_is_lighter_towards_the_light(x: float) -> None:
    light = Light(x=x, y=-0.8)
    for paints in (
        bands(box(-1, -1, 1, 1), (120, 80, 60), light)[1:],
        sphere(0, 0, 1, (120, 80, 60), light)[2:],
        column(((-1, -1), (1, -1)), ((-1, 1), (1, 1)), (120, 80, 60), light),
        facets(ellipse(0, 0, 1), (120, 80, 60), light),
    ):
        sums = [sum(paint.rgb) for paint in paints]
        brightest, darkest = paints[int(np.argmax(sums))], paints[int(np.argmin(sums))]
        assert (centre(brightest.polygon)[0] - centre(darkest.polygon)[0]) * x > 0


def test_a_glow_is_as_dense_as_asked_in_its_middle() -> None:
    left = math.prod(1 - paint.alpha for paint in glow(0, 0, 4, 2, (0, 0, 0), 0.6))
    assert left == pytest.approx(0.4)


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_a_body_is_drawn_within_its_outline(kind: str) -> None:
    body = thing(kind, y=45.0, angle=0.4)
    bare = place()
    with_body, without = (render(state, 256).astype(int) for state in (place(replace(body)), bare))
    off = np.abs(with_body - without).max(axis=-1) > 40
    canvas = Image.new("1", (256, 256))
    ImageDraw.Draw(canvas).polygon([(2 * x - 0.5, 2 * y - 0.5) for x, y in body.outline()], fill=1)
    outline = np.asarray(canvas)
    assert np.count_nonzero(off & ~outline) < 0.09 * np.count_nonzero(outline)
    assert np.count_nonzero(outline & ~off) < 0.05 * np.count_nonzero(outline)


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_what_is_lit_is_on_the_side_of_the_light(kind: str) -> None:
    bright = {}
    for light in (-0.1, 0.1):
        state = place(thing(kind), light=light)
        picture, ids = render(state, 256).astype(float).sum(axis=-1), id_mask(state, 256) == 2
        xs = np.nonzero(ids)[1]
        middle = xs.mean()
        columns = np.arange(256)[None, :]
        bright[light] = picture[ids & (columns > middle)].mean() - picture[ids & (columns < middle)].mean()
        assert light_of(state).side == math.copysign(1, light)
    assert bright[-0.1] < bright[0.1]


def test_ids_and_pictures_of_a_half_transparent_body() -> None:
    faint, half = place(thing(alpha=0.4)), place(thing(alpha=0.5))
    assert not (id_mask(faint) == 2).any()
    whole, bare = (render(state)[80, 64].astype(int) for state in (place(thing()), place()))
    assert np.abs(render(half)[80, 64] - (whole + bare) / 2).max() <= 3


def test_layers_lie_over_one_another_and_over_the_arm() -> None:
    low, high = thing(id=2, layer=0), thing(id=3, layer=1, size=10.0)
    assert id_mask(place(high, low))[80, 64] == 3 and id_mask(place(low, replace(high, layer=0)))[80, 64] == 3
    assert id_mask(place(replace(high, layer=-1), low))[80, 64] == 2


def test_a_liquid_has_the_outline_of_its_points() -> None:
    vessel = [(-10.0, -10.0), (10.0, -10.0), (8.0, 10.0), (-8.0, 10.0)]
    contents = filled(vessel, 0.5 * area(vessel))
    body = thing("liquid", size=10.0, points=tuple((x / 10, y / 10) for x, y in contents))
    assert area(body.outline()) == pytest.approx(0.5 * area(vessel))
    shown = np.count_nonzero(id_mask(place(body), 256) == 2) / 4
    assert shown == pytest.approx(0.5 * area(vessel), rel=0.1)
    with pytest.raises(ValueError, match="three or more"):
        thing("liquid").outline()


@pytest.mark.parametrize("name", BACKDROPS)
def test_a_place_is_the_same_each_time_and_fits_any_size(name: str) -> None:
    state = place(place=name)
    small, large = render(state, 128), render(state, 256)
    assert np.array_equal(small, render(state, 128))
    assert np.abs(large.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3)) - small).mean() < 4
    assert small.std() > 10


def test_every_wall_floor_and_decoration_is_its_own_picture() -> None:
    rooms = [{"wall": wall} for wall in WALLPAPERS] + [{"floor": floor} for floor in FLOORINGS if floor != "planks"]
    pictures = {
        render(place(details=tuple({"wall": "plain", "floor": "planks", **room}.items()))).tobytes() for room in rooms
    }
    assert len(pictures) == len(rooms)
    assert len({render(place(decoration=name)).tobytes() for name in DECORATIONS}) == len(DECORATIONS)


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(ValueError, match="ball, cube"):
        kind_of("teapot")
    with pytest.raises(ValueError, match="room, kitchen, meadow"):
        render(place(place="moon"))


def test_every_kind_has_a_noun_and_stands_on_its_foot() -> None:
    for name, kind in KIND_TABLE.items():
        assert kind.nouns and all(noun == noun.strip() and noun in (noun.lower(), "SUV") for noun in kind.nouns), name
        if name in OWN_KINDS:
            assert thing(name).span[3] == pytest.approx(100.0, abs=1e-6)


def test_a_state_goes_through_json() -> None:
    body = thing(
        "liquid", points=((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), details=(("fill", 0.5), ("lamp", "red")), layer=2
    )
    for state in (place(body, details=(("hour", "dusk"),)), sample_item(3, family="table").start):
        assert State.from_json(json.loads(json.dumps(state.to_json()))) == state
    assert "layer" not in sample_item(3).to_json()["start"]["bodies"][0]


def test_details() -> None:
    body = thing().with_details(fill=0.5, lamp="red").with_details(fill=0.75)
    assert body.detail("fill", 0.0) == 0.75 and body.detail("lamp", "off") == "red" and body.detail("lid", 1.0) == 1.0
    with pytest.raises(ValueError, match="give a float"):
        body.detail("lamp", 0.0)


def test_tween_goes_from_one_look_to_the_other() -> None:
    before = thing(details=(("fill", 0.0),))
    after = replace(before, x=90.0, albedo=COLOURS["blue"], kind="ball", details=(("fill", 1.0), ("lamp", "on")))
    assert tween(before, after, 1.0) == after
    middle = tween(before, after, 0.5)
    assert (
        middle.x == pytest.approx(77.0) and middle.detail("fill", 0.0) == pytest.approx(0.5) and middle.kind == "ball"
    )
    assert replace(tween(before, after, 0.0), kind="cube", details=before.details) == before


def test_checks_of_parts_that_belong_somewhere() -> None:
    host = thing(size=20.0)
    glasses = thing(id=3, x=64.0, y=70.0, size=5.0).with_details(host=2.0, host_x=0.0, host_y=-0.5)
    assert attached(place(host, glasses), glasses) == 0
    assert attached(place(host), replace(glasses, x=69.0)) == pytest.approx(1.0)
    assert attached(place(), glasses) == math.inf
    contents = thing(id=4, x=64.0, y=80.0, size=10.0).with_details(host=2.0)
    assert inside(place(host), contents) == 0 and inside(place(), contents) == math.inf
    assert inside(place(host), replace(contents, x=79.0)) == pytest.approx(0.5)
    walker = thing(y=70.0).with_details(ground_y=90.0)
    assert on_ground(place(walker), walker) == 0
    assert on_ground(place(walker), replace(walker, y=60.0)) == pytest.approx(0.5)


def test_what_may_overlap() -> None:
    one, other = thing(), thing(id=3, x=74.0)
    assert overlap_radii(place(one, other)) > 1
    assert overlap_radii(place(one, replace(other, layer=1))) == 0
    assert overlap_radii(place(one, replace(other, y=70.0).with_details(ground_y=90.0))) == 0
    water = replace(other, kind="liquid", points=((-1.0, -1.0), (1.0, -1.0), (0.0, 1.0)))
    assert overlap_radii(place(one, water)) == 0
