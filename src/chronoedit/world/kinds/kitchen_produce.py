"""Vegetables and fruit: whole, and in half with the cut face turned to the eye."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..drawing import Light, Paint, bands
from ..geometry import Point, Polygon, arc, below, clip, ellipse, halves, smooth, span, stroke
from ..palette import RGB, lit, mixed
from .base import Kind
from .kitchen_faces import (
    RING,
    FacePattern,
    apple_face,
    cored_face,
    hollow_face,
    juicy_face,
    pale_face,
    ringed_face,
    segmented_face,
)

if TYPE_CHECKING:
    from ..state import Body

FACE_WIDTH = 0.5  # of a cut face, to its height
LEAF: RGB = (70, 142, 66)
STALK: RGB = (112, 96, 52)

Painter = Callable[[RGB, Light], list[Paint]]


def distinct(polygon: Sequence[Point]) -> Polygon:
    """The polygon without corners that repeat the one before: physics needs a direction for every edge."""
    return [p for p, q in zip(polygon, [polygon[-1], *polygon[:-1]], strict=True) if math.dist(p, q) > 1e-6]


def _fitted(corners: str) -> Polygon:
    """A closed curve through the corners ("x y, x y, …"), made to stand on y = 1 and to be 2 high."""
    curve = smooth([(float(x), float(y)) for x, y in (pair.split() for pair in corners.split(","))])
    left, top, right, bottom = span(curve)
    scale = 2 / (bottom - top)
    return [((x - (left + right) / 2) * scale, (y - (top + bottom) / 2) * scale) for x, y in curve]


TOMATO = _fitted("-0.4 -0.92, 0.4 -0.92, 1.02 -0.45, 1.16 0.1, 0.8 0.78, 0 1, -0.8 0.78, -1.16 0.1, -1.02 -0.45")
APPLE = _fitted(
    "-0.42 -0.98, 0 -0.86, 0.42 -0.98, 0.96 -0.6, 1.0 0.05, 0.72 0.75, 0.3 1, -0.3 1, -0.72 0.75, -1.0 0.05, -0.96 -0.6"
)
PEPPER = _fitted(
    "-0.5 -0.9, 0 -0.82, 0.5 -0.9, 0.92 -0.55, 0.9 0.1, 0.66 0.82, 0.34 1, 0 0.9, -0.34 1, -0.66 0.82, "
    "-0.9 0.1, -0.92 -0.55"
)
ONION = _fitted(
    "0 -1.12, 0.16 -0.9, 0.7 -0.55, 1.0 0.05, 0.74 0.66, 0.2 0.96, -0.2 0.96, -0.74 0.66, -1.0 0.05, "
    "-0.7 -0.55, -0.16 -0.9"
)
LEMON = _fitted(
    "-1.42 0.06, -1.2 -0.3, -0.6 -0.9, 0.1 -1, 0.8 -0.76, 1.2 -0.24, 1.42 0.06, 1.16 0.42, 0.6 0.9, 0 1, "
    "-0.7 0.88, -1.2 0.4"
)
CHILI = _fitted(
    "-2.9 -0.55, -2.3 -0.98, -1.2 -1.0, 0.2 -0.66, 1.6 -0.1, 2.9 0.72, 3.15 0.98, 2.2 0.98, 0.6 0.98, "
    "-1.2 0.98, -2.4 0.8, -2.95 0.3"
)
CARROT = _fitted(
    "-2.7 -0.6, -2.4 -0.95, -1.4 -0.98, 0.2 -0.72, 1.8 -0.3, 3.0 0.2, 3.3 0.5, 2.8 0.7, 1.2 0.86, "
    "-0.6 0.98, -2.3 0.98, -2.75 0.5"
)
CUCUMBER = _fitted(
    "-3.0 0, -2.8 -0.62, -2.0 -0.94, -0.6 -1, 0.8 -1, 2.1 -0.92, 2.8 -0.6, 3.0 0, 2.8 0.62, 2.0 0.95, "
    "0.6 1, -0.8 1, -2.0 0.95, -2.8 0.62"
)
AUBERGINE = _fitted(
    "-2.5 -0.2, -2.2 -0.56, -1.2 -0.68, 0 -0.86, 1.2 -1, 2.1 -0.7, 2.5 0, 2.1 0.72, 1.2 1, 0 0.98, "
    "-1.2 0.92, -2.2 0.5, -2.5 0.2"
)


def _gloss(x: float, y: float, rx: float, ry: float, light: Light, alpha: float = 0.6) -> Paint:
    return Paint(ellipse(x * light.side, y, rx, ry, 14), (255, 255, 255), alpha)


def _round(polygon: Polygon, rgb: RGB, light: Light) -> list[Paint]:
    return [*bands(polygon, rgb, light, 0.42), _gloss(0.42, -0.42, 0.2, 0.13, light)]


def _long(polygon: Polygon, rgb: RGB, light: Light) -> list[Paint]:
    """Lit along its back, in shadow along its foot."""
    left, _, right, _ = span(polygon)
    back = [(x * 0.93, -0.16 + 0.62 * y) for x, y in polygon]
    ridge = [(left + share * (right - left), y) for share, y in _ridge(polygon)]
    return [
        Paint(polygon, lit(rgb, -0.08)),
        Paint(below(polygon, 0.3), lit(rgb, -0.26)),
        Paint(below(polygon, 0.68), lit(rgb, -0.44)),
        Paint([(x + 0.05 * light.side, y) for x, y in back], lit(rgb, 0.05)),
        Paint(stroke(ridge, 0.24, 0.1), lit(rgb, 0.55), 0.75),
    ]


def _ridge(polygon: Polygon) -> list[tuple[float, float]]:
    """Shares of the width and heights of a line a little under the upper edge."""
    left, _, right, _ = span(polygon)
    found = []
    for share in (0.14, 0.24, 0.34, 0.44, 0.54, 0.64):
        x = left + share * (right - left)
        column = [y for px, y in clip(clip(polygon, (1, 0), x + 0.12), (-1, 0), 0.12 - x)]
        found.append((share, min(column) + 0.32))
    return found


def _calyx(y: float, reach: float, rgb: RGB = LEAF) -> list[Paint]:
    """Green leaves about a short stalk."""
    tips = ((-1.0, 0.24), (-0.62, 0.42), (0.05, 0.5), (0.62, 0.42), (1.0, 0.22))
    leaves = [
        Paint([(-0.14, y), (reach * u, y + reach * v), (0.14, y - 0.02)], lit(rgb, -0.12 + 0.06 * k))
        for k, (u, v) in enumerate(tips)
    ]
    return [*leaves, Paint(stroke([(0, y + 0.04), (0.05, y - 0.14), (0.14, y - 0.3)], 0.16, 0.12), lit(rgb, -0.2))]


def _tomato(rgb: RGB, light: Light) -> list[Paint]:
    seams = [
        Paint(stroke(arc(0, -0.8, w, 1.2, 12, 90, 8) if w else [(0, 0), (0, 0)], 0.07, 0.02), lit(rgb, -0.4), 0.35)
        for w in (0.62, -0.62)
    ]
    return [*_round(TOMATO, rgb, light), *seams, *_calyx(-0.86, 0.66)]


def _apple(rgb: RGB, light: Light) -> list[Paint]:
    leaf = [(0.06, -1.02), (0.24, -1.3), (0.6, -1.36), (0.5, -1.1)]
    return [
        *_round(APPLE, rgb, light),
        Paint(ellipse(0, -0.84, 0.34, 0.1, 16), lit(rgb, -0.5), 0.7),
        Paint(stroke([(0, -0.82), (0.02, -1.0), (0.1, -1.2)], 0.14, 0.11), STALK),
        Paint(leaf, lit(LEAF, 0.05)),
    ]


def _pepper(rgb: RGB, light: Light) -> list[Paint]:
    lobes = [
        Paint(stroke(smooth_line, 0.09, 0.03), lit(rgb, -0.42), 0.5)
        for w in (-0.36, 0.36)
        for smooth_line in [[(w * 0.5, -0.8), (w, -0.4), (w * 1.02, 0.2), (w * 0.7, 0.9)]]
    ]
    shine = stroke([(0.56 * light.side, -0.6), (0.64 * light.side, -0.1), (0.56 * light.side, 0.25)], 0.15, 0.08)
    stalk = [(-0.16, -0.8), (-0.1, -1.12), (0.0, -1.3), (0.2, -1.3), (0.12, -1.1), (0.18, -0.8)]
    return [
        *bands(PEPPER, rgb, light, 0.42),
        *lobes,
        Paint(shine, (255, 255, 255), 0.6),
        Paint(ellipse(0, -0.8, 0.4, 0.13, 16), lit(LEAF, -0.1)),
        Paint(stalk, LEAF),
    ]


def _onion(rgb: RGB, light: Light) -> list[Paint]:
    skins = [
        Paint(
            stroke([(0.1 * w, -0.92), (0.62 * w, -0.5), (0.86 * w, 0.05), (0.5 * w, 0.66), (0.12 * w, 0.92)], 0.09),
            lit(rgb, -0.3),
            0.5,
        )
        for w in (-0.7, 0.0, 0.7)
    ]
    roots = [Paint(stroke([(0.1 * k, 0.9), (0.16 * k, 1.0)], 0.06), (214, 196, 150)) for k in (-1, 0, 1)]
    return [*_round(ONION, rgb, light), *skins, *roots]


def _lemon(rgb: RGB, light: Light) -> list[Paint]:
    pores = [
        Paint(ellipse(x, y, 0.09, corners=10), lit(rgb, -0.2), 0.6)
        for x, y in ((-0.5, 0.2), (-0.1, -0.35), (0.2, 0.36), (0.72, 0.24))
    ]
    return [*_round(LEMON, rgb, light), *pores]


def _chili(rgb: RGB, light: Light) -> list[Paint]:
    cap = [(-2.98, -0.45), (-2.5, -0.86), (-2.22, -0.6), (-2.42, -0.2), (-2.2, 0.2), (-2.5, 0.62), (-2.98, 0.25)]
    stalk = [(-2.8, -0.24), (-3.2, -0.3), (-3.62, -0.62), (-3.72, -0.42), (-3.3, 0.04), (-2.8, 0.14)]
    green = mixed(LEAF, (150, 180, 80), 0.3)
    return [*_long(CHILI, rgb, light), Paint(stalk, lit(green, -0.1)), Paint(cap, green)]


def _carrot(rgb: RGB, light: Light) -> list[Paint]:
    rings = [
        Paint(stroke([(x, y), (x + 0.06, y + 0.2), (x + 0.02, y + reach)], 0.14, 0.08), lit(rgb, -0.34), 0.5)
        for x, y, reach in ((-1.8, -0.9, 0.7), (-0.6, -0.1, 0.6), (0.7, -0.3, 0.5))
    ]
    fronds = [
        Paint(stroke([(-2.5, 0), (-3.0, 0.5 * v - 0.05), (-3.7, v)], 0.3, 0.12), lit(LEAF, 0.12 * k - 0.2))
        for k, v in enumerate((-0.85, 0.4, -0.2, 0.1))
    ]
    return [*fronds, *_long(CARROT, rgb, light), *rings]


def _cucumber(rgb: RGB, light: Light) -> list[Paint]:
    stripes = [
        Paint(stroke([(-2.5, y * 0.8), (0, y), (2.5, y * 0.8)], 0.16, 0.16), lit(rgb, 0.3), 0.4) for y in (0.0, 0.5)
    ]
    bumps = [
        Paint(ellipse(x, y, 0.12, 0.1, 10), lit(rgb, 0.4), 0.6)
        for x, y in ((-1.6, 0.24), (-0.4, -0.2), (0.8, 0.24), (1.9, -0.1))
    ]
    return [*_long(CUCUMBER, rgb, light), *stripes, *bumps]


def _aubergine(rgb: RGB, light: Light) -> list[Paint]:
    cap = [
        (-2.52, -0.2),
        (-2.2, -0.6),
        (-1.5, -0.72),
        (-1.72, -0.3),
        (-1.3, 0.0),
        (-1.72, 0.3),
        (-1.6, 0.86),
        (-2.3, 0.5),
    ]
    stalk = [(-2.4, -0.2), (-3.0, -0.34), (-3.06, -0.02), (-2.4, 0.2)]
    return [*_long(AUBERGINE, rgb, light), Paint(stalk, lit(LEAF, -0.25)), Paint(cap, lit(LEAF, -0.1))]


@dataclass(frozen=True, kw_only=True)
class Produce:
    """One kind of vegetable or fruit: whole, and what its cut face shows."""

    nouns: tuple[str, ...]
    colours: tuple[str, ...]
    polygon: Polygon
    painter: Painter
    face: FacePattern
    size_px: tuple[float, float]
    long: bool = False


PRODUCE: dict[str, Produce] = {
    "tomato": Produce(
        nouns=("tomato",),
        colours=("red", "yellow", "orange", "green"),
        polygon=TOMATO,
        painter=_tomato,
        face=juicy_face,
        size_px=(11.2, 14.4),
    ),
    "apple": Produce(
        nouns=("apple",),
        colours=("red", "green", "yellow"),
        polygon=APPLE,
        painter=_apple,
        face=apple_face,
        size_px=(11.2, 14.4),
    ),
    "bell_pepper": Produce(
        nouns=("bell pepper", "sweet pepper"),
        colours=("red", "green", "yellow", "orange"),
        polygon=PEPPER,
        painter=_pepper,
        face=hollow_face,
        size_px=(12.8, 16.0),
    ),
    "onion": Produce(
        nouns=("onion",),
        colours=("purple", "brown", "pink"),
        polygon=ONION,
        painter=_onion,
        face=ringed_face,
        size_px=(11.8, 14.4),
    ),
    "lemon": Produce(
        nouns=("lemon",),
        colours=("yellow", "green"),
        polygon=LEMON,
        painter=_lemon,
        face=segmented_face,
        size_px=(10.0, 12.6),
    ),
    "chili": Produce(
        nouns=("chili pepper", "chili", "hot pepper"),
        colours=("green", "red", "yellow", "orange"),
        polygon=CHILI,
        painter=_chili,
        face=hollow_face,
        size_px=(7.2, 8.6),
        long=True,
    ),
    "carrot": Produce(
        nouns=("carrot",),
        colours=("orange", "purple", "yellow"),
        polygon=CARROT,
        painter=_carrot,
        face=cored_face,
        size_px=(7.2, 8.6),
        long=True,
    ),
    "cucumber": Produce(
        nouns=("cucumber",),
        colours=("green",),
        polygon=CUCUMBER,
        painter=_cucumber,
        face=pale_face(RING, (208, 230, 160)),
        size_px=(7.2, 8.6),
        long=True,
    ),
    "aubergine": Produce(
        nouns=("aubergine", "eggplant"),
        colours=("purple", "navy"),
        polygon=AUBERGINE,
        painter=_aubergine,
        face=pale_face(RING, (240, 230, 190)),
        size_px=(8.2, 9.6),
        long=True,
    ),
}


def _turned(points: Sequence[Point], flip: float) -> Polygon:
    return list(points) if flip >= 0 else [(-x, y) for x, y in points][::-1]


def _whole_outline(produce: Produce, body: Body) -> Polygon:
    return _turned(produce.polygon, body.detail("flip", 1.0))


def _whole_paints(produce: Produce, body: Body, light: Light) -> list[Paint]:
    flip = body.detail("flip", 1.0)
    seen = light if flip >= 0 else Light(x=-light.x, y=light.y)
    return [paint._replace(polygon=_turned(paint.polygon, flip)) for paint in produce.painter(body.albedo, seen)]


def cut_at(kind: str, flip: float) -> float:
    """Where an upright cut leaves two halves of equal area: x in the frame of a body of that kind."""
    left, _ = halves(_turned(PRODUCE[kind].polygon, flip), (1.0, 0.0))
    return span(left)[2]


def _of(body: Body) -> Produce:
    name = body.detail("of", "tomato")
    if name not in PRODUCE:
        raise ValueError(f"half of {name!r}; choose one of {', '.join(PRODUCE)}")
    return PRODUCE[name]


def _face_place(body: Body) -> tuple[float, float, float, float]:
    """Centre and half axes of the cut face."""
    produce, cut = _of(body), body.detail("cut", 0.0)
    whole = _whole_outline(produce, body)
    heights = [y for x, y in clip(whole, (1.0, 0.0), cut) if abs(x - cut) < 1e-6]
    top, bottom = min(heights), max(heights)
    ry = (bottom - top) / 2
    return cut, (top + bottom) / 2, body.detail("open", 1.0) * FACE_WIDTH * ry, ry


def _kept(polygon: Sequence[Point], body: Body) -> Polygon:
    """The part of a polygon on the half's side of the cut."""
    side, cut = body.detail("side", 1.0), body.detail("cut", 0.0)
    return clip(polygon, (-side, 0.0), -side * cut)


def _half_outline(body: Body) -> Polygon:
    """The half, its straight edge replaced by the bulge of the cut face."""
    x, y, rx, ry = _face_place(body)
    polygon = _kept(_whole_outline(_of(body), body), body)
    first = next(k for k, p in enumerate(polygon) if abs(p[0] - x) > 1e-6 and abs(polygon[k - 1][0] - x) <= 1e-6)
    ordered = [p for p in [*polygon[first:], *polygon[:first]] if abs(p[0] - x) > 1e-6]
    # the face of the right half bulges to the left, that of the left half to the right
    bulge = arc(x, y, rx, ry, 270, 90) if body.detail("side", 1.0) > 0 else arc(x, y, rx, ry, -90, 90)
    return distinct([*ordered, *(bulge if ordered[-1][1] < ordered[0][1] else bulge[::-1])])


def _half(body: Body, light: Light) -> list[Paint]:
    """What is left of the whole, and the cut face: rim of skin, flesh, and what is within."""
    produce, rgb = _of(body), body.albedo
    x, y, rx, ry = _face_place(body)
    whole = _whole_paints(produce, body, light)
    paints = [paint._replace(polygon=part) for paint in whole if len(part := _kept(paint.polygon, body)) > 2]
    if rx <= 0.02:
        return paints
    face = [Paint(ellipse(0, 0, 1), lit(rgb, -0.12)), Paint(ellipse(0, 0, 0.93), lit(rgb, 0.42)), *produce.face(rgb)]
    placed = [p._replace(polygon=[(x + rx * u, y + ry * v) for u, v in p.polygon]) for p in face]
    return [*paints, *placed]


def _kind(name: str, produce: Produce) -> Kind:
    return Kind(
        nouns=produce.nouns,
        outline=lambda body: _whole_outline(produce, body),
        paint=lambda body, light: _whole_paints(produce, body, light),
        group="long food" if produce.long else "round food",
        turn_deg=90,
    )


PRODUCE_KINDS: dict[str, Kind] = {
    **{name: _kind(name, produce) for name, produce in PRODUCE.items()},
    "half": Kind(nouns=("half",), outline=_half_outline, paint=_half, turn_deg=90),
}
