"""Glasses and hats: bodies of their own, which sit on a face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..drawing import Light, Paint, bands
from ..geometry import Point, Polygon, arc, box, clip, ellipse, rounded, smooth, stroke
from ..palette import ALBEDO, RGB, lit, mixed
from .base import Kind, same
from .street_cars import softened

if TYPE_CHECKING:
    from ..state import Body

LENS_X = 1.3  # from the middle of the glasses to that of a lens, in units of their size
SMOKE: RGB = (30, 30, 40)
LENSES: dict[str, Polygon] = {
    "square": softened([(-1.0, -0.82), (1.02, -0.86), (0.92, 0.5), (0.5, 0.86), (-0.5, 0.86), (-0.88, 0.4)], 0.45),
    "round": ellipse(0.0, 0.0, 0.98, 0.98),
    "heart": smooth(
        [(0.0, -0.5), (0.5, -0.92), (1.02, -0.6), (0.9, 0.1), (0.0, 0.98), (-0.9, 0.1), (-1.02, -0.6), (-0.5, -0.92)], 5
    ),
    "star": [
        (
            (1.1 if k % 2 == 0 else 0.52) * math.sin(math.pi * k / 5),
            -(1.1 if k % 2 == 0 else 0.52) * math.cos(math.pi * k / 5),
        )
        for k in range(10)
    ],
}


def _at(polygon: Sequence[Point], side: float) -> Polygon:
    """A lens of the right or the left side."""
    return [(side * (x + LENS_X), y) for x, y in polygon]


def _glasses_outline(body: Body) -> Polygon:
    return box(-LENS_X - 1.1, -1.0, LENS_X + 1.1, 1.0)


def _glasses(body: Body, light: Light) -> list[Paint]:
    """Two dark lenses in a frame of the glasses' colour, a bridge, and the beginning of the bows."""
    rgb, lens = body.albedo, LENSES[body.detail("style", "square")]
    glass = mixed(SMOKE, rgb, 0.42)
    paints = [
        Paint(stroke(arc(0, -0.12, 0.42, 0.34, 180, 360, 9), 0.26), rgb),
        *(
            Paint(box(min(s * 2.2, s * 2.62), -0.56, max(s * 2.2, s * 2.62), -0.26), lit(rgb, -0.2))
            for s in (-1.0, 1.0)
        ),
    ]
    for side in (-1.0, 1.0):
        rim, pane = _at(lens, side), _at([(0.8 * x, 0.8 * y) for x, y in lens], side)
        x = side * LENS_X
        low = x - 0.6
        glint = [(low, 0.5), (low + 0.7, -0.66), (low + 1.16, -0.66), (low + 0.46, 0.5)]
        paints += [
            Paint([(px, py + 0.24) for px, py in rim], (40, 24, 40), 0.22),
            Paint(rim, lit(rgb, 0.06 if side == light.side else -0.1)),
            Paint(pane, glass),
            Paint(clip(pane, (0.0, -1.0), -0.1), lit(glass, 0.14)),
            Paint(glint, (255, 255, 255), 0.24),
        ]
    return paints


def _dome(half: float, top: float, foot: float) -> Polygon:
    return [*arc(0, foot, half, foot - top, 180, 360, 19)]


def _top_hat(body: Body, light: Light) -> list[Paint]:
    rgb = body.albedo
    crown = [(-0.86, 0.72), (-0.94, -0.86), *arc(0, -0.86, 0.94, 0.14, 180, 360, 11), (0.94, -0.86), (0.86, 0.72)]
    ribbon = [(-0.885, 0.3), (0.885, 0.3), (0.86, 0.74), (-0.86, 0.74)]
    return [
        *bands(ellipse(0, 0.8, 1.42, 0.2), lit(rgb, -0.06), light),
        Paint(crown, rgb),
        Paint(clip(crown, (light.side, 0.0), -0.42), lit(rgb, -0.32)),
        Paint(clip(clip(crown, (-light.side, 0.0), -0.4), (light.side, 0.0), 0.66), lit(rgb, 0.26)),
        Paint(ellipse(0, -0.88, 0.92, 0.12), lit(rgb, 0.14)),
        Paint(ribbon, mixed((214, 60, 60), rgb, 0.15) if sum(rgb) < 330 else lit(rgb, -0.6)),
    ]


def _beanie(body: Body, light: Light) -> list[Paint]:
    """Knitted, with a pompom and a rolled edge."""
    rgb = body.albedo
    dome = _dome(1.06, -0.68, 0.66)
    ribs = [
        Paint(stroke([(0.44 * k, 0.6), (0.38 * k, 0.0), (0.16 * k, -0.62)], 0.12, 0.07), lit(rgb, -0.3), 0.5)
        for k in (-1.5, -0.5, 0.5, 1.5)
    ]
    knit = [Paint(box(x - 0.05, 0.46, x + 0.05, 0.94), lit(rgb, 0.06), 0.8) for x in (-0.72, -0.24, 0.24, 0.72)]
    return [
        Paint(ellipse(0, -0.74, 0.3, 0.27), lit(rgb, 0.5)),
        Paint(ellipse(0.08 * light.side, -0.8, 0.19, 0.16), lit(rgb, 0.7)),
        *bands(dome, rgb, light, 0.3),
        *ribs,
        Paint(rounded(-1.12, 0.4, 1.12, 1.0, 0.26), lit(rgb, 0.32)),
        *knit,
    ]


def _straw_hat(body: Body, light: Light) -> list[Paint]:
    rgb = body.albedo
    dome = [(-0.84, 0.62), *arc(0, 0.0, 0.8, 0.74, 190, 350, 15), (0.84, 0.62)]
    weave = [
        Paint(stroke(arc(0, 0.78, 1.42, 0.14, 5, 175, 15), 0.08), lit(rgb, -0.3), 0.5),
    ]
    return [
        *bands(ellipse(0, 0.72, 1.74, 0.28), rgb, light),
        *weave,
        *bands(dome, lit(rgb, 0.06), light, 0.3),
        *(Paint(stroke([(-0.8, y), (0.0, y + 0.06), (0.8, y)], 0.09), lit(rgb, -0.2), 0.5) for y in (-0.32, 0.0)),
        Paint([(-0.83, 0.3), (0.0, 0.4), (0.83, 0.3), (0.85, 0.64), (0.0, 0.76), (-0.85, 0.64)], lit(rgb, -0.6)),
    ]


def _party_hat(body: Body, light: Light) -> list[Paint]:
    """A cone with dots and a tassel."""
    rgb = body.albedo
    cone = [(-0.72, 0.84), (0.0, -0.86), (0.72, 0.84), *arc(0, 0.84, 0.72, 0.13, 0, 180, 11)]
    dots = (
        (0.0, -0.28, 0.13),
        (0.2, 0.16, 0.15),
        (-0.24, 0.4, 0.16),
        (0.3, 0.66, 0.16),
    )
    return [
        Paint(cone, rgb),
        Paint(clip(cone, (light.side, 0.0), -0.12), lit(rgb, -0.28)),
        *(Paint(ellipse(x, y, r), lit(rgb, 0.56)) for x, y, r in dots),
        *(
            Paint(ellipse(0.15 * math.sin(a), -0.84 + 0.15 * math.cos(a), 0.12, corners=12), ALBEDO["yellow"])
            for a in (0.0, 1.3, 2.6, 3.9, 5.2)
        ),
    ]


def _cap(body: Body, light: Light) -> list[Paint]:
    """A baseball cap, its peak to the side that its detail `flip` says."""
    rgb, flip = body.albedo, body.detail("flip", 1.0)
    dome = [(-0.98, 0.7), *arc(0, 0.3, 0.98, 1.06, 180, 360, 17), (0.98, 0.7), (0.0, 0.86)]
    peak = smooth([(-0.2, 0.62), (0.7, 0.5), (1.4, 0.62), (1.74, 0.86), (1.2, 1.0), (0.4, 0.92)], 4)
    seams = [stroke(arc(0, 0.3, w, 1.04, 180, 270, 9), 0.08) for w in (0.45,)] + [
        stroke(arc(0, 0.3, w, 1.04, 270, 360, 9), 0.08) for w in (0.45,)
    ]
    return [
        *bands(dome, rgb, light, 0.3),
        *(Paint(seam, lit(rgb, -0.3), 0.5) for seam in seams),
        Paint(ellipse(0, -0.76, 0.13, 0.08), lit(rgb, -0.2)),
        Paint(ellipse(0.0, 0.16, 0.3, 0.27), lit(rgb, 0.72)),
        Paint([(flip * x, y) for x, y in peak], lit(rgb, -0.3)),
        Paint([(flip * (0.94 * x + 0.06), 0.9 * y + 0.03) for x, y in peak], lit(rgb, -0.12)),
    ]


def _crown(body: Body, light: Light) -> list[Paint]:
    """Five points with balls on them, and stones along the foot."""
    rgb = body.albedo
    points = [
        (-1.0, -0.5),
        (-0.56, 0.14),
        (-0.5, -0.8),
        (-0.02, 0.06),
        (0.0, -0.9),
        (0.02, 0.06),
        (0.5, -0.8),
        (0.56, 0.14),
        (1.0, -0.5),
    ]
    shape = [(-0.9, 0.84), *points, (0.9, 0.84), *arc(0, 0.84, 0.9, 0.14, 0, 180, 11)]
    stones = ((-0.56, "red"), (0.0, "blue"), (0.56, "green"))
    return [
        Paint(shape, rgb),
        Paint(clip(shape, (light.side, 0.0), -0.3), lit(rgb, -0.3)),
        Paint(clip(shape, (-light.side, 0.0), -0.46), lit(rgb, 0.34)),
        Paint([(-0.93, 0.42), (0.93, 0.42), (0.91, 0.54), (-0.91, 0.54)], lit(rgb, -0.3)),
        *(
            Paint(ellipse(x, y, 0.14, corners=14), lit(rgb, 0.4))
            for x, y in ((-1.0, -0.54), (-0.5, -0.84), (0.0, -0.9), (0.5, -0.84), (1.0, -0.54))
        ),
        *(Paint(ellipse(x, 0.72, 0.17, 0.14, 14), ALBEDO[name]) for x, name in stones),
    ]


def _cowboy_hat(body: Body, light: Light) -> list[Paint]:
    rgb = body.albedo
    brim = smooth(
        [(-1.85, 0.3), (-1.3, 0.6), (0.0, 0.68), (1.3, 0.6), (1.85, 0.3), (1.5, 0.86), (0.0, 1.0), (-1.5, 0.86)], 4
    )
    crown = smooth(
        [
            (-0.84, 0.74),
            (-0.86, 0.0),
            (-0.7, -0.78),
            (-0.3, -0.9),
            (0.0, -0.74),
            (0.3, -0.9),
            (0.7, -0.78),
            (0.86, 0.0),
            (0.84, 0.74),
        ],
        4,
    )
    return [
        Paint(crown, rgb),
        Paint(clip(crown, (light.side, 0.0), -0.3), lit(rgb, -0.28)),
        Paint(
            smooth([(-0.12, -0.66), (0.0, -0.7), (0.12, -0.66), (0.06, -0.1), (-0.06, -0.1)], 3), lit(rgb, -0.36), 0.7
        ),
        Paint([(-0.87, 0.26), (0.87, 0.26), (0.85, 0.64), (-0.85, 0.64)], lit(rgb, -0.6)),
        Paint(brim, lit(rgb, -0.1)),
        Paint(clip(brim, (light.side, 0.0), -0.7), lit(rgb, -0.34)),
        Paint(clip(brim, (-light.side, 0.0), -0.8), lit(rgb, 0.16)),
    ]


HATS: dict[str, Kind] = {
    name: Kind(
        nouns=nouns,
        outline=same(box(-half, -1.0, half, 1.0)),
        paint=paint,
        group="hats",
        see_through=True,
        solid=False,
        shadow=0.0,
        turn_deg=60,
    )
    for name, nouns, half, paint in (
        ("top_hat", ("top hat",), 1.4, _top_hat),
        ("beanie", ("beanie", "woolly hat"), 1.1, _beanie),
        ("straw_hat", ("straw hat", "sun hat"), 1.7, _straw_hat),
        ("party_hat", ("party hat",), 0.72, _party_hat),
        ("cap", ("cap", "baseball cap"), 1.4, _cap),
        ("crown", ("crown",), 1.1, _crown),
        ("cowboy_hat", ("cowboy hat",), 1.8, _cowboy_hat),
    )
}
GLASSES: dict[str, Kind] = {
    "sunglasses": Kind(
        nouns=("sunglasses",),
        outline=_glasses_outline,
        paint=_glasses,
        see_through=True,
        solid=False,
        shadow=0.0,
        turn_deg=60,
    )
}
