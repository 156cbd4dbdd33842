"""Drawing in paints: coloured polygons, laid one over the other. Shading is a few bands, as in a drawn film."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw

from .geometry import Point, Polygon, box, centre, ellipse, scaled
from .palette import RGB, lit, mixed


class Paint(NamedTuple):
    """One polygon in one colour; `alpha` in [0, 1]."""

    polygon: Sequence[Point]
    rgb: RGB
    alpha: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Light:
    """Where light comes from, as seen by what is drawn: a unit vector towards it, y pointing down.

    A body that is turned sees the light turned the other way, so that what is lit stays lit.
    """

    x: float
    y: float

    @property
    def side(self) -> float:
        """1 when light comes from the right, -1 from the left."""
        return 1.0 if self.x >= 0 else -1.0

    def turned(self, angle: float) -> Light:
        """The same light for a body turned by `angle`."""
        cos, sin = math.cos(angle), math.sin(angle)
        return Light(x=cos * self.x + sin * self.y, y=cos * self.y - sin * self.x)


def bands(polygon: Sequence[Point], rgb: RGB, light: Light, reach: float = 0.55) -> list[Paint]:
    """A convex shape in three bands: in shadow, in its own colour, and lit. `reach` in radii: how far light is off."""
    x, y = centre(polygon)
    radius = max(math.hypot(px - x, py - y) for px, py in polygon)
    towards = (x + reach * radius * light.x, y + reach * radius * light.y)
    return [
        Paint(polygon, lit(rgb, -0.38)),
        Paint(scaled(polygon, 0.84, towards), rgb),
        Paint(scaled(polygon, 0.5, towards), lit(rgb, 0.18)),
    ]


def sphere(x: float, y: float, r: float, rgb: RGB, light: Light, gloss: float = 0.7) -> list[Paint]:
    """A ball: bands, light thrown back from below on its dark side, and a highlight."""
    disc = ellipse(x, y, r)
    about = (x + 0.72 * r * light.x, y + 0.72 * r * light.y)
    shine = ellipse(x + 0.45 * r * light.x, y + 0.5 * r * light.y, 0.2 * r, 0.15 * r, 14)
    return [
        Paint(disc, lit(rgb, -0.3)),
        Paint(scaled(disc, 0.93, (x - 0.2 * r * light.x, y - 0.2 * r * light.y)), lit(rgb, -0.46)),
        Paint(scaled(disc, 0.85, about), lit(rgb, -0.12)),
        Paint(scaled(disc, 0.74, about), rgb),
        Paint(scaled(disc, 0.46, about), lit(rgb, 0.18)),
        Paint(shine, (255, 255, 255), gloss),
    ]


def column(top: tuple[Point, Point], bottom: tuple[Point, Point], rgb: RGB, light: Light) -> list[Paint]:
    """A round body seen from the side in upright bands, between its top and its bottom edge (each left, right)."""
    shades = ((0.0, -0.22), (0.1, -0.02), (0.24, 0.16), (0.4, 0.02), (0.62, -0.2), (0.8, -0.42), (0.94, -0.32), (1, 0))

    def at(edge: tuple[Point, Point], share: float) -> Point:
        share = share if light.x < 0 else 1 - share
        return edge[0][0] + share * (edge[1][0] - edge[0][0]), edge[0][1] + share * (edge[1][1] - edge[0][1])

    return [
        Paint([at(top, a), at(top, b), at(bottom, b), at(bottom, a)], lit(rgb, shade))
        for (a, shade), (b, _) in zip(shades, shades[1:], strict=False)
    ]


def facets(polygon: Sequence[Point], rgb: RGB, light: Light, about: Point | None = None) -> list[Paint]:
    """A shape raised to a tip at `about`: each edge's triangle as lit as it is turned to the light."""
    x, y = about or centre(polygon)
    paints = []
    for (ax, ay), (bx, by) in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True):
        mx, my = (ax + bx) / 2 - x, (ay + by) / 2 - y
        nx, ny = by - ay, ax - bx
        sign = 1 if nx * mx + ny * my >= 0 else -1
        facing = sign * (nx * light.x + ny * light.y) / (math.hypot(nx, ny) or 1)
        paints.append(Paint([(x, y), (ax, ay), (bx, by)], lit(rgb, 0.24 * facing if facing > 0 else 0.42 * facing)))
    return paints


def glow(x: float, y: float, rx: float, ry: float, rgb: RGB, alpha: float, steps: int = 4) -> list[Paint]:
    """A soft spot, densest in its middle: shadows on the ground, haloes of lamps."""
    each = 1 - (1 - alpha) ** (1 / steps)
    return [Paint(ellipse(x, y, rx * k / steps, ry * k / steps, 24), rgb, each) for k in range(steps, 0, -1)]


def gradient(span: tuple[float, float, float, float], top: RGB, bottom: RGB, steps: int = 12) -> list[Paint]:
    """A box (left, top, right, bottom) that goes from one colour to another downwards."""
    x0, y0, x1, y1 = span
    edges = [y0 + (y1 - y0) * k / steps for k in range(steps + 1)]
    return [
        Paint(box(x0, a, x1, b), mixed(top, bottom, k / max(steps - 1, 1)))
        for k, (a, b) in enumerate(zip(edges, edges[1:], strict=False))
    ]


class Canvas:
    """A picture that is painted larger than it will be, in world px (or px of a body's own frame)."""

    def __init__(self, picture: Image.Image, scale: float) -> None:
        self.picture, self.scale = picture, scale
        # a drawing of mode RGBA on a picture of mode RGB lays its colours over what is there; the plain one is faster
        self._brush, self._glaze = ImageDraw.Draw(picture), ImageDraw.Draw(picture, "RGBA")

    def lay(self, paints: Sequence[Paint], frame: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)) -> None:
        """Paint in order; `frame` is (a, b, x, y) of the map (u, v) → (a·u − b·v + x, b·u + a·v + y) to world px."""
        a, b, x, y = (value * self.scale for value in frame)
        # Pillow's pixel centres lie at integers, the world's at halves
        x, y = x - 0.5, y - 0.5
        for polygon, rgb, alpha in paints:
            if len(polygon) > 2 and alpha > 0:
                points = [(a * u - b * v + x, b * u + a * v + y) for u, v in polygon]
                if alpha >= 1:
                    self._brush.polygon(points, fill=rgb)
                else:
                    self._glaze.polygon(points, fill=(*rgb, round(255 * alpha)))

    def edge(self, polygon: Sequence[Point], rgb: RGB, width_px: float, alpha: float) -> None:
        """A line around a polygon, `width_px` world px wide, half of it outside."""
        points = [(x * self.scale - 0.5, y * self.scale - 0.5) for x, y in polygon]
        width = max(1, round(width_px * self.scale))
        self._glaze.line([*points, *points[:2]], fill=(*rgb, round(255 * alpha)), width=width, joint="curve")


def silhouette(paints: Sequence[Paint]) -> list[Polygon]:
    """The polygons that hide what lies behind them."""
    return [list(paint.polygon) for paint in paints if paint.alpha >= 0.5 and len(paint.polygon) > 2]
