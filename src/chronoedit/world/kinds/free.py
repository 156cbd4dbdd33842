"""Kinds whose outline each body carries itself, in `Body.points`: liquids, and pieces of things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..drawing import Light, Paint, bands
from ..geometry import Polygon, below, clip, span
from ..palette import lit
from .base import Kind

if TYPE_CHECKING:
    from ..state import Body


def _outline(body: Body) -> Polygon:
    if len(body.points) < 3:
        raise ValueError(f"a body of kind {body.kind} has {len(body.points)} points; give its outline, three or more")
    return list(body.points)


def _liquid(body: Body, light: Light) -> list[Paint]:
    """Darker towards the bottom, with a bright surface; no part of it is lit from a side."""
    polygon, rgb = _outline(body), body.albedo
    _, top, _, bottom = span(polygon)
    deep, deeper = (below(polygon, top + share * (bottom - top)) for share in (0.45, 0.78))
    surface = clip(polygon, (0.0, 1.0), top + min(0.12 * (bottom - top), 0.3))
    return [
        Paint(polygon, rgb),
        Paint(deep, lit(rgb, -0.14)),
        Paint(deeper, lit(rgb, -0.28)),
        Paint(surface, lit(rgb, 0.4)),
    ]


FREE: dict[str, Kind] = {
    "liquid": Kind(nouns=("liquid",), outline=_outline, paint=_liquid, shadow=0.0, edge=0.0, solid=False),
    "piece": Kind(
        nouns=("piece",), outline=_outline, paint=lambda body, light: bands(_outline(body), body.albedo, light)
    ),
}
