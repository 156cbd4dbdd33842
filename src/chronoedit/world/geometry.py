"""Polygons: areas, cutting along a line, what a vessel holds. Points are (x, y), y pointing down."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
Polygon = list[Point]


def area(polygon: Sequence[Point]) -> float:
    """Area of a simple polygon (shoelace formula)."""
    return abs(_signed_area(polygon))


def _signed_area(polygon: Sequence[Point]) -> float:
    ahead = [*polygon[1:], *polygon[:1]]
    return sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(polygon, ahead, strict=True)) / 2


def centre(polygon: Sequence[Point]) -> Point:
    """Centroid of the area of a simple polygon."""
    ahead = [*polygon[1:], *polygon[:1]]
    pairs = [(a, b, a[0] * b[1] - b[0] * a[1]) for a, b in zip(polygon, ahead, strict=True)]
    total = 3 * sum(cross for _, _, cross in pairs)
    x = sum((a[0] + b[0]) * cross for a, b, cross in pairs) / total
    y = sum((a[1] + b[1]) * cross for a, b, cross in pairs) / total
    return x, y


def span(polygon: Sequence[Point]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a polygon."""
    xs, ys = [x for x, _ in polygon], [y for _, y in polygon]
    return min(xs), min(ys), max(xs), max(ys)


def moved(polygon: Sequence[Point], dx: float, dy: float) -> Polygon:
    """Moved as a whole."""
    return [(x + dx, y + dy) for x, y in polygon]


def scaled(polygon: Sequence[Point], factor: float, about: Point = (0.0, 0.0)) -> Polygon:
    """Made larger or smaller about a point: inside a convex polygon when the point is inside and `factor` below 1."""
    return [(about[0] + factor * (x - about[0]), about[1] + factor * (y - about[1])) for x, y in polygon]


def turned(polygon: Sequence[Point], angle: float, about: Point = (0.0, 0.0)) -> Polygon:
    """Turned by `angle` radians about a point; clockwise to the eye, since y points down."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [
        (about[0] + cos * (x - about[0]) - sin * (y - about[1]), about[1] + sin * (x - about[0]) + cos * (y - about[1]))
        for x, y in polygon
    ]


def clip(polygon: Sequence[Point], normal: Point, offset: float) -> Polygon:
    """The part of a polygon where `point · normal <= offset` (Sutherland and Hodgman 1974); may be empty.

    A polygon that is not convex may keep seams of no width along the line.
    """
    kept: Polygon = []
    for a, b in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True):
        da, db = (p[0] * normal[0] + p[1] * normal[1] - offset for p in (a, b))
        if da <= 0:
            kept.append(a)
        if (da < 0 < db) or (db < 0 < da):
            share = da / (da - db)
            kept.append((a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])))
    return kept


def below(polygon: Sequence[Point], y: float) -> Polygon:
    """The part of a polygon that lies lower in the picture than `y`."""
    return clip(polygon, (0.0, -1.0), -y)


def filled(vessel: Sequence[Point], contents: float) -> Polygon:
    """What a vessel holds of a liquid at rest: its lower part, of area `contents`, with a level surface.

    The vessel may be tilted. Raises ValueError when it holds less than that.
    """
    if not 0 <= contents <= area(vessel) * (1 + 1e-9):
        raise ValueError(f"{contents:.1f} px² do not fit a vessel of {area(vessel):.1f} px²; pour less or enlarge it")
    _, low, _, high = span(vessel)
    for _ in range(40):
        level = (low + high) / 2
        part = below(vessel, level)
        low, high = (level, high) if len(part) > 2 and area(part) > contents else (low, level)
    return below(vessel, high)


def halves(polygon: Sequence[Point], normal: Point) -> tuple[Polygon, Polygon]:
    """A convex polygon cut along a line across `normal` into two of equal area; the first lies against `normal`."""
    ends = [x * normal[0] + y * normal[1] for x, y in polygon]
    low, high = min(ends), max(ends)
    for _ in range(40):
        offset = (low + high) / 2
        part = clip(polygon, normal, offset)
        low, high = (low, offset) if len(part) > 2 and area(part) > area(polygon) / 2 else (offset, high)
    return clip(polygon, normal, low), clip(polygon, (-normal[0], -normal[1]), -low)


def box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """The box between two corners."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def ellipse(x: float, y: float, rx: float, ry: float | None = None, corners: int = 28) -> Polygon:
    """A circle, or with `ry` an ellipse."""
    ry = rx if ry is None else ry
    turns = [2 * math.pi * k / corners for k in range(corners)]
    return [(x + rx * math.cos(turn), y + ry * math.sin(turn)) for turn in turns]


def arc(x: float, y: float, rx: float, ry: float, start_deg: float, stop_deg: float, corners: int = 14) -> Polygon:
    """Points along an ellipse from one angle to another: 0° is right, 90° down."""
    turns = [math.radians(start_deg + (stop_deg - start_deg) * k / (corners - 1)) for k in range(corners)]
    return [(x + rx * math.cos(turn), y + ry * math.sin(turn)) for turn in turns]


def rounded(x0: float, y0: float, x1: float, y1: float, radius: float) -> Polygon:
    """A box with round corners."""
    r = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    corners = ((x1 - r, y0 + r, -90), (x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180))
    return [point for x, y, start in corners for point in arc(x, y, r, r, start, start + 90, 5)]


def smooth(points: Sequence[Point], steps: int = 5) -> Polygon:
    """A closed curve through the points (Catmull and Rom 1974)."""
    n, curve = len(points), []
    for k in range(n):
        p0, p1, p2, p3 = (points[(k + j - 1) % n] for j in range(4))
        for step in range(steps):
            curve.append(_between((p0, p1, p2, p3), step / steps))
    return curve


def _between(points: tuple[Point, Point, Point, Point], t: float) -> Point:
    w0, w1 = -t / 2 + t**2 - t**3 / 2, 1 - 2.5 * t**2 + 1.5 * t**3
    w2, w3 = t / 2 + 2 * t**2 - 1.5 * t**3, -(t**2) / 2 + t**3 / 2
    x, y = (sum(w * p[axis] for w, p in zip((w0, w1, w2, w3), points, strict=True)) for axis in (0, 1))
    return x, y


def stroke(points: Sequence[Point], width: float, end_width: float | None = None) -> Polygon:
    """A line of some width through the points, which may taper to `end_width`."""
    end = width if end_width is None else end_width
    left, right = [], []
    for k, (x, y) in enumerate(points):
        (ax, ay), (bx, by) = points[max(k - 1, 0)], points[min(k + 1, len(points) - 1)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        half = (width + (end - width) * k / max(len(points) - 1, 1)) / 2
        nx, ny = (ay - by) / length * half, (bx - ax) / length * half
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    return left + right[::-1]
