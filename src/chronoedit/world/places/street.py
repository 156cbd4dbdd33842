"""A street from the side: sky of some hour, a row of houses and trees, the pavement, and a road with a crosswalk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..drawing import Paint, glow, gradient
from ..geometry import arc, box, clip, ellipse, stroke
from ..palette import RGB, SHADE, lit, mixed
from .base import W
from .outdoors import cloud, sky

if TYPE_CHECKING:
    from ..state import Backdrop

# from the line on which cars stand: where houses stand, and the two kerbs
HOUSES_PX, KERB_PX, NEAR_KERB_PX = 29.0, 19.0, 15.0
CROSSWALK_PX = 13.0  # half its width in the middle of the road
STOP_LINE_PX = 5.5  # from the crosswalk to the line before it
GROUND_FLOOR_PX, STOREY_PX = 21.0, 17.0

FACADES: tuple[RGB, ...] = (
    *((232, 196, 160), (206, 142, 118), (226, 214, 190), (160, 182, 178), (222, 184, 178), (178, 190, 208)),
    *((236, 214, 156), (190, 158, 142)),
)
ROOFS: tuple[RGB, ...] = ((150, 84, 70), (92, 92, 108), (124, 98, 84), (108, 120, 118))
DOORS: tuple[RGB, ...] = ((78, 112, 104), (140, 66, 60), (74, 88, 124), (126, 92, 62))
LEAVES: tuple[RGB, ...] = ((104, 150, 84), (126, 160, 78), (92, 138, 98), (196, 146, 72))


@dataclass(frozen=True, kw_only=True)
class Hour:
    """The light of an hour: the sky's colours, what all is tinted with and how much, and whether windows are lit."""

    zenith: RGB
    haze: RGB
    tint: RGB
    much: float
    windows: float
    clouds: RGB


HOURS: dict[str, Hour] = {
    "day": Hour(
        zenith=(136, 190, 234),
        haze=(222, 238, 244),
        tint=(255, 250, 236),
        much=0.06,
        windows=0.0,
        clouds=(255, 255, 255),
    ),
    "overcast": Hour(
        zenith=(158, 172, 186),
        haze=(214, 220, 222),
        tint=(172, 182, 192),
        much=0.22,
        windows=0.12,
        clouds=(232, 236, 238),
    ),
    "dusk": Hour(
        zenith=(112, 100, 160),
        haze=(252, 190, 140),
        tint=(150, 92, 130),
        much=0.3,
        windows=0.75,
        clouds=(246, 164, 150),
    ),
}


def street(backdrop: Backdrop) -> list[Paint]:
    """All that stands still: sky, houses, trees, pavement and road."""
    hour = HOURS[backdrop.detail("hour", "day")]
    rng = np.random.default_rng(int(backdrop.detail("row", 1.0)))
    base = backdrop.floor_y - HOUSES_PX
    return [
        *sky(0, base, hour.zenith, hour.haze),
        *_heaven(backdrop, hour, rng),
        *_far_roofs(base, hour, rng),
        *_houses(backdrop, hour, base, rng),
        *_pavement(backdrop, hour, base),
        *_trees(backdrop, hour, base, rng),
        *_road(backdrop, hour),
    ]


def _heaven(backdrop: Backdrop, hour: Hour, rng: np.random.Generator) -> list[Paint]:
    x = 64.0 + 46 * (1 if backdrop.light >= 0 else -1)
    paints = []
    if hour.windows < 0.1:
        paints += [*glow(x, 16, 24, 24, (255, 246, 206), 0.6), Paint(ellipse(x, 16, 8), (255, 250, 222))]
    elif hour.windows > 0.5:
        paints += [*glow(x, 44, 40, 26, (255, 214, 150), 0.6), Paint(ellipse(x, 40, 9), (255, 228, 164))]
    for k in range(2):
        x, y, width = (
            32 + 64.0 * k + float(rng.uniform(-20, 20)),
            float(rng.uniform(12, 24)),
            float(rng.uniform(34, 46)),
        )
        paints += cloud(x, y + 1.6, width, mixed(hour.clouds, hour.haze, 0.5), 1.0)
        paints += cloud(x, y - 0.6, 0.94 * width, mixed(hour.clouds, hour.haze, 0.2), 1.0)
    return paints


def _tinted(rgb: RGB, hour: Hour) -> RGB:
    return mixed(rgb, hour.tint, hour.much)


def _hazy(rgb: RGB, hour: Hour) -> RGB:
    """As things look from across the street."""
    return mixed(_tinted(rgb, hour), hour.haze, 0.27)


def _far_roofs(base: float, hour: Hour, rng: np.random.Generator) -> list[Paint]:
    """A pale skyline behind the row of houses."""
    rgb = mixed(mixed((150, 160, 182), hour.haze, 0.6), hour.tint, 0.15)
    paints, x = [], -12.0
    while x < W:
        width, height = float(rng.uniform(24, 38)), float(rng.uniform(36, 56))
        paints.append(Paint(box(x, base - height, x + width, base), lit(rgb, float(rng.uniform(-0.05, 0.05)))))
        x += width
    return paints


def _houses(backdrop: Backdrop, hour: Hour, base: float, rng: np.random.Generator) -> list[Paint]:
    paints: list[Paint] = []
    x, last = -float(rng.uniform(0, 22)), -1
    while x < W:
        width, height = float(rng.uniform(44, 58)), float(rng.uniform(40, 57))
        colour = int(rng.integers(len(FACADES)))
        colour = (colour + 1) % len(FACADES) if colour == last else colour
        last = colour
        paints += _house(x, base, width, height, _hazy(FACADES[colour], hour), backdrop, hour, rng)
        x += width + float(rng.choice([0.0, 0.0, 9.0]))
    return paints


def _house(
    x: float,
    base: float,
    width: float,
    height: float,
    rgb: RGB,
    backdrop: Backdrop,
    hour: Hour,
    rng: np.random.Generator,
) -> list[Paint]:
    """A broad front with few large windows above a shop, or a door."""
    top, right, sunny = base - height, x + width, backdrop.light >= 0
    roof = mixed(_hazy(ROOFS[int(rng.integers(len(ROOFS)))], hour), rgb, 0.2)
    away = box(x, top, x + 4, base) if sunny else box(right - 4, top, right, base)
    paints = [
        Paint(box(x, top, right, base), rgb),
        *_roof(x, right, top, roof, int(rng.integers(3))),
        Paint(away, SHADE, 0.1),
    ]
    shop = rng.uniform() < 0.4
    for row in range(max(1, int((height - GROUND_FLOOR_PX) // STOREY_PX))):
        y = base - GROUND_FLOOR_PX - STOREY_PX * row - 14.5
        for share in (0.28, 0.72):
            paints += _window(x + width * share, y, rgb, bool(rng.uniform() < hour.windows))
    return paints + (_shop if shop else _door)(x, right, base, rgb, hour, rng)


def _roof(x: float, right: float, top: float, rgb: RGB, style: int) -> list[Paint]:
    """A cornice, or tiles that slope, with a chimney."""
    if style == 0:
        return [
            Paint(box(x - 1, top - 3.5, right + 1, top), lit(rgb, -0.05)),
            Paint(box(x - 1, top - 3.5, right + 1, top - 2), lit(rgb, 0.25)),
        ]
    slope = [(x - 2, top), (x + 8, top - 11), (right - 8, top - 11), (right + 2, top)]
    if style == 1:
        slope = [(x - 2, top), ((x + right) / 2, top - 16), (right + 2, top)]
    return [
        Paint(box(x + 8, top - 16, x + 14, top - 4), lit(rgb, -0.16)),
        Paint(slope, rgb),
        Paint(clip(slope, (0.0, -1.0), 4 - top), lit(rgb, -0.14)),
    ]


def _window(x: float, y: float, wall: RGB, on: bool) -> list[Paint]:
    """Two panes in a pale frame on a sill, 11 px wide and 13 px high."""
    pane: RGB = mixed((255, 216, 132), wall, 0.3) if on else mixed((120, 146, 162), wall, 0.34)
    return [
        Paint(box(x - 6.2, y - 1.6, x + 6.2, y + 11), lit(wall, 0.26)),
        Paint(box(x - 4.6, y, x + 4.6, y + 10.6), pane),
        Paint(box(x - 4.6, y, x + 4.6, y + 4.5), lit(pane, 0.14)),
        Paint(box(x - 0.8, y, x + 0.8, y + 10.6), lit(wall, 0.2)),
        Paint(box(x - 7, y + 10.6, x + 7, y + 12.6), lit(wall, -0.12)),
    ]


def _shop(x: float, right: float, base: float, wall: RGB, hour: Hour, rng: np.random.Generator) -> list[Paint]:
    """A shop window and a door under a striped awning."""
    colour = mixed(_tinted(DOORS[int(rng.integers(len(DOORS)))], hour), wall, 0.3)
    glass = mixed((252, 220, 150) if hour.windows > 0.5 else (158, 186, 194), wall, 0.25)
    paints = [
        Paint(box(x + 2, base - 17, right - 2, base), lit(colour, -0.1)),
        Paint(box(x + 4.5, base - 14, right - 17, base - 3.5), glass),
        Paint([(x + 8, base - 3.5), (x + 15, base - 14), (x + 21, base - 14), (x + 14, base - 3.5)], lit(glass, 0.3)),
        Paint(box(right - 14, base - 14, right - 5, base), lit(colour, -0.26)),
        Paint(box(right - 12.2, base - 12, right - 6.8, base - 5), glass),
    ]
    for k in range(4):
        a, b = (x + 1 + (right - x - 2) * (k + each) / 4 for each in (0, 1))
        edge = [(b, base - 11), *arc((a + b) / 2, base - 11, (b - a) / 2, 2, 0, 180, 8), (a, base - 11)]
        stripe = colour if k % 2 == 0 else mixed((240, 234, 222), colour, 0.36)
        paints.append(Paint([(a, base - 19), (b, base - 19), *edge], stripe))
    return paints


def _door(x: float, right: float, base: float, wall: RGB, hour: Hour, rng: np.random.Generator) -> list[Paint]:
    """A front door with a pane and a step, and a window beside it."""
    colour = mixed(_tinted(DOORS[int(rng.integers(len(DOORS)))], hour), wall, 0.3)
    left, beside = (0.16, 0.72) if rng.uniform() < 0.5 else (0.62, 0.28)
    left, beside = x + (right - x) * left, x + (right - x) * beside
    on = bool(rng.uniform() < hour.windows)
    pane = (255, 222, 146) if hour.windows > 0.5 else mixed((150, 176, 184), wall, 0.25)
    return [
        *_window(beside, base - 16.5, wall, on),
        Paint(box(left - 2, base - 19, left + 13, base), lit(wall, 0.24)),
        Paint(box(left, base - 17, left + 11, base), colour),
        Paint(box(left + 2, base - 15, left + 9, base - 9.5), pane),
        Paint(box(left - 2.5, base - 2, left + 13.5, base), lit(wall, 0.2)),
    ]


def _trees(backdrop: Backdrop, hour: Hour, base: float, rng: np.random.Generator) -> list[Paint]:
    """One tree or two at the foot of the houses."""
    paints: list[Paint] = []
    side = 1.0 if backdrop.light >= 0 else -1.0
    for k in range(int(rng.integers(1, 3))):
        x, foot = (26.0 + 66 * k + float(rng.uniform(-16, 16))) % W, base + 3
        rgb = _hazy(LEAVES[int(rng.integers(len(LEAVES)))], hour)
        height = float(rng.uniform(25, 30))
        trunk = _hazy((112, 82, 60), hour)
        paints += [
            *glow(x - 4 * side, foot + 0.6, 13, 2.6, SHADE, 0.34),
            Paint(stroke([(x, foot), (x + 0.5, foot - height * 0.5), (x, foot - height)], 4.2, 3.0), trunk),
        ]
        for shade, shift, size in ((-0.26, -1.0, 1.0), (-0.04, 0.8, 0.84), (0.14, 2.6, 0.5)):
            for u, v, r in ((-6.5, -1, 7.6), (6.5, -2, 7.2), (0, -8, 8.6), (0, 1, 7.4)):
                crown = ellipse(x + u + shift * side, foot - height + v - shift * 0.9, r * size, r * size * 0.94, 24)
                paints.append(Paint(crown, lit(rgb, 0.8 * shade)))
    return paints


def _slabs(top: float, bottom: float, rgb: RGB, spread: float) -> list[Paint]:
    """A pavement of broad slabs, every other one a little darker, that spread towards the eye."""

    def at(x: float) -> float:
        return 64 + (x - 64) * spread

    return [
        Paint(box(0, top, W, bottom), rgb),
        *(
            Paint([(x, top), (x + 18, top), (at(x + 18), bottom), (at(x), bottom)], lit(rgb, -0.06))
            for x in np.arange(-8.0, W, 36.0)
        ),
    ]


def _pavement(backdrop: Backdrop, hour: Hour, base: float) -> list[Paint]:
    kerb = backdrop.floor_y - KERB_PX
    rgb = _tinted(mixed((196, 190, 180), backdrop.floor, 0.2), hour)
    return [
        *_slabs(base, kerb, rgb, 1.06),
        Paint(box(0, base, W, base + 2), SHADE, 0.2),
        Paint(box(0, kerb - 2.6, W, kerb), lit(rgb, 0.14)),
        Paint(box(0, kerb, W, kerb + 2), lit(rgb, -0.18)),
    ]


def _road(backdrop: Backdrop, hour: Hour) -> list[Paint]:
    """Asphalt with its marks, and the pavement on the near side."""
    top, bottom = backdrop.floor_y - KERB_PX + 2, backdrop.floor_y + NEAR_KERB_PX
    rgb = _tinted(mixed((124, 126, 134), backdrop.floor, 0.12), hour)
    near = lit(_tinted(mixed((196, 190, 180), backdrop.floor, 0.2), hour), -0.04)
    return [
        *gradient((0, top, W, bottom), lit(rgb, -0.08), lit(rgb, 0.04), 6),
        *_marks(backdrop, top, bottom, rgb),
        *_slabs(bottom, W, near, 1.1),
        Paint(box(0, bottom, W, bottom + 2.6), lit(near, 0.2)),
    ]


def _marks(backdrop: Backdrop, top: float, bottom: float, road: RGB) -> list[Paint]:
    """The crosswalk's broad stripes, the line before it, and the dashes between the lanes."""
    white: RGB = mixed((242, 242, 236), road, 0.36)
    crossing, side = backdrop.detail("crossing", 64.0), backdrop.detail("side", 1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        """Lines across the road spread towards the eye."""
        return crossing + (x - crossing) * (1 + 0.011 * (y - backdrop.floor_y)), y

    def mark(x0: float, y0: float, x1: float, y1: float) -> Paint:
        return Paint([at(x0, y0), at(x1, y0), at(x1, y1), at(x0, y1)], white)

    height, paints = bottom - top, []
    for k in range(3):
        a, b = (top + height * ((k + c) / 3) ** 1.1 for c in (0.26, 0.8))
        paints.append(mark(crossing - CROSSWALK_PX, a, crossing + CROSSWALK_PX, b))
    line = stop_line_x(crossing, side)
    paints.append(mark(min(line, line + side * 3), backdrop.floor_y - 6, max(line, line + side * 3), bottom - 2))
    lane = backdrop.floor_y - 7.5
    for x in np.arange(-10.0, W, 30.0):
        if x + 13 < crossing - CROSSWALK_PX - 11 or x > crossing + CROSSWALK_PX + 6:
            paints.append(Paint(box(x, lane, x + 13, lane + 2.4), white, 0.6))
    return paints


def stop_line_x(crossing: float, side: float) -> float:
    """Where the line begins at which cars wait that drive towards `side` (1: right)."""
    return crossing - side * (CROSSWALK_PX + STOP_LINE_PX)
