"""What holds food: vessels of glass, whose contents are bodies of their own, and jars, pots and bowls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..drawing import Light, Paint, column
from ..geometry import Point, Polygon, arc, below, box, clip, ellipse, rounded, span, stroke
from ..palette import ALBEDO, RGB, lit, mixed
from .base import Kind, same

if TYPE_CHECKING:
    from ..state import Body

CLEAR: RGB = (232, 244, 248)


@dataclass(frozen=True, kw_only=True)
class Vessel:
    """A vessel of glass: its outside, what of it is room for a liquid, and how it looks.

    Both polygons are of one whose spout, if it has one, is on the right; `lip` is the point of `inside` over which it
    pours. A `handle` is a line on the left.
    """

    nouns: tuple[str, ...]
    outside: Polygon
    inside: Polygon
    lip: Point
    size_px: tuple[float, float]
    handle: tuple[Point, ...] = ()


def _tumbler(top: float, foot: float, wall: float, floor: float) -> tuple[Polygon, Polygon]:
    """Outside and inside of straight walls, half as wide at the top and the foot as said."""
    outside = [(-top, -1.0), (top, -1.0), *arc(0, 0.86, foot, 0.14, 0, 180, 9)]
    share = (1 - floor + 1) / 2
    low = top + (foot - top) * share
    inside = [(-top + wall, -1.0), (top - wall, -1.0), (low - wall, 1 - floor), (-low + wall, 1 - floor)]
    return outside, inside


def _bowl(top: float, foot: float, wall: float, floor: float) -> tuple[Polygon, Polygon]:
    """Outside and inside of a round bowl that stands on a foot."""
    curve = [(foot + (top - foot) * (1 - (1 - k / 8) ** 2) ** 0.5, 1 - 2 * (k / 8)) for k in range(9)]
    outside = [*((-x, y) for x, y in curve[::-1]), *curve]
    inner = [(x - wall * (1 - 0.2 * k / 8), (1 - floor) - (2 - floor) * k / 8) for k, (x, _) in enumerate(curve)]
    inside = [*((-x, y) for x, y in inner[::-1]), *inner]
    return outside[::-1], inside[::-1]


_JUG_OUT = [(-0.64, -1.0), (0.94, -1.0), (0.74, -0.62), (0.62, 0.84), (0.54, 1.0), (-0.54, 1.0), (-0.62, 0.84)]
_JUG_IN = [(-0.53, -1.0), (0.84, -1.0), (0.62, -0.58), (0.5, 0.84), (-0.5, 0.84)]
_GLASS = _tumbler(0.76, 0.62, 0.16, 0.24)
_DISH = _tumbler(2.5, 2.34, 0.2, 0.28)
_MIXING = _bowl(1.75, 0.7, 0.16, 0.22)

VESSELS: dict[str, Vessel] = {
    "jug": Vessel(
        nouns=("jug", "pitcher"),
        outside=_JUG_OUT,
        inside=_JUG_IN,
        lip=_JUG_IN[1],
        size_px=(18.0, 20.5),
        handle=((-0.58, -0.7), (-0.98, -0.66), (-1.14, -0.4), (-1.1, 0.0), (-0.92, 0.34), (-0.56, 0.48)),
    ),
    "mixing_bowl": Vessel(
        nouns=("bowl", "mixing bowl"), outside=_MIXING[0], inside=_MIXING[1], lip=(1.62, -1.0), size_px=(10.4, 12.0)
    ),
    "glass": Vessel(
        nouns=("glass", "tumbler"), outside=_GLASS[0], inside=_GLASS[1], lip=_GLASS[1][1], size_px=(15.0, 17.5)
    ),
    "dish": Vessel(
        nouns=("dish", "baking dish"), outside=_DISH[0], inside=_DISH[1], lip=_DISH[1][1], size_px=(10.8, 12.0)
    ),
}


def _mirrored(points: Polygon, flip: float) -> Polygon:
    return list(points) if flip >= 0 else [(-x, y) for x, y in points][::-1]


def room_of(body: Body) -> Polygon:
    """The room for liquid in a vessel of glass, in world px."""
    return body.placed(_mirrored(VESSELS[body.kind].inside, body.detail("flip", 1.0)))


def lip_of(body: Body) -> Point:
    """The point over which a vessel of glass pours, in the frame of the body."""
    x, y = VESSELS[body.kind].lip
    return x * body.detail("flip", 1.0), y


def _back(body: Body, light: Light) -> list[Paint]:
    """The far wall, through which half of what is behind is seen; then handle, sides and foot."""
    vessel, flip, tint = VESSELS[body.kind], body.detail("flip", 1.0), body.albedo
    outside, inside = _mirrored(vessel.outside, flip), _mirrored(vessel.inside, flip)
    left, top, right, _ = span(inside)
    floor = span(inside)[3]
    paints = [Paint(outside, mixed(tint, CLEAR, 0.54), 0.5), *_rim(inside, tint, 180, 360)]
    if vessel.handle:
        line = _mirrored(list(vessel.handle), flip)
        paints += [Paint(stroke(line, 0.27), lit(tint, -0.3)), Paint(stroke(line, 0.12), lit(tint, 0.3))]
    paints += [Paint(part, lit(tint, shade)) for part, shade in _walls(outside, inside, light)]
    paints += [Paint(below(outside, floor), lit(tint, -0.16)), Paint(below(outside, floor + 0.1), lit(tint, -0.34))]
    return paints


def _rim(inside: Polygon, tint: RGB, start_deg: float, stop_deg: float) -> list[Paint]:
    """Half of the rim, as a thin bright line that is seen from a little above."""
    left, top, right, _ = span(inside)
    ry = min(0.13, 0.09 * (right - left))
    line = arc((left + right) / 2, top, (right - left) / 2, ry, start_deg, stop_deg, 15)
    return [Paint(stroke(line, 0.1), mixed(tint, CLEAR, 0.55), 0.8 if start_deg else 0.45)]


def _walls(outside: Polygon, inside: Polygon, light: Light) -> list[tuple[Polygon, float]]:
    """The two sides between the outside and the inside, and how much light each has."""
    walls = []
    for side in (-1.0, 1.0):
        out = sorted((p for p in outside if p[0] * side > 0), key=lambda p: p[1])
        into = sorted((p for p in inside if p[0] * side > 0), key=lambda p: p[1])
        walls.append(([*out, *into[::-1]], 0.3 if side == light.side else -0.1))
    return walls


def _front(body: Body, light: Light) -> list[Paint]:
    """A reflex on the near wall, and the rim."""
    vessel, flip = VESSELS[body.kind], body.detail("flip", 1.0)
    inside = _mirrored(vessel.inside, flip)
    left, top, right, bottom = span(inside)
    width, height = right - left, bottom - top
    x = (left + right) / 2 + 0.27 * width * light.side
    wide = min(0.06 * width, 0.12)
    shine = [
        (x - wide, top + 0.16 * height),
        (x + wide, top + 0.14 * height),
        (x + wide * 0.8, top + 0.8 * height),
        (x - wide * 0.8, top + 0.84 * height),
    ]
    return [
        *_rim(inside, body.albedo, 0, 180),
        Paint(shine, (255, 255, 255), 0.32),
    ]


def _glassware(name: str, vessel: Vessel) -> Kind:
    return Kind(
        nouns=vessel.nouns,
        outline=lambda body: _mirrored(VESSELS[name].outside, body.detail("flip", 1.0)),
        paint=_back,
        front=_front,
        group="glassware",
        see_through=True,
        shadow=0.7,
        turn_deg=90,
    )


JAR_SHAPE = [
    (-0.58, -1.0),
    (0.58, -1.0),
    (0.6, -0.84),
    (0.78, -0.68),
    (0.8, 0.86),
    (0.7, 1.0),
    (-0.7, 1.0),
    (-0.8, 0.86),
    (-0.78, -0.68),
    (-0.6, -0.84),
]


def _jar(body: Body, light: Light) -> list[Paint]:
    """A jar of preserve: glass above what is in it, a label, and an open mouth."""
    rgb, glass = body.albedo, mixed((196, 220, 226), body.albedo, 0.12)
    level = 0.9 - 1.5 * body.detail("fill", 0.85)
    food = below([(-0.7, -0.62), (0.7, -0.62), (0.71, 0.82), (0.62, 0.92), (-0.62, 0.92), (-0.71, 0.82)], level)
    left, top, right, bottom = span(food)
    label = rounded(-0.5, -0.02, 0.5, 0.56, 0.08)
    shine = stroke([(0.54 * light.side, -0.56), (0.58 * light.side, 0.0), (0.56 * light.side, 0.66)], 0.14, 0.08)
    return [
        Paint(JAR_SHAPE, glass),
        *column(((-0.78, -0.68), (0.78, -0.68)), ((-0.8, 0.86), (0.8, 0.86)), glass, light),
        Paint(food, rgb),
        Paint(clip(food, (light.side, 0.0), -0.2), lit(rgb, -0.24)),
        Paint(clip(food, (-light.side, 0.0), -0.4), lit(rgb, 0.14)),
        Paint(ellipse(0, top, right - 0.01, 0.07), lit(rgb, 0.3)),
        *_specks(body, rgb, level),
        Paint(label, mixed((250, 244, 226), rgb, 0.36)),
        Paint(ellipse(0, 0.27, 0.2), mixed(rgb, (250, 244, 226), 0.3)),
        Paint(shine, (255, 255, 255), 0.4),
        Paint(ellipse(0, -0.98, 0.58, 0.09), lit(glass, 0.3)),
        Paint(ellipse(0, -0.98, 0.46, 0.06), lit(glass, -0.3)),
    ]


def _specks(body: Body, rgb: RGB, level: float) -> list[Paint]:
    """Fruit in the preserve, at places that come of the body's size."""
    start = round(body.size * 10)
    spots = [(((start * 7 + k * 37) % 100) / 100, ((start * 3 + k * 53) % 100) / 100) for k in range(5)]
    return [
        Paint(
            ellipse(-0.56 + 1.12 * u, level + 0.16 + (0.66 - level) * v, 0.13, 0.11, 12),
            lit(rgb, 0.16 if k % 2 else -0.2),
            0.8,
        )
        for k, (u, v) in enumerate(spots)
    ]


def _pot(body: Body, light: Light) -> list[Paint]:
    """A cooking pot with two ears and an open top."""
    rgb = body.albedo
    ears = [rounded(side * 1.6 - 0.24, -0.62, side * 1.6 + 0.24, -0.36, 0.1) for side in (-1, 1)]
    side = [(-1.45, -0.86), (1.45, -0.86), (1.4, 0.8), *arc(0, 0.8, 1.4, 0.2, 0, 180, 11), (-1.4, 0.8)]
    return [
        *(Paint(ear, (70, 70, 80)) for ear in ears),
        Paint(side, lit(rgb, -0.2)),
        *column(((-1.45, -0.86), (1.45, -0.86)), ((-1.4, 0.84), (1.4, 0.84)), rgb, light),
        Paint(
            [(-1.45, 0.6), *arc(0, 0.6, 1.42, 0.16, 180, 0, 11), (1.4, 0.8), *arc(0, 0.8, 1.4, 0.2, 0, 180, 11)],
            lit(rgb, -0.5),
            0.35,
        ),
        *_mouth(body),
    ]


def _pan(body: Body, light: Light) -> list[Paint]:
    """A frying pan with a long handle that rises to the side."""
    rgb, side = body.albedo, body.detail("flip", 1.0)
    handle = [(1.6 * side, -0.5), (2.6 * side, -0.9), (3.9 * side, -1.15)]
    return [
        Paint(stroke(handle, 0.5, 0.6), (58, 52, 54)),
        Paint(stroke([(x, y - 0.1) for x, y in handle[1:]], 0.12), (120, 110, 108), 0.8),
        Paint([(-1.9, -0.8), (1.9, -0.8), (1.5, 1.0), (-1.5, 1.0)], lit(rgb, -0.2)),
        *column(((-1.9, -0.8), (1.9, -0.8)), ((-1.5, 1.0), (1.5, 1.0)), rgb, light),
        Paint([(-1.62, 0.5), (1.62, 0.5), (1.5, 1.0), (-1.5, 1.0)], lit(rgb, -0.5), 0.45),
        Paint(ellipse(0, -0.8, 1.92, 0.3, 32), lit(rgb, 0.3)),
        Paint(ellipse(0, -0.77, 1.72, 0.22, 32), lit(rgb, -0.6)),
    ]


def _soup_bowl(body: Body, light: Light) -> list[Paint]:
    """A deep plate on a foot, with a band below its rim."""
    rgb = body.albedo
    wall = [
        (-1.6, -0.8),
        (1.6, -0.8),
        (1.46, -0.2),
        (1.1, 0.42),
        (0.72, 0.78),
        (-0.72, 0.78),
        (-1.1, 0.42),
        (-1.46, -0.2),
    ]
    dark = clip(wall, (light.side, 0.0), -0.3)
    band = [*arc(0, -0.62, 1.57, 0.3, 180, 0, 13), *arc(0, -0.34, 1.49, 0.3, 0, 180, 13)]
    return [
        Paint([(-0.66, 0.72), (0.66, 0.72), (0.6, 1.0), (-0.6, 1.0)], lit(rgb, -0.4)),
        Paint(wall, rgb),
        Paint(clip(wall, (-light.side, 0.0), -0.7), lit(rgb, 0.22)),
        Paint(dark, lit(rgb, -0.2)),
        Paint(clip(wall, (light.side, 0.0), -0.95), lit(rgb, -0.36)),
        Paint(band, (255, 252, 240), 0.4),
        *_mouth(body),
    ]


MOUTHS = {"soup_bowl": (1.62, 0.54), "pot": (1.48, 0.5)}  # half axes
MOUTH_Y = -0.7


def _brim(kind: str) -> Polygon:
    """The far edge of the mouth, from left to right."""
    rx, ry = MOUTHS[kind]
    return arc(0, MOUTH_Y, rx, ry, 180, 360, 13)


def surface_of(kind: str) -> tuple[float, float, float]:
    """Height and half axes of the surface of a soup, in the frame of what it is in."""
    rx, ry = MOUTHS[kind]
    return MOUTH_Y + 0.03, 0.9 * rx, 0.84 * ry


def _mouth(body: Body) -> list[Paint]:
    """The rim, and within it the soup (detail `soup`, a colour's name) or darkness."""
    rgb, (rx, ry), name = body.albedo, MOUTHS[body.kind], body.detail("soup", "")
    paints = [
        Paint(ellipse(0, MOUTH_Y, rx, ry, 36), lit(rgb, 0.34)),
        Paint(ellipse(0, MOUTH_Y + 0.01, rx * 0.92, ry * 0.86, 36), lit(rgb, -0.55)),
    ]
    if not name:
        return paints
    soup, (y, half, high) = ALBEDO[name], surface_of(body.kind)
    streak = arc(0, y + 0.1 * high, half * 0.8, 0.72 * high, 200, 330, 16)
    return [
        *paints,
        Paint(ellipse(0, y, half, high, 36), lit(soup, -0.1)),
        Paint(ellipse(0, y + 0.1 * high, half * 0.95, 0.88 * high, 36), soup),
        Paint(stroke(streak, 0.07, 0.1), lit(soup, 0.3), 0.6),
    ]


def _mug(body: Body, light: Light) -> list[Paint]:
    rgb, side = body.albedo, body.detail("flip", 1.0)
    ring = [(0.7 * side, -0.5), (1.15 * side, -0.5), (1.25 * side, 0.0), (1.1 * side, 0.42), (0.68 * side, 0.5)]
    return [
        Paint(stroke(ring, 0.22), lit(rgb, -0.25)),
        Paint(
            [(-0.8, -0.9), (0.8, -0.9), (0.76, 0.9), *arc(0, 0.9, 0.76, 0.1, 0, 180, 9), (-0.76, 0.9)], lit(rgb, -0.2)
        ),
        *column(((-0.8, -0.9), (0.8, -0.9)), ((-0.76, 0.92), (0.76, 0.92)), rgb, light),
        Paint(box(-0.79, -0.34, 0.79, -0.1), (255, 252, 240), 0.34),
        Paint(ellipse(0, -0.88, 0.8, 0.13), lit(rgb, 0.34)),
        Paint(ellipse(0, -0.87, 0.66, 0.09), lit(rgb, -0.55)),
    ]


def _crock(nouns: tuple[str, ...], outline: Polygon, paint: Callable[[Body, Light], list[Paint]]) -> Kind:
    return Kind(nouns=nouns, outline=same(outline), paint=paint, group="crockery")


VESSEL_KINDS: dict[str, Kind] = {
    **{name: _glassware(name, vessel) for name, vessel in VESSELS.items()},
    "jar": _crock(("jar",), JAR_SHAPE, _jar),
    "pot": _crock(("pot", "saucepan"), [*_brim("pot"), (1.84, -0.6), (1.4, 1), (-1.4, 1), (-1.84, -0.6)], _pot),
    "soup_bowl": _crock(
        ("soup bowl",), [*_brim("soup_bowl"), (1.1, 0.42), (0.6, 1), (-0.6, 1), (-1.1, 0.42)], _soup_bowl
    ),
    "pan": _crock(("pan", "frying pan"), [(-1.9, -1.0), (1.9, -1.0), (1.5, 1.0), (-1.5, 1.0)], _pan),
    "mug": _crock(("mug",), [(-0.8, -1.0), (0.8, -1.0), (0.76, 1.0), (-0.76, 1.0)], _mug),
}
