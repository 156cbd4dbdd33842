"""Animals, head and shoulders: each a few shapes on one way of drawing a face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..drawing import Light, Paint, bands
from ..geometry import Point, Polygon, clip, ellipse, scaled, smooth, stroke, turned
from ..palette import RGB, lit, mixed
from .portrait_features import DARK, PINK, eyes, inner_line, mouth, neckwear, tilted
from .street_cars import softened

if TYPE_CHECKING:
    from ..state import Body

CREAM: RGB = (252, 240, 220)
Feature = Callable[["Body", Light], list[Paint]]


@dataclass(frozen=True, kw_only=True)
class Animal:
    """A face in the frame of its body, whose shoulders end at y = 1.

    `head` is the right half of its outline from the top down; `eyes` are (x, y) of the right one, `eye` its radius;
    `brow` is (y, half width) of the line on which a hat sits. `behind` is drawn before the head, `muzzle` and
    `before` on it.
    """

    head: tuple[Point, ...]
    eyes: Point
    eye: float
    brow: Point
    behind: Feature
    muzzle: Feature
    before: Feature
    bust: float = 0.5


def whole(right: tuple[Point, ...]) -> Polygon:
    """A closed curve whose right half, from the top down, is given."""
    left = [(-x, y) for x, y in right[::-1] if x > 1e-9]
    return smooth([*right, *left], 5)


def both(polygon: Polygon | tuple[Point, ...]) -> tuple[Polygon, Polygon]:
    """A shape on the right and its mirror image on the left."""
    return list(polygon), [(-x, y) for x, y in polygon]


def _nothing(_body: Body, _light: Light) -> list[Paint]:
    return []


def _ears(polygon: Polygon, inner: float, tip: float = 0.0) -> Feature:
    """Ears behind the head, pink inside; `tip` is how dark their points are."""

    def draw(body: Body, light: Light) -> list[Paint]:
        paints = []
        for side, ear in zip((1, -1), both(polygon), strict=True):
            x, y = sum(px for px, _ in ear) / len(ear), sum(py for _, py in ear) / len(ear)
            top = min(py for _, py in ear)
            shade = -0.12 if side == light.side else -0.34
            paints += [Paint(ear, lit(body.albedo, shade))]
            paints += [Paint(clip(ear, (0.0, 1.0), top + 0.2), mixed(body.albedo, DARK, 0.8))] if tip else []
            paints.append(Paint(scaled(ear, inner, (x, y + 0.1)), mixed(PINK, body.albedo, 0.35)))
        return paints

    return draw


def _flaps(body: Body, light: Light) -> list[Paint]:
    """Ears that hang down at the sides of the head."""
    ear = smooth(
        [(0.32, -0.7), (0.58, -0.66), (0.76, -0.36), (0.74, 0.02), (0.6, 0.14), (0.5, -0.06), (0.44, -0.38)], 4
    )
    paints = []
    for side, flap in zip((1, -1), both(ear), strict=True):
        rgb = lit(body.albedo, -0.34 if side == light.side else -0.5)
        paints += inner_line(flap, lit(body.albedo, -0.75)) + [
            Paint(flap, rgb),
            Paint(scaled(flap, 0.72, (0.6 * side, -0.5)), lit(rgb, 0.1)),
        ]
    return paints


def _nose(x: float, y: float, half: float, rgb: RGB) -> list[Paint]:
    shape = softened(
        [
            (x - half, y - 0.6 * half),
            (x + half, y - 0.6 * half),
            (x + 0.5 * half, y + 0.5 * half),
            (x, y + 0.8 * half),
            (x - 0.5 * half, y + 0.5 * half),
        ],
        0.4 * half,
    )
    return [
        Paint(shape, rgb),
        Paint(ellipse(x - 0.3 * half, y - 0.25 * half, 0.34 * half, 0.2 * half, 10), (255, 255, 255), 0.4),
    ]


def _whiskers(y: float, rgb: RGB) -> list[Paint]:
    lines = [
        ((0.26, y - 0.01), (0.46, y - 0.06), (0.68, y - 0.06)),
        ((0.24, y + 0.08), (0.45, y + 0.11), (0.66, y + 0.17)),
    ]
    return [Paint(stroke(side, 0.042, 0.026), rgb, 0.5) for line in lines for side in both(line)]


def _cat(body: Body, light: Light) -> list[Paint]:
    pale = mixed(body.albedo, CREAM, 0.72)
    pads = [Paint(ellipse(x, 0.05, 0.16, 0.125), pale) for x in (-0.12, 0.12)]
    return [
        Paint(ellipse(0, 0.14, 0.13, 0.1), pale),
        *pads,
        *mouth(body, 0.0, 0.04, 0.12),
        *_nose(0, -0.05, 0.075, (226, 128, 132)),
        *_whiskers(0.04, (250, 246, 238) if sum(body.albedo) < 480 else (120, 100, 96)),
    ]


def _tabby(body: Body, _light: Light) -> list[Paint]:
    """Stripes on the forehead and the cheeks, a blaze, or nothing, as the detail `mark` says."""
    mark, dark = body.detail("mark", "plain"), lit(body.albedo, -0.5)
    if mark == "tabby":
        stripes = [((0.0, -0.72), (0.0, -0.46)), ((0.14, -0.7), (0.11, -0.48)), ((-0.14, -0.7), (-0.11, -0.48))]
        stripes += [
            ((0.6, -0.12), (0.42, -0.08)),
            ((0.58, 0.0), (0.42, 0.02)),
            ((-0.6, -0.12), (-0.42, -0.08)),
            ((-0.58, 0.0), (-0.42, 0.02)),
        ]
        return [Paint(stroke(line, 0.09, 0.045), dark, 0.75) for line in stripes]
    if mark == "blaze":
        blaze = smooth(
            [
                (0.0, -0.7),
                (0.07, -0.4),
                (0.13, -0.1),
                (0.2, 0.1),
                (0.0, 0.2),
                (-0.2, 0.1),
                (-0.13, -0.1),
                (-0.07, -0.4),
            ],
            4,
        )
        return [Paint(blaze, mixed(body.albedo, CREAM, 0.8))]
    if mark == "patch":
        return [
            Paint(
                smooth([(0.1, -0.36), (0.26, -0.46), (0.42, -0.34), (0.42, -0.12), (0.24, -0.06), (0.1, -0.18)], 4),
                lit(body.albedo, -0.34),
                0.9,
            )
        ]
    return []


def _dog(body: Body, light: Light) -> list[Paint]:
    pale = mixed(body.albedo, CREAM, 0.66)
    return [
        Paint(whole(((0.0, -0.16), (0.18, -0.08), (0.29, 0.1), (0.22, 0.28), (0.0, 0.34))), pale),
        *mouth(body, 0.0, 0.12, 0.15),
        *_nose(0, 0.0, 0.12, (52, 42, 48)),
        *(Paint(ellipse(x, 0.13, 0.03, corners=10), lit(pale, -0.3)) for x in (0.18, -0.18)),
    ]


def _rabbit(body: Body, light: Light) -> list[Paint]:
    pale = mixed(body.albedo, CREAM, 0.7)
    return [
        Paint(softened([(-0.065, 0.16), (0.065, 0.16), (0.055, 0.29), (-0.055, 0.29)], 0.03), (255, 252, 244)),
        *(Paint(ellipse(x, 0.13, 0.14, 0.1), pale) for x in (-0.11, 0.11)),
        *mouth(body, 0.0, 0.11, 0.1),
        *_nose(0, 0.05, 0.065, (226, 128, 140)),
        *_whiskers(0.12, (250, 246, 238) if sum(body.albedo) < 480 else (150, 130, 126)),
    ]


def _fox(body: Body, light: Light) -> list[Paint]:
    cheek = softened(
        [(0.0, 0.42), (0.0, 0.08), (0.12, -0.02), (0.34, -0.08), (0.66, -0.04), (0.46, 0.14), (0.18, 0.36)], 0.07
    )
    return [
        *(Paint(side, mixed(body.albedo, CREAM, 0.88)) for side in both(cheek)),
        *mouth(body, 0.0, 0.26, 0.1),
        *_nose(0, 0.16, 0.09, (48, 40, 46)),
    ]


def _bear(body: Body, light: Light) -> list[Paint]:
    return [
        Paint(ellipse(0, 0.04, 0.27, 0.22), mixed(body.albedo, CREAM, 0.6)),
        *mouth(body, 0.0, 0.06, 0.11),
        *_nose(0, -0.05, 0.11, (52, 42, 48)),
    ]


_CAT_EAR = softened([(0.6, -0.36), (0.64, -1.02), (0.14, -0.7)], 0.12)
_FOX_EAR = softened([(0.62, -0.3), (0.6, -1.08), (0.1, -0.62)], 0.08)
_LONG_EAR = turned(ellipse(0.21, -0.82, 0.14, 0.46), 0.14, (0.2, -0.4))
_ROUND_EAR = ellipse(0.45, -0.64, 0.21)

ANIMALS: dict[str, Animal] = {
    "cat": Animal(
        head=((0.0, -0.74), (0.34, -0.71), (0.57, -0.44), (0.63, -0.12), (0.45, 0.16), (0.0, 0.28)),
        eyes=(0.25, -0.22),
        eye=0.105,
        brow=(-0.55, 0.36),
        behind=_ears(_CAT_EAR, 0.55),
        muzzle=_cat,
        before=_tabby,
    ),
    "dog": Animal(
        head=((0.0, -0.76), (0.34, -0.72), (0.52, -0.44), (0.51, -0.06), (0.38, 0.22), (0.0, 0.4)),
        eyes=(0.22, -0.24),
        eye=0.085,
        brow=(-0.6, 0.38),
        behind=_nothing,
        muzzle=_dog,
        before=_tabby,
        bust=0.54,
    ),
    "rabbit": Animal(
        head=((0.0, -0.54), (0.3, -0.5), (0.5, -0.22), (0.53, 0.06), (0.36, 0.3), (0.0, 0.38)),
        eyes=(0.24, -0.1),
        eye=0.095,
        brow=(-0.4, 0.33),
        behind=_ears(_LONG_EAR, 0.66),
        muzzle=_rabbit,
        before=_nothing,
        bust=0.46,
    ),
    "fox": Animal(
        head=((0.0, -0.66), (0.34, -0.64), (0.56, -0.38), (0.66, -0.04), (0.42, 0.16), (0.15, 0.37), (0.0, 0.42)),
        eyes=(0.24, -0.17),
        eye=0.08,
        brow=(-0.5, 0.35),
        behind=_ears(_FOX_EAR, 0.5, tip=0.8),
        muzzle=_fox,
        before=_nothing,
        bust=0.48,
    ),
    "bear": Animal(
        head=((0.0, -0.76), (0.32, -0.7), (0.54, -0.48), (0.6, -0.18), (0.48, 0.12), (0.0, 0.3)),
        eyes=(0.23, -0.25),
        eye=0.075,
        brow=(-0.59, 0.38),
        behind=_ears(_ROUND_EAR, 0.58),
        muzzle=_bear,
        before=_nothing,
        bust=0.6,
    ),
}


def animal(body: Body, light: Light) -> list[Paint]:
    """Shoulders, what is worn about the neck, and the face, which may be tilted."""
    spec, rgb = ANIMALS[body.kind], body.albedo
    shape = whole(spec.head)
    skull = [*spec.behind(body, light), *inner_line(shape, lit(rgb, -0.75)), *bands(shape, rgb, light, 0.3)]
    features = [*spec.before(body, light), *spec.muzzle(body, light), *eyes(body, spec.eyes, spec.eye, light)]
    ears = _flaps(body, light) if body.kind == "dog" else []
    return [*_bust(body, spec.bust, light), *neckwear(body, 0.36, light), *tilted(body, [*skull, *ears, *features])]


def bust_outline(half: float) -> Polygon:
    """Shoulders that end at y = 1."""
    right = [(0.0, 0.12), (0.3, 0.24), (0.9 * half, 0.56), (half, 0.8), (1.04 * half, 1.0), (0.0, 1.3)]
    curve = smooth([*right, *[(-x, y) for x, y in right[:0:-1]]], 4)
    return clip(curve, (0.0, 1.0), 1.0)


def _bust(body: Body, half: float, light: Light) -> list[Paint]:
    rgb, shape = body.albedo, bust_outline(half)
    chest = clip(ellipse(0, 0.78, 0.5 * half, 0.42), (0.0, 1.0), 1.0)
    return [
        Paint(shape, lit(rgb, -0.12)),
        Paint(clip(shape, (light.side, 0.0), -0.45 * half), lit(rgb, -0.34)),
        Paint(chest, mixed(rgb, CREAM, 0.42)),
        Paint(clip(ellipse(0.0, 0.32, 0.62 * half, 0.17), (0.0, -1.0), -0.3), lit(rgb, -0.5), 0.3),
    ]
