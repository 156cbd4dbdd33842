"""What is stacked, stood in rows and rolled down: crates, pillars, dominoes and ramps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..drawing import Light, Paint
from ..geometry import Polygon, box, ellipse, rounded
from ..palette import RGB, lit
from .base import Kind, same

if TYPE_CHECKING:
    from ..state import Body

DOMINO_HALF, PILLAR_HALF = 0.26, 0.62
RAMP_BACK, RAMP_EDGE, RAMP_TOE = -1.0, -0.25, 2.1  # x of its back, of the end of its platform, and of its foot


def _faces(half: float, rgb: RGB, light: Light, bevel: float) -> list[Paint]:
    """A block with bevelled edges, half as wide as said and of height 2."""
    b, w = bevel, half - bevel
    sides = {
        (0.0, -1.0): [(-half, -1.0), (half, -1.0), (w, b - 1), (-w, b - 1)],
        (1.0, 0.0): [(half, -1.0), (half, 1.0), (w, 1 - b), (w, b - 1)],
        (0.0, 1.0): [(half, 1.0), (-half, 1.0), (-w, 1 - b), (w, 1 - b)],
        (-1.0, 0.0): [(-half, 1.0), (-half, -1.0), (-w, b - 1), (-w, 1 - b)],
    }
    paints = [Paint(box(-half, -1, half, 1), rgb)]
    for (nx, ny), polygon in sides.items():
        facing = nx * light.x + ny * light.y
        paints.append(Paint(polygon, lit(rgb, 0.34 * facing if facing > 0 else 0.55 * facing)))
    return paints


def _crate(body: Body, light: Light) -> list[Paint]:
    """Boards behind a frame with a brace across."""
    rgb, inner = body.albedo, 0.72
    gaps = [box(x - 0.035, -inner, x + 0.035, inner) for x in (-0.36, 0.0, 0.36)]
    brace = [(-inner, inner), (-inner, inner - 0.3), (inner - 0.3, -inner), (inner, -inner), (inner, 0.3 - inner)]
    brace += [(0.3 - inner, inner)]
    nails = [ellipse(x, y, 0.06, 0.06, 8) for x in (-0.86, 0.86) for y in (-0.86, 0.86)]
    return [
        *_faces(1.0, rgb, light, 0.1),
        Paint(box(-inner, -inner, inner, inner), lit(rgb, -0.36)),
        *(Paint(gap, lit(rgb, -0.8)) for gap in gaps),
        Paint(brace, lit(rgb, 0.06)),
        Paint(box(-inner, -inner, inner, 0.12 - inner), lit(rgb, -0.8), 0.4),
        *(Paint(nail, lit(rgb, -0.7)) for nail in nails),
    ]


def _pillar(body: Body, light: Light) -> list[Paint]:
    rgb, half = body.albedo, PILLAR_HALF
    bands = [box(-half, y, half, y + 0.14) for y in (-0.66, 0.52)]
    return [*_faces(half, rgb, light, 0.14), *(Paint(band, (255, 250, 236), 0.4) for band in bands)]


def _domino(body: Body, light: Light) -> list[Paint]:
    """Seen from its narrow side, with a line across its middle."""
    rgb, half = body.albedo, DOMINO_HALF
    return [*_faces(half, rgb, light, 0.07), Paint(box(0.06 - half, -0.05, half - 0.06, 0.05), (255, 250, 236), 0.7)]


def _ramp_outline(body: Body) -> Polygon:
    shape = [(RAMP_BACK, -1.0), (RAMP_EDGE, -1.0), (RAMP_TOE, 1.0), (RAMP_BACK, 1.0)]
    return shape if body.detail("flip", 1.0) >= 0 else [(-x, y) for x, y in shape][::-1]


def _ramp(body: Body, light: Light) -> list[Paint]:
    """A platform, and the way down to the right (to the left when flipped)."""
    rgb, flip = body.albedo, body.detail("flip", 1.0)
    slope = [(RAMP_EDGE, -1.0), (RAMP_TOE, 1.0), (RAMP_TOE - 0.3, 1.0), (RAMP_EDGE - 0.06, -0.8)]
    shape = [(RAMP_BACK, -1.0), (RAMP_EDGE, -1.0), (RAMP_TOE, 1.0), (RAMP_BACK, 1.0)]
    hole = [(RAMP_BACK + 0.3, -0.35), (RAMP_EDGE - 0.1, -0.35), (0.9, 0.7), (RAMP_BACK + 0.3, 0.7)]
    paints = [
        Paint(shape, rgb),
        Paint(slope, lit(rgb, 0.32)),
        Paint([(RAMP_BACK, -1.0), (RAMP_EDGE, -1.0), (RAMP_EDGE - 0.06, -0.8), (RAMP_BACK, -0.8)], lit(rgb, 0.42)),
        Paint(box(RAMP_BACK, -0.8, RAMP_BACK + 0.12, 1), lit(rgb, -0.3)),
        Paint(hole, lit(rgb, -0.32)),
        Paint([(RAMP_BACK + 0.3, -0.35), (RAMP_EDGE - 0.1, -0.35), (-0.2, -0.2), (-0.55, -0.2)], lit(rgb, -0.7), 0.5),
        Paint(rounded(RAMP_BACK, 0.86, RAMP_TOE - 0.25, 1, 0.02), lit(rgb, -0.4), 0.7),
    ]
    return paints if flip >= 0 else [p._replace(polygon=[(-x, y) for x, y in p.polygon]) for p in paints]


BLOCKS: dict[str, Kind] = {
    "crate": Kind(nouns=("crate", "box"), outline=same(box(-1, -1, 1, 1)), paint=_crate, group="block", turn_deg=40),
    "pillar": Kind(
        nouns=("pillar", "post"),
        outline=same(box(-PILLAR_HALF, -1, PILLAR_HALF, 1)),
        paint=_pillar,
        group="block",
        turn_deg=90,
    ),
    "domino": Kind(nouns=("domino",), outline=same(box(-DOMINO_HALF, -1, DOMINO_HALF, 1)), paint=_domino, turn_deg=90),
    "ramp": Kind(nouns=("ramp", "slope"), outline=_ramp_outline, paint=_ramp),
}
