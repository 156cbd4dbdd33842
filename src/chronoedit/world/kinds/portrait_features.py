"""What all faces share: eyes, mouths, what is worn about the neck, and the tilt of a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..drawing import Light, Paint
from ..geometry import Point, Polygon, arc, clip, ellipse, rounded, scaled, stroke, turned
from ..palette import ALBEDO, RGB, lit

if TYPE_CHECKING:
    from ..state import Body

DARK: RGB = (44, 34, 44)
PINK: RGB = (240, 168, 166)
NECK: Point = (0.0, 0.4)  # what a head turns about
IRISES: dict[str, RGB] = {
    "brown": (128, 78, 44),
    "green": (104, 168, 84),
    "blue": (86, 146, 206),
    "amber": (226, 164, 52),
}


def tilted(body: Body, paints: list[Paint]) -> list[Paint]:
    """The paints of a head, turned by the body's detail `tilt` in radians."""
    tilt = body.detail("tilt", 0.0)
    return [paint._replace(polygon=turned(paint.polygon, tilt, NECK)) for paint in paints] if tilt else paints


def on_head(body: Body, place: Point) -> Point:
    """Where a place on the upright head is, in the frame of the body, when the head is tilted."""
    return turned([place], body.detail("tilt", 0.0), NECK)[0]


def inner_line(polygon: Polygon, rgb: RGB) -> list[Paint]:
    """A thin line about a shape that lies on another one of the same body."""
    x, y = (sum(values) / len(polygon) for values in zip(*polygon, strict=True))
    return [Paint(scaled(polygon, 1.03, (x, y)), rgb, 0.55)]


def eyes(body: Body, place: Point, r: float, light: Light) -> list[Paint]:
    """Both eyes as the detail `mood` says: open, or closed in a smile; `gaze` from -1 to 1 is where they look."""
    mood, (dx, y) = body.detail("mood", "open"), place
    paints: list[Paint] = []
    for side in (-1, 1):
        x = side * dx
        if mood == "happy" or (mood == "wink" and side == 1):
            paints.append(Paint(stroke(arc(x, y + 0.5 * r, 1.1 * r, 1.1 * r, 195, 345, 9), 0.4 * r), DARK))
            continue
        iris = IRISES[body.detail("iris", "brown")]
        gaze = 0.22 * r * body.detail("gaze", 0.0)
        paints += [
            Paint(ellipse(x, y, 1.12 * r, 1.2 * r), DARK),
            Paint(ellipse(x, y, 0.98 * r, 1.05 * r), iris),
            Paint(ellipse(x, y - 0.25 * r, 0.98 * r, 0.8 * r), lit(iris, -0.3)),
            Paint(ellipse(x + gaze, y, 0.62 * r, 0.76 * r), (24, 20, 28)),
            Paint(ellipse(x + gaze + 0.34 * r * light.side, y - 0.4 * r, 0.34 * r, corners=12), (255, 255, 255), 0.95),
        ]
    return paints


def mouth(body: Body, x: float, y: float, half: float) -> list[Paint]:
    """Two curves below the nose, and when the detail `mouth` says so a tongue."""
    lips = [
        Paint(stroke(arc(x + side * half / 2, y, half / 2, 0.55 * half, 0, 180, 9), 0.04), DARK, 0.8)
        for side in (-1, 1)
    ]
    if body.detail("mouth", "smile") != "open":
        return lips
    tongue = [*arc(x, y + 0.45 * half, 0.42 * half, 0.95 * half, 0, 180, 11)]
    return [
        Paint(scaled(tongue, 1.25, (x, y + 0.45 * half)), (110, 44, 54)),
        Paint(tongue, (236, 122, 130)),
        *lips,
    ]


def neckwear(body: Body, y: float, light: Light) -> list[Paint]:
    """A scarf, a bow or a collar at height `y`, as the detail `wear` says, in the colour of `wear_colour`."""
    rgb = ALBEDO[body.detail("wear_colour", "red")]
    wear = body.detail("wear", "none")
    return WEAR[wear](y, rgb, light.side) if wear != "none" else []


def _scarf(y: float, rgb: RGB, side: float) -> list[Paint]:
    tail = [(0.12, y + 0.06), (0.36, y + 0.04), (0.42, 0.96), (0.2, 0.98)]
    stripes = [
        Paint(clip(clip(tail, (0.0, 1.0), b), (0.0, -1.0), -a), lit(rgb, 0.36)) for a, b in ((0.62, 0.71), (0.81, 0.9))
    ]
    band = rounded(-0.46, y - 0.1, 0.46, y + 0.17, 0.13)
    fold = stroke([(-0.42, y), (0.0, y + 0.06), (0.42, y)], 0.04)
    return [
        Paint(tail, lit(rgb, -0.2)),
        *stripes,
        Paint(band, rgb),
        Paint(clip(band, (side, 0.0), -0.2), lit(rgb, -0.25)),
        Paint(fold, lit(rgb, -0.3), 0.6),
    ]


def _bow(y: float, rgb: RGB, side: float) -> list[Paint]:
    y += 0.12
    wings: Sequence[Polygon] = [
        [(s * 0.03, y), (s * 0.3, y - 0.16), (s * 0.34, y), (s * 0.3, y + 0.16)] for s in (-1, 1)
    ]
    wings = sorted(wings, key=lambda wing: -side * wing[1][0])
    return [
        Paint(wings[1], lit(rgb, -0.28)),
        Paint(wings[0], rgb),
        *(Paint(stroke([(s * 0.06, y), (s * 0.22, y - 0.03)], 0.045, 0.02), lit(rgb, -0.4), 0.7) for s in (-1, 1)),
        Paint(rounded(-0.075, y - 0.08, 0.075, y + 0.08, 0.05), lit(rgb, 0.2)),
    ]


def _collar(y: float, rgb: RGB, side: float) -> list[Paint]:
    band = [*arc(0, y - 0.06, 0.4, 0.2, 10, 170, 11), *arc(0, y - 0.14, 0.4, 0.2, 170, 10, 11)]
    return [
        Paint(band, rgb),
        Paint(clip(band, (side, 0.0), -0.14), lit(rgb, -0.3)),
        Paint(ellipse(0, y + 0.2, 0.095), (196, 150, 52)),
        Paint(ellipse(0.01 * side, y + 0.18, 0.08), (244, 206, 96)),
        Paint(stroke([(-0.06, y + 0.2), (0.06, y + 0.2)], 0.036), (166, 124, 58)),
    ]


WEAR = {"scarf": _scarf, "bow": _bow, "collar": _collar}
