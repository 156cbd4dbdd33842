"""The kitchen: tools, lids, what is sprinkled and poured, and the table of all its kinds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..drawing import Light, Paint, column
from ..geometry import Point, Polygon, arc, below, box, clip, ellipse, rounded, span, stroke
from ..palette import RGB, lit, mixed
from .base import Kind, same
from .kitchen_produce import PRODUCE_KINDS, distinct
from .kitchen_vessels import VESSEL_KINDS

if TYPE_CHECKING:
    from ..state import Body

STEEL: RGB = (190, 200, 212)

BOARD_HALF, BOARD_TOP = 3.0, 0.2  # half a board's width and the height of its top, where its body says no other


def _board_outline(body: Body) -> Polygon:
    half, top = body.detail("half", BOARD_HALF), body.detail("top", BOARD_TOP)
    return distinct(rounded(-half, top, half, 1, 0.22))


def _board(body: Body, light: Light) -> list[Paint]:
    """The front edge of a board with its grain, and above it what is seen of the top behind those that stand there."""
    rgb, half, y = body.albedo, body.detail("half", BOARD_HALF), body.detail("top", BOARD_TOP)
    top = [(-half + 0.14, y), (-half + 0.6, y - 0.3), (half - 0.6, y - 0.3), (half - 0.14, y)]
    v = y + 0.6 * (1 - y)
    grain = stroke([(-half + 0.25, v), (0, v - 0.06), (half - 0.25, v - 0.03)], 0.1)
    return [
        Paint(top, lit(rgb, 0.24)),
        Paint(_board_outline(body), lit(rgb, -0.14)),
        Paint(box(-half + 0.08, y, half - 0.08, y + 0.16), lit(rgb, 0.2)),
        Paint(grain, lit(rgb, -0.26), 0.5),
    ]


BLADE = [(-0.24, -0.3), (0.26, -0.3), (0.26, 0.3), (0.2, 0.66), (0.02, 1.0), (-0.24, 0.5)]


def _knife(body: Body, light: Light) -> list[Paint]:
    """Point down: a blade whose edge is on the right, and a riveted handle."""
    rgb = body.albedo
    return [
        Paint(rounded(-0.2, -1.0, 0.2, -0.32, 0.12), rgb),
        Paint(box(-0.16, -0.96, -0.04, -0.36), lit(rgb, 0.3), 0.8),
        *(Paint(ellipse(0.06, y, 0.06, 0.05, 8), lit(STEEL, 0.3)) for y in (-0.82, -0.56)),
        Paint(box(-0.26, -0.38, 0.26, -0.28), lit(STEEL, -0.5)),
        Paint(BLADE, lit(STEEL, -0.1)),
        Paint([(0.08, -0.28), (0.26, -0.28), (0.26, 0.3), (0.2, 0.66), (0.02, 1.0)], lit(STEEL, 0.5)),
        Paint([(-0.14, -0.24), (-0.04, -0.24), (-0.04, 0.5), (-0.14, 0.4)], (255, 255, 255), 0.5),
    ]


SHAKER = [(-0.42, -1.0), (0.42, -1.0), (0.5, -0.62), (0.6, 0.86), (0.5, 1.0), (-0.5, 1.0), (-0.6, 0.86), (-0.5, -0.62)]


def _shaker(body: Body, light: Light) -> list[Paint]:
    """A caster of what its colour says, under a steel cap with holes."""
    rgb = body.albedo
    cap = [
        (-0.52, -0.5),
        (-0.5, -0.68),
        (-0.42, -0.9),
        *arc(0, -0.9, 0.42, 0.1, 180, 360, 7),
        (0.5, -0.68),
        (0.52, -0.5),
    ]
    wall = [(-0.5, -0.56), (0.5, -0.56), (0.6, 0.86), (0.5, 1.0), (-0.5, 1.0), (-0.6, 0.86)]
    return [
        Paint(wall, lit(rgb, -0.1)),
        *column(((-0.48, -0.54), (0.48, -0.54)), ((-0.57, 0.94), (0.57, 0.94)), rgb, light),
        Paint(rounded(-0.36, -0.1, 0.36, 0.54, 0.1), mixed((250, 246, 232), rgb, 0.3)),
        Paint(ellipse(0, 0.22, 0.2), mixed(rgb, (250, 246, 232), 0.2)),
        Paint(cap, STEEL),
        *column(((-0.5, -0.66), (0.5, -0.66)), ((-0.52, -0.5), (0.52, -0.5)), lit(STEEL, -0.2), light),
        *(Paint(ellipse(x, -0.82, 0.09, 0.07, 10), lit(STEEL, -0.5)) for x in (-0.22, 0.06, 0.34)),
    ]


# a lid is flat: it is drawn 2 high, and shrunk to this share of what a body of its size could be
LID_SHARE = 0.7


def _flat(polygon: Sequence[Point]) -> Polygon:
    return [(LID_SHARE * x, 1 - LID_SHARE * (1 - y)) for x, y in polygon]


def _lid_outline(body: Body) -> Polygon:
    return _flat(_lid_shape(body))


def _lid(body: Body, light: Light) -> list[Paint]:
    return [paint._replace(polygon=_flat(paint.polygon)) for paint in _lid_paints(body, light)]


def _lid_shape(body: Body) -> Polygon:
    """The lid, `half` of its half heights wide."""
    half = body.detail("half", 2.2)
    if body.detail("style", "screw") == "knob":
        return [
            (-half, 1.0),
            (-half, 0.3),
            (-half * 0.6, -0.2),
            (-0.42, -0.34),
            (-0.5, -0.8),
            (-0.2, -1.0),
            (0.2, -1.0),
            (0.5, -0.8),
            (0.42, -0.34),
            (half * 0.6, -0.2),
            (half, 0.3),
            (half, 1.0),
        ]
    return [(-half, 1.0), (-half, -0.7), (-half + 0.3, -1.0), (half - 0.3, -1.0), (half, -0.7), (half, 1.0)]


def _lid_paints(body: Body, light: Light) -> list[Paint]:
    """A screw cap with ribs, which move along as it is turned (detail `twist`), or a lid with a knob."""
    rgb, half = body.albedo, body.detail("half", 2.2)
    outline = _lid_shape(body)
    if body.detail("style", "screw") == "knob":
        return [
            Paint(outline, lit(rgb, -0.12)),
            *column(((-half, 0.34), (half, 0.34)), ((-half, 1.0), (half, 1.0)), rgb, light),
            Paint([(-half, 0.3), (-half * 0.6, -0.2), (half * 0.6, -0.2), (half, 0.3)], lit(rgb, 0.2)),
            Paint(ellipse(0, -0.66, 0.5, 0.34), lit(rgb, 0.05)),
            Paint(ellipse(0.16 * light.side, -0.76, 0.18, 0.12, 12), (255, 255, 255), 0.6),
        ]
    ribs = []
    for k in range(10):
        turn = 2 * math.pi * (k / 10 + body.detail("twist", 0.0))
        if math.cos(turn) > 0.1:
            x = half * 0.96 * math.sin(turn)
            ribs.append(Paint(box(x - 0.13, -0.45, x + 0.13, 0.92), lit(rgb, -0.4), 0.5))
    return [
        Paint(outline, rgb),
        *column(((-half, -0.6), (half, -0.6)), ((-half, 1.0), (half, 1.0)), rgb, light),
        *ribs,
        Paint(
            [(-half, -0.55), (-half, -0.7), (-half + 0.3, -1.0), (half - 0.3, -1.0), (half, -0.7), (half, -0.55)],
            lit(rgb, 0.2),
        ),
    ]


def _points(body: Body) -> Polygon:
    if len(body.points) < 3:
        raise ValueError(f"a body of kind {body.kind} has {len(body.points)} points; give three or more")
    return list(body.points)


def _stream(body: Body, light: Light) -> list[Paint]:
    """Falling liquid, brighter along one side."""
    polygon, rgb = _points(body), body.albedo
    n = len(polygon) // 2
    left, right = polygon[:n], polygon[n:][::-1]
    if light.side > 0:
        left, right = right, left
    shine = [((3 * ax + bx) / 4, (3 * ay + by) / 4) for (ax, ay), (bx, by) in zip(left, right, strict=False)]
    return [Paint(polygon, rgb), Paint([*left, *shine[::-1]], lit(rgb, 0.45), 0.8)]


def _grains_outline(body: Body) -> Polygon:
    """A box about the grains."""
    left, top, right, bottom = span(_points(body))
    r = body.detail("grain", 0.2)
    return box(left - r, top - r, right + r, bottom + r)


def _grains(body: Body, _light: Light) -> list[Paint]:
    """Every grain where its point is; later ones lie on those below."""
    r, rgb = body.detail("grain", 0.2), body.albedo
    shades = (-0.08, 0.04, -0.03, 0.1, 0.0)
    return [
        Paint(ellipse(x, y, r * (0.9 + 0.08 * (k % 4)), r * (1.0 - 0.07 * (k % 3)), 8), lit(rgb, shades[k % 5]))
        for k, (x, y) in enumerate(_points(body))
    ]


def _drink(body: Body, _light: Light) -> list[Paint]:
    """A liquid in glass: a little darker towards the bottom, a little lighter at its surface."""
    polygon, rgb = _points(body), body.albedo
    _, top, _, bottom = span(polygon)
    deep, deeper = (below(polygon, top + share * (bottom - top)) for share in (0.5, 0.8))
    surface = clip(polygon, (0.0, 1.0), top + min(0.14 * (bottom - top), 0.12))
    return [
        Paint(polygon, rgb),
        Paint(deep, lit(rgb, -0.1)),
        Paint(deeper, lit(rgb, -0.2)),
        Paint(surface, lit(rgb, 0.3)),
    ]


TOOLS: dict[str, Kind] = {
    "board": Kind(
        nouns=("cutting board", "chopping board", "board"), outline=_board_outline, paint=_board, turn_deg=40
    ),
    "knife": Kind(
        nouns=("knife",),
        outline=same([(-0.26, -1), (0.26, -1), (0.26, 0.4), (0.02, 1), (-0.26, 0.5)]),
        paint=_knife,
        solid=False,
        shadow=0.0,
    ),
    "shaker": Kind(nouns=("shaker",), outline=same(SHAKER), paint=_shaker, group="crockery"),
    "lid": Kind(nouns=("lid",), outline=_lid_outline, paint=_lid, turn_deg=40),
    "drink": Kind(nouns=("liquid",), outline=_points, paint=_drink, solid=False, shadow=0.0, edge=0.0),
    "stream": Kind(nouns=("stream",), outline=_points, paint=_stream, solid=False, shadow=0.0, edge=0.0),
    "grains": Kind(
        nouns=("seasoning",),
        outline=_grains_outline,
        paint=_grains,
        see_through=True,
        solid=False,
        shadow=0.0,
        edge=0.0,
        turn_deg=0,
    ),
}

KITCHEN: dict[str, Kind] = {**PRODUCE_KINDS, **VESSEL_KINDS, **TOOLS}
