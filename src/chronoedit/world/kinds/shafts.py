"""Shafts that stand upright or stick out of a motor, and the hollow tools that are slid on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..drawing import Light, Paint, column
from ..geometry import Polygon, arc, box, ellipse, rounded
from ..palette import RGB, lit
from .base import Kind, same

if TYPE_CHECKING:
    from ..state import Body

STEEL: RGB = (182, 192, 206)
DARK: RGB = (54, 56, 68)
HOLLOW: RGB = (40, 36, 52)

# half widths and heights in the half extents of each kind
SLEEVE_HALF, HOLE_HALF, SLEEVE_RIM = 0.86, 0.42, 0.24
SHAFT_HALF, SHAFT_TOP, SHAFT_BASE = 0.32, -3.2, 0.25
CHUCK_HALF, CHUCK_AXIS, CHUCK_RADIUS, CHUCK_HOLE, CHUCK_LUG = 0.95, 0.25, 0.75, 0.38, 0.42
CHUCK_FACE = 0.2  # how far the end that is turned to the viewer reaches into the picture of the tube
MOTOR_AXIS, MOTOR_FACE, MOTOR_TIP, MOTOR_SHAFT = 0.1, 1.0, 3.3, 0.24


def _sleeve(body: Body, light: Light) -> list[Paint]:
    """The far half of its end and of the hole: the shaft comes out of it, before the near half is drawn."""
    rgb, y = body.albedo, SLEEVE_RIM - 1
    return [
        Paint(ellipse(0, y, SLEEVE_HALF, SLEEVE_RIM), lit(rgb, 0.3)),
        Paint(ellipse(0, y, HOLE_HALF, SLEEVE_RIM * 0.55), HOLLOW),
        Paint(arc(0, y, HOLE_HALF, SLEEVE_RIM * 0.55, 180, 360), lit(rgb, -0.62)),
    ]


def _sleeve_front(body: Body, light: Light) -> list[Paint]:
    rgb, y, half = body.albedo, SLEEVE_RIM - 1, SLEEVE_HALF
    near = [
        (-half, y),
        *arc(0, y, HOLE_HALF, SLEEVE_RIM * 0.55, 180, 0),
        (half, y),
        *arc(0, y, half, SLEEVE_RIM, 0, 180),
    ]
    foot = 1 - 0.16
    wall = [*arc(0, y, half, SLEEVE_RIM, 180, 0), (half, foot), *arc(0, foot, half, 0.16, 0, 180)]
    rings = [
        [*arc(0, v, half, SLEEVE_RIM * 0.8, 180, 0), *arc(0, v + 0.13, half, SLEEVE_RIM * 0.8, 0, 180)]
        for v in (-0.22, 0.42)
    ]
    return [
        Paint(wall, lit(rgb, -0.2)),
        *_round(wall, half, y, 1.0, rgb, light),
        *(Paint(ring, lit(rgb, -0.55), 0.75) for ring in rings),
        Paint(near, lit(rgb, 0.34)),
    ]


def _round(wall: Polygon, half: float, top: float, bottom: float, rgb: RGB, light: Light) -> list[Paint]:
    """Upright bands that follow the curve of both ends."""
    paints = []
    for paint in column(((-half, top), (half, top)), ((-half, bottom), (half, bottom)), rgb, light):
        xs = [x for x, _ in paint.polygon]
        low, high = min(xs), max(xs)

        def sag(x: float, depth: float) -> float:
            return depth * max(0.0, 1 - (x / half) ** 2) ** 0.5

        points = [low + (high - low) * k / 4 for k in range(5)]
        upper = [(x, top + sag(x, SLEEVE_RIM)) for x in points]
        lower = [(x, bottom - 0.16 + sag(x, 0.16)) for x in points[::-1]]
        paints.append(paint._replace(polygon=[*upper, *lower]))
    return paints


SHAFT: Polygon = [(-SHAFT_HALF, SHAFT_TOP), (SHAFT_HALF, SHAFT_TOP), (SHAFT_HALF, SHAFT_BASE), (1.5, SHAFT_BASE)]
SHAFT += [(1.7, 1), (-1.7, 1), (-1.5, SHAFT_BASE), (-SHAFT_HALF, SHAFT_BASE)]


def _shaft(body: Body, light: Light) -> list[Paint]:
    """A post with a chamfered tip on a heavy foot."""
    rgb, x, y = body.albedo, SHAFT_HALF, SHAFT_TOP
    foot = [(-1.5, SHAFT_BASE), (1.5, SHAFT_BASE), (1.7, 1), (-1.7, 1)]
    return [
        Paint(foot, lit(rgb, -0.3)),
        Paint([(-1.5, SHAFT_BASE), (1.5, SHAFT_BASE), (1.56, 0.45), (-1.56, 0.45)], lit(rgb, 0.1)),
        *(Paint(ellipse(v, 0.7, 0.13, 0.13, 12), lit(rgb, -0.7)) for v in (-1.2, 1.2)),
        Paint(ellipse(0, SHAFT_BASE, 1.5, 0.14), lit(rgb, 0.3)),
        *column(((-x, y + 0.2), (x, y + 0.2)), ((-x, SHAFT_BASE), (x, SHAFT_BASE)), rgb, light),
        Paint([(-0.2, y), (0.2, y), (x, y + 0.22), (-x, y + 0.22)], lit(rgb, 0.3)),
    ]


def _along(top: float, bottom: float, left: float, right: float, rgb: RGB, light: Light) -> list[Paint]:
    """A round bar that lies across: lit from above."""
    above = Light(x=-abs(light.y), y=light.x)
    return column(((left, top), (left, bottom)), ((right, top), (right, bottom)), rgb, above)


def _mirrored(paints: list[Paint], flip: float) -> list[Paint]:
    if flip >= 0:
        return paints
    return [paint._replace(polygon=[(-x, y) for x, y in paint.polygon]) for paint in paints]


def _motor_outline(body: Body) -> Polygon:
    r, axis = MOTOR_SHAFT, MOTOR_AXIS
    shape = [(-1.1, -0.6), (MOTOR_FACE, -0.6), (MOTOR_FACE, axis - r), (MOTOR_TIP, axis - r), (MOTOR_TIP, axis + r)]
    shape += [(MOTOR_FACE, axis + r), (MOTOR_FACE, 1.0), (-1.1, 1.0)]
    return shape if body.detail("flip", 1.0) >= 0 else [(-x, y) for x, y in shape][::-1]


def _motor(body: Body, light: Light) -> list[Paint]:
    """A motor on two feet, its shaft to the right (to the left when flipped)."""
    rgb, flip, axis = body.albedo, body.detail("flip", 1.0), MOTOR_AXIS
    seen = Light(x=light.x * flip, y=light.y)
    fins = [box(-1.0 + 0.27 * k, -0.52, -0.9 + 0.27 * k, 0.72) for k in range(6)]
    paints = [
        Paint(box(-0.95, 0.7, -0.45, 1), DARK),
        Paint(box(0.35, 0.7, 0.85, 1), DARK),
        *_along(axis - MOTOR_SHAFT, axis + MOTOR_SHAFT, MOTOR_FACE - 0.1, MOTOR_TIP - 0.14, STEEL, seen),
        Paint(
            [
                (MOTOR_TIP - 0.16, axis - MOTOR_SHAFT),
                (MOTOR_TIP, axis - 0.14),
                (MOTOR_TIP, axis + 0.14),
                (MOTOR_TIP - 0.16, axis + MOTOR_SHAFT),
            ],
            lit(STEEL, 0.3),
        ),
        Paint(rounded(-1.1, -0.6, 0.9, 0.8, 0.2), rgb),
        *_along(-0.5, 0.72, -1.02, 0.82, rgb, seen),
        *(Paint(fin, lit(rgb, -0.75), 0.85) for fin in fins),
        Paint(rounded(0.72, -0.6, MOTOR_FACE, 0.8, 0.08), lit(rgb, -0.45)),
        Paint(box(-0.4, -0.78, 0.2, -0.56), lit(rgb, -0.4)),
    ]
    return _mirrored(paints, flip)


CHUCK: Polygon = [
    (-CHUCK_LUG, -1),
    (CHUCK_LUG, -1),
    (CHUCK_LUG, CHUCK_AXIS - CHUCK_RADIUS),
    (CHUCK_HALF, CHUCK_AXIS - CHUCK_RADIUS),
    (CHUCK_HALF, 1),
    (-CHUCK_HALF, 1),
    (-CHUCK_HALF, CHUCK_AXIS - CHUCK_RADIUS),
    (-CHUCK_LUG, CHUCK_AXIS - CHUCK_RADIUS),
]


def _chuck(body: Body, light: Light) -> list[Paint]:
    """Its open end on the right (on the left when flipped), of which the hole is seen."""
    rgb, x, y = body.albedo, CHUCK_HALF - CHUCK_FACE, CHUCK_AXIS
    paints = [
        Paint(ellipse(x, y, CHUCK_FACE, CHUCK_RADIUS), lit(rgb, 0.3)),
        Paint(ellipse(x, y, CHUCK_FACE * 0.6, CHUCK_HOLE), HOLLOW),
    ]
    return _mirrored(paints, body.detail("flip", 1.0))


def _chuck_front(body: Body, light: Light) -> list[Paint]:
    rgb, flip, x, y, r = body.albedo, body.detail("flip", 1.0), CHUCK_HALF - CHUCK_FACE, CHUCK_AXIS, CHUCK_RADIUS
    seen = Light(x=light.x * flip, y=light.y)
    left = -CHUCK_HALF + 0.1
    near = [*arc(x, y, CHUCK_FACE, r, 270, 90), *arc(x, y, CHUCK_FACE * 0.6, CHUCK_HOLE, 90, 270)]
    tube = [*arc(x, y, CHUCK_FACE, r, 270, 90), *arc(left, y, 0.1, r, 90, 270)]
    top = y - r
    paints = [
        Paint(rounded(-CHUCK_LUG, -1, CHUCK_LUG, top + 0.1, 0.08), lit(rgb, -0.3)),
        Paint(box(-CHUCK_LUG + 0.06, -0.96, CHUCK_LUG - 0.06, -0.84), lit(rgb, 0.3), 0.8),
        Paint(tube, rgb),
        *_along(top, 1, left, x - CHUCK_FACE, rgb, seen),
        *(Paint(box(v, top + 0.02, v + 0.12, 0.98), lit(rgb, -0.55), 0.7) for v in (-0.62, 0.2)),
        Paint(near, lit(rgb, 0.34)),
    ]
    return _mirrored(paints, flip)


SHAFTS: dict[str, Kind] = {
    "sleeve": Kind(
        nouns=("cylindrical tool", "hollow cylinder", "sleeve"),
        outline=same(box(-SLEEVE_HALF, -1, SLEEVE_HALF, 1)),
        paint=_sleeve,
        front=_sleeve_front,
        group="hollow",
        see_through=True,
        solid=False,
    ),
    "chuck": Kind(
        nouns=("cylindrical tool", "chuck", "hollow tool"),
        outline=same(CHUCK),
        paint=_chuck,
        front=_chuck_front,
        group="hollow",
        see_through=True,
        solid=False,
    ),
    "shaft": Kind(nouns=("shaft", "spindle", "upright shaft"), outline=same(SHAFT), paint=_shaft, group="shaft"),
    "motor": Kind(
        nouns=("motor shaft", "shaft", "shaft of the motor"), outline=_motor_outline, paint=_motor, group="shaft"
    ),
}
