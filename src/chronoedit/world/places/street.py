"""A street from the side: sky of some hour, a row of houses and trees, the pavement, and a road with a crosswalk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..drawing import Paint, glow
from ..geometry import arc, box, clip, ellipse, stroke
from ..palette import RGB, SHADE, lit, mixed
from .base import W
from .outdoors import cloud, sky

if TYPE_CHECKING:
    from ..state import Backdrop

# from the line on which cars stand: where houses stand, and the two kerbs
HOUSES_PX, KERB_PX, NEAR_KERB_PX = 27.0, 17.0, 14.0
CROSSWALK_PX = 12.5  # half its width in the middle of the road
STOP_LINE_PX = 6.0  # from the crosswalk to the line before it

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
        zenith=(104, 172, 232),
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
        zenith=(92, 84, 150), haze=(252, 190, 140), tint=(150, 92, 130), much=0.3, windows=0.75, clouds=(246, 164, 150)
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
        *_road(backdrop, hour, rng),
    ]


def _heaven(backdrop: Backdrop, hour: Hour, rng: np.random.Generator) -> list[Paint]:
    x = 64.0 + 46 * (1 if backdrop.light >= 0 else -1)
    paints = []
    if hour.windows < 0.1:
        paints += [*glow(x, 14, 20, 20, (255, 246, 206), 0.6), Paint(ellipse(x, 14, 6), (255, 250, 222))]
    elif hour.windows > 0.5:
        paints += [*glow(x, 44, 40, 26, (255, 214, 150), 0.6), Paint(ellipse(x, 40, 7), (255, 228, 164))]
    for _ in range(3):
        x, y, width = float(rng.uniform(0, W)), float(rng.uniform(8, 34)), float(rng.uniform(20, 38))
        paints += cloud(x, y + 0.8, width, lit(hour.clouds, -0.14), 1.0)
        paints += cloud(x, y - 0.6, 0.94 * width, hour.clouds, 1.0)
    return paints


def _tinted(rgb: RGB, hour: Hour) -> RGB:
    return mixed(rgb, hour.tint, hour.much)


def _far_roofs(base: float, hour: Hour, rng: np.random.Generator) -> list[Paint]:
    """A pale skyline behind the row of houses."""
    rgb = mixed(mixed((150, 160, 182), hour.haze, 0.5), hour.tint, 0.15)
    paints, x = [], -6.0
    while x < W:
        width, height = float(rng.uniform(9, 18)), float(rng.uniform(34, 62))
        paints.append(Paint(box(x, base - height, x + width, base), lit(rgb, float(rng.uniform(-0.06, 0.06)))))
        if rng.uniform() < 0.4:
            paints.append(
                Paint([(x, base - height), (x + width / 2, base - height - 7), (x + width, base - height)], rgb)
            )
        x += width + float(rng.uniform(0, 3))
    return paints


def _houses(backdrop: Backdrop, hour: Hour, base: float, rng: np.random.Generator) -> list[Paint]:
    paints: list[Paint] = []
    x, last = -float(rng.uniform(0, 14)), -1
    while x < W:
        width, height = float(rng.uniform(23, 33)), float(rng.uniform(30, 50))
        colour = int(rng.integers(len(FACADES)))
        colour = (colour + 1) % len(FACADES) if colour == last else colour
        last = colour
        if rng.uniform() < 0.9:
            paints += _house(x, base, width, height, _tinted(FACADES[colour], hour), backdrop, hour, rng)
        x += width + float(rng.choice([0.0, 0.0, 5.0]))
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
    top, right = base - height, x + width
    roof = _tinted(ROOFS[int(rng.integers(len(ROOFS)))], hour)
    paints = [Paint(box(x, top, right, base), rgb), *_roof(x, right, top, roof, int(rng.integers(3)))]
    sunny = backdrop.light >= 0
    dark, bright = (x, right) if sunny else (right, x)
    paints.append(
        Paint(
            box(min(dark, dark + (3 if sunny else -3)), top, max(dark, dark + (3 if sunny else -3)), base), SHADE, 0.14
        )
    )
    paints.append(
        Paint(
            box(
                min(bright, bright + (-1.2 if sunny else 1.2)),
                top,
                max(bright, bright + (-1.2 if sunny else 1.2)),
                base,
            ),
            lit(rgb, 0.5),
            0.8,
        )
    )
    shop = rng.uniform() < 0.4
    columns = 3 if width > 28 else 2
    ground = 15.0
    rows = max(1, int((height - ground - 3) // 12.5))
    for row in range(rows):
        y = base - ground - 12.0 * row - 9.5
        for k in range(columns):
            middle = x + width * (k + 0.5) / columns
            on = bool(rng.uniform() < hour.windows)
            paints += _window(middle, y, rgb, on, backdrop.light >= 0)
    paints.append(Paint(box(x, base - ground - 0.6, right, base - ground + 0.4), lit(rgb, 0.35)))
    return paints + (_shop if shop else _door)(x, right, base, rgb, hour, rng)


def _roof(x: float, right: float, top: float, rgb: RGB, style: int) -> list[Paint]:
    if style == 0:
        return [
            Paint(box(x - 0.8, top - 2, right + 0.8, top), lit(rgb, -0.1)),
            Paint(box(x - 0.8, top - 2, right + 0.8, top - 1.3), lit(rgb, 0.35)),
        ]
    slope = [(x - 1.5, top), (x + 4, top - 9), (right - 4, top - 9), (right + 1.5, top)]
    if style == 1:
        slope = [(x - 1.5, top), ((x + right) / 2, top - 13), (right + 1.5, top)]
    tiles = [
        Paint(clip(clip(slope, (0.0, 1.0), top - y), (0.0, -1.0), -(top - y - 0.6)), lit(rgb, -0.3), 0.7)
        for y in (2.0, 4.6, 7.2)
    ]
    stack = box(x + 5, top - 13.5, x + 9, top - 4)
    return [
        Paint(stack, lit(rgb, -0.2)),
        Paint(box(x + 4.4, top - 14.5, x + 9.6, top - 13), lit(rgb, -0.4)),
        Paint(slope, rgb),
        *tiles,
        Paint(box(x - 1.5, top - 0.7, right + 1.5, top), lit(rgb, -0.35)),
    ]


def _window(x: float, y: float, wall: RGB, on: bool, sunny: bool) -> list[Paint]:
    pane: RGB = mixed((255, 216, 132), wall, 0.25) if on else mixed((120, 146, 162), wall, 0.22)
    paints = [
        Paint(box(x - 3.3, y - 0.7, x + 3.3, y + 7.2), lit(wall, 0.26)),
        Paint(box(x - 2.6, y, x + 2.6, y + 6.5), pane),
        Paint(box(x - 2.6, y, x + 2.6, y + 1), lit(pane, -0.2)),
        Paint(box(x - 0.3, y, x + 0.3, y + 6.5), lit(wall, 0.2), 0.8),
        Paint(box(x - 2.6, y + 2.6, x + 2.6, y + 3.1), lit(wall, 0.2), 0.8),
        Paint(box(x - 3.8, y + 6.8, x + 3.8, y + 7.8), lit(wall, -0.16)),
    ]
    if not on:
        paints.append(
            Paint([(x + 0.6, y + 6.5), (x + 2.4, y + 1), (x + 2.6, y + 1), (x + 2.6, y + 4)], (236, 246, 250), 0.4)
        )
    return paints


def _shop(x: float, right: float, base: float, wall: RGB, hour: Hour, rng: np.random.Generator) -> list[Paint]:
    """A shop window under a striped awning."""
    colour = mixed(_tinted(DOORS[int(rng.integers(len(DOORS)))], hour), wall, 0.22)
    glass = mixed((252, 220, 150) if hour.windows > 0.5 else (158, 186, 194), wall, 0.2)
    paints = [
        Paint(box(x + 2, base - 12, right - 2, base), lit(colour, -0.2)),
        Paint(box(x + 3.2, base - 10.5, right - 9, base - 2.2), glass),
        Paint(
            [(x + 5, base - 2.2), (x + 9, base - 10.5), (x + 12, base - 10.5), (x + 8, base - 2.2)],
            (255, 255, 255),
            0.3,
        ),
        Paint(box(right - 7.6, base - 10.5, right - 3.4, base), lit(colour, -0.34)),
        Paint(box(right - 7, base - 9.8, right - 4, base - 4), glass),
    ]
    n = 5
    for k in range(n):
        a, b = x + 1 + (right - x - 2) * k / n, x + 1 + (right - x - 2) * (k + 1) / n
        rgb = colour if k % 2 == 0 else mixed((240, 234, 222), colour, 0.3)
        paints += [
            Paint(
                [
                    (a, base - 14),
                    (b, base - 14),
                    (b, base - 9),
                    *arc((a + b) / 2, base - 9, (b - a) / 2, 1.3, 0, 180, 6),
                    (a, base - 9),
                ],
                rgb,
            )
        ]
    return [*paints, Paint(box(x + 1, base - 14.4, right - 1, base - 13.6), lit(colour, -0.4))]


def _door(x: float, right: float, base: float, wall: RGB, hour: Hour, rng: np.random.Generator) -> list[Paint]:
    """A front door with a step, a lamp and a window beside it."""
    colour = mixed(_tinted(DOORS[int(rng.integers(len(DOORS)))], hour), wall, 0.22)
    left = x + (3.5 if rng.uniform() < 0.5 else right - x - 10.5)
    beside = x + (right - x) * (0.7 if left < (x + right) / 2 else 0.3)
    on = bool(rng.uniform() < hour.windows)
    return [
        *_window(beside, base - 11.5, wall, on, True),
        Paint(box(left - 0.8, base - 12.4, left + 7.8, base), lit(wall, 0.24)),
        Paint(box(left, base - 11.5, left + 7, base), colour),
        Paint(
            box(left + 1.2, base - 10.3, left + 5.8, base - 6.8),
            (255, 222, 146) if hour.windows > 0.5 else mixed((150, 176, 184), wall, 0.2),
        ),
        Paint(box(left + 1.2, base - 5.4, left + 5.8, base - 1.2), lit(colour, -0.25)),
        Paint(ellipse(left + 6.1, base - 5.6, 0.5, corners=8), (236, 206, 120)),
        Paint(box(left - 1.4, base - 1, left + 8.4, base), lit(wall, 0.25)),
        Paint(
            [(left - 1.6, base - 12.2), (left - 0.4, base - 14), (left + 7.4, base - 14), (left + 8.6, base - 12.2)],
            lit(colour, -0.2),
        ),
    ]


def _trees(backdrop: Backdrop, hour: Hour, base: float, rng: np.random.Generator) -> list[Paint]:
    """A few trees at the foot of the houses, in beds of earth."""
    paints: list[Paint] = []
    side = 1.0 if backdrop.light >= 0 else -1.0
    for k in range(int(rng.integers(1, 4))):
        x, foot = (22.0 + 41 * k + float(rng.uniform(-14, 14))) % W, base + 2.2
        rgb = _tinted(LEAVES[int(rng.integers(len(LEAVES)))], hour)
        height = float(rng.uniform(19, 26))
        trunk = _tinted((112, 82, 60), hour)
        paints += [
            *glow(x - 4 * side, foot + 0.6, 10, 1.8, SHADE, 0.4),
            Paint(ellipse(x, foot, 4.4, 1.1), lit(trunk, -0.4)),
            Paint(stroke([(x, foot), (x + 0.5, foot - height * 0.5), (x, foot - height)], 2.6, 1.4), trunk),
            Paint(stroke([(x + 0.3, foot - height * 0.5), (x + 4, foot - height * 0.72)], 1.2, 0.7), trunk),
        ]
        for shade, shift, size in ((-0.32, -0.8, 1.0), (-0.06, 0.4, 0.86), (0.2, 1.7, 0.5)):
            for u, v, r in ((-5.2, -1, 5.6), (5, -2, 5.4), (0, -7, 6.6), (0, 0.5, 5.2)):
                crown = ellipse(x + u + shift * side, foot - height + v - shift * 0.9, r * size, r * size * 0.92, 20)
                paints.append(Paint(crown, lit(rgb, shade)))
    return paints


def _pavement(backdrop: Backdrop, hour: Hour, base: float) -> list[Paint]:
    kerb = backdrop.floor_y - KERB_PX
    rgb = _tinted(mixed((196, 190, 180), backdrop.floor, 0.2), hour)
    joints = [
        Paint([(x, base), (x + 0.5, base), (x * 1.06 - 3.3, kerb), (x * 1.06 - 3.9, kerb)], lit(rgb, -0.28), 0.6)
        for x in np.arange(2.0, W, 11.0)
    ]
    return [
        Paint(box(0, base, W, kerb), rgb),
        Paint(box(0, base, W, base + 1.6), SHADE, 0.25),
        Paint(box(0, base + 4.6, W, base + 5), lit(rgb, -0.3), 0.7),
        *joints,
        Paint(box(0, kerb - 1.6, W, kerb), lit(rgb, 0.28)),
        Paint(box(0, kerb, W, kerb + 1.4), lit(rgb, -0.36)),
    ]


def _road(backdrop: Backdrop, hour: Hour, rng: np.random.Generator) -> list[Paint]:
    """Asphalt with its marks, and the pavement on the near side."""
    top, bottom = backdrop.floor_y - KERB_PX + 1.4, backdrop.floor_y + NEAR_KERB_PX
    rgb = _tinted(mixed((98, 100, 110), backdrop.floor, 0.12), hour)
    paints = [Paint(box(0, top, W, bottom), rgb), Paint(box(0, top, W, top + 2.4), SHADE, 0.22)]
    for _ in range(70):
        x, y = float(rng.uniform(0, W)), float(rng.uniform(top + 2, bottom))
        paints.append(Paint(ellipse(x, y, 0.7, 0.35, 6), lit(rgb, float(rng.choice([-0.3, 0.25]))), 0.35))
    paints += _marks(backdrop, top, bottom, rgb)
    near = _tinted(mixed((196, 190, 180), backdrop.floor, 0.2), hour)
    return [
        *paints,
        Paint(box(0, bottom, W, bottom + 2.2), lit(near, 0.42)),
        Paint(box(0, bottom + 2.2, W, W), lit(near, -0.06)),
        *(
            Paint(
                [(x, bottom + 2.2), (x + 0.7, bottom + 2.2), (x * 1.1 - 5.7, W), (x * 1.1 - 6.5, W)],
                lit(near, -0.32),
                0.7,
            )
            for x in np.arange(-3.0, W, 13.0)
        ),
    ]


def _marks(backdrop: Backdrop, top: float, bottom: float, road: RGB) -> list[Paint]:
    white: RGB = mixed((242, 242, 236), road, 0.16)
    crossing, side = backdrop.detail("crossing", 64.0), backdrop.detail("side", 1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        """Lines across the road spread towards the eye."""
        return crossing + (x - crossing) * (1 + 0.011 * (y - backdrop.floor_y)), y

    def mark(x0: float, y0: float, x1: float, y1: float) -> Paint:
        return Paint([at(x0, y0), at(x1, y0), at(x1, y1), at(x0, y1)], white)

    height, paints = bottom - top, []
    for k in range(5):
        a, b = (top + height * ((k + c) / 5) ** 1.15 for c in (0.26, 0.84))
        paints.append(mark(crossing - CROSSWALK_PX, a, crossing + CROSSWALK_PX, b))
    line = stop_line_x(crossing, side)
    paints.append(mark(min(line, line + side * 2.6), backdrop.floor_y - 5, max(line, line + side * 2.6), bottom - 1.5))
    lane = backdrop.floor_y - 6.4
    for x in np.arange(-8.0, W, 17.0):
        if x + 8 < crossing - CROSSWALK_PX - 11 or x > crossing + CROSSWALK_PX + 5:
            paints.append(Paint(box(x, lane, x + 8, lane + 1.2), white, 0.85))
    return paints


def stop_line_x(crossing: float, side: float) -> float:
    """Where the line begins at which cars wait that drive towards `side` (1: right)."""
    return crossing - side * (CROSSWALK_PX + STOP_LINE_PX)
