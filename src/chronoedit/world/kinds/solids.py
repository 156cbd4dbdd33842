"""The plain solids that the first families are made of: ball, cube, cone, cup, and the star that an edit makes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..drawing import Light, Paint, column, facets, sphere
from ..geometry import Polygon, arc, box, ellipse, stroke
from ..palette import lit
from .base import Kind, same

if TYPE_CHECKING:
    from ..state import Body

STAR_RADII = (1.6, 0.9)  # of its points and of the corners between them, in half extents: about a cube's area
BEVEL = 0.17


def _star() -> Polygon:
    down = 1 - STAR_RADII[0] * math.cos(math.pi / 5)
    radii = [STAR_RADII[k % 2] for k in range(10)]
    return [(v * math.sin(k * math.pi / 5), down - v * math.cos(k * math.pi / 5)) for k, v in enumerate(radii)]


def _ball(body: Body, light: Light) -> list[Paint]:
    paints = sphere(0, 0, 1, body.albedo, light)
    seam = stroke(arc(0, -1.35, 1.5, 1.5, 128, 52, 12), 0.07)
    return [*paints[:-1], Paint(seam, lit(body.albedo, -0.5), 0.35), paints[-1]]


def _cube(body: Body, light: Light) -> list[Paint]:
    """A toy block: four bevels around a face, each as lit as it is turned to the light."""
    rgb, b = body.albedo, 1 - BEVEL
    bevels = {
        (0.0, -1.0): [(-1.0, -1.0), (1.0, -1.0), (b, -b), (-b, -b)],
        (1.0, 0.0): [(1.0, -1.0), (1.0, 1.0), (b, b), (b, -b)],
        (0.0, 1.0): [(1.0, 1.0), (-1.0, 1.0), (-b, b), (b, b)],
        (-1.0, 0.0): [(-1.0, 1.0), (-1.0, -1.0), (-b, -b), (-b, b)],
    }
    paints = [Paint(box(-1, -1, 1, 1), rgb)]
    for (nx, ny), polygon in bevels.items():
        facing = nx * light.x + ny * light.y
        paints.append(Paint(polygon, lit(rgb, 0.3 * facing if facing > 0 else 0.5 * facing)))
    s = light.side if abs(light.x) > 1e-9 else -1.0
    shadow = [(-b * s, b), (b * s, b), (-b * s, -0.1)]
    gloss = [(s * 0.1, -b), (s * 0.46, -b), (s * b, -0.46), (s * b, -0.1)]
    return [*paints, Paint(shadow, lit(rgb, -0.5), 0.3), Paint(gloss, (255, 255, 255), 0.22)]


def _cone(body: Body, light: Light) -> list[Paint]:
    tip = (0.0, -1.0)
    paints = [Paint([(0, -1), (1, 1), (-1, 1)], body.albedo)]
    paints += column((tip, tip), ((-1.0, 1.0), (1.0, 1.0)), body.albedo, light)
    foot = [(-1.0, 1.0), (-0.93, 0.86), *arc(0, 0.86, 0.93, 0.1, 180, 0, 10), (1.0, 1.0)]
    return [*paints, Paint(foot, lit(body.albedo, -0.55), 0.4)]


def _cup(body: Body, light: Light) -> list[Paint]:
    rgb, rim, ry = body.albedo, -0.84, 0.16
    side = [(-0.985, rim), (0.985, rim), (0.7, 0.9), *arc(0, 0.9, 0.7, 0.1, 0, 180, 9)]
    paints = [
        Paint(side, lit(rgb, -0.2)),
        *column(((-0.985, rim), (0.985, rim)), ((-0.7, 0.97), (0.7, 0.97)), rgb, light),
    ]
    band = [(-0.88, -0.2), *arc(0, -0.2, 0.88, 0.1, 180, 0, 8), (0.83, 0.12), *arc(0, 0.12, 0.83, 0.1, 0, 180, 8)]
    return [
        *paints,
        Paint(band, (255, 252, 240), 0.28),
        Paint(ellipse(0, rim, 1, ry), lit(rgb, 0.32)),
        Paint(ellipse(0, rim + 0.01, 0.86, ry * 0.7), lit(rgb, -0.62)),
        Paint(arc(0, rim + 0.01, 0.86, ry * 0.7, 5, 175), lit(rgb, -0.35)),
    ]


SOLIDS: dict[str, Kind] = {
    "ball": Kind(
        nouns=("ball",), outline=same(ellipse(0, 0, 1, corners=32)), paint=_ball, group="solid", rolls=True, turn_deg=0
    ),
    "cube": Kind(nouns=("cube", "block"), outline=same(box(-1, -1, 1, 1)), paint=_cube, group="solid", turn_deg=40),
    "cone": Kind(
        nouns=("cone",), outline=same([(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]), paint=_cone, group="solid", turn_deg=50
    ),
    "cup": Kind(
        nouns=("cup",), outline=same([(-1.0, -1.0), (1.0, -1.0), (0.7, 1.0), (-0.7, 1.0)]), paint=_cup, group="solid"
    ),
    "star": Kind(
        nouns=("star",),
        outline=same(_star()),
        paint=lambda body, light: facets(_star(), body.albedo, light, (0.0, 1 - STAR_RADII[0] * math.cos(math.pi / 5))),
        group="solid",
        turn_deg=30,
    ),
}
