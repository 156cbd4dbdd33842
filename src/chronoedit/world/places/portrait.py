"""What stands behind a portrait: a studio wall, a beach, a forest, a night sky. One can be let down before another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..drawing import Paint, glow, gradient
from ..geometry import box, clip, ellipse, moved, rounded, smooth, stroke
from ..palette import RGB, SHADE, lit
from .base import W
from .outdoors import cloud, hills, sky

if TYPE_CHECKING:
    from ..state import Backdrop

STUDIO_WALL: RGB = (206, 196, 182)
ROW = 7.0  # what a place is drawn from where nothing else is said
BAR_PX = 3.0


def studio(backdrop: Backdrop) -> list[Paint]:
    """A plain wall, lighter about the head."""
    rgb, side = backdrop.wall, 1.0 if backdrop.light >= 0 else -1.0
    return [
        *gradient((0, 0, W, W), lit(rgb, -0.04), lit(rgb, -0.26), 16),
        *glow(64 + 16 * side, 52, 84, 76, lit(rgb, 0.5), 0.62, 12),
    ]


def beach(backdrop: Backdrop) -> list[Paint]:
    """Sand, sea, a sun, a palm and a parasol."""
    rng = np.random.default_rng(int(backdrop.detail("row", ROW)))
    side = 1.0 if backdrop.light >= 0 else -1.0
    horizon, shore = 68.0, 92.0
    sea, sand = (62, 158, 196), (238, 212, 160)
    paints = [
        *sky(0, horizon, (96, 180, 236), (226, 244, 246)),
        *glow(64 + 44 * side, 22, 24, 24, (255, 246, 200), 0.6, 6),
        Paint(ellipse(64 + 44 * side, 22, 8), (255, 250, 216)),
        *cloud(64 - 34 * side + float(rng.uniform(-8, 8)), 24, 36, alpha=1.0),
        *cloud(64 + 20 * side + float(rng.uniform(-8, 8)), 46, 22, (246, 250, 250), 1.0),
        *gradient((0, horizon, W, shore + 4), lit(sea, -0.25), lit(sea, 0.3), 10),
    ]
    for _ in range(16):
        x, y = float(rng.uniform(0, W)), float(rng.uniform(horizon + 2, shore - 2))
        paints.append(Paint(ellipse(x, y, float(rng.uniform(3, 8)), 0.5, 12), lit(sea, 0.55), 0.7))
    foam = [(float(x), shore + 1.6 * float(np.sin(x / 9))) for x in np.linspace(0, W, 40)]
    paints += [
        Paint([*foam, (W, W), (0, W)], (250, 250, 244)),
        Paint([*moved(foam, 0, 2.2), (W, W), (0, W)], lit(sand, -0.22)),
        Paint([*moved(foam, 0, 5.2), (W, W), (0, W)], sand),
        Paint(box(0, 112, W, W), lit(sand, 0.2), 0.5),
    ]
    return [*paints, *_parasol(64 + 47 * side, 106), *_palm(64 - 50 * side, 104, -side)]


def _palm(x: float, foot: float, lean: float) -> list[Paint]:
    """A bent trunk with rings, and leaves about its top."""
    top = (x - 5 * lean, foot - 66)
    trunk = [(x, foot), (x + 2.5 * lean, foot - 22), (x + 1.5 * lean, foot - 44), top]
    wood, leaf = (166, 122, 82), (64, 142, 84)
    rings = [
        Paint(stroke([(x + 2 * lean - 2.4, y), (x + 2 * lean + 2.4, y - 0.6)], 0.7), lit(wood, -0.35), 0.7)
        for y in np.arange(foot - 48, foot - 4, 5.0)
    ]
    leaves = []
    for k, (u, v) in enumerate(((-26, 4), (26, 6), (-19, -13), (20, -12), (-22, 20), (20, 22), (2, -18))):
        tip = (top[0] + u, top[1] + v)
        middle = (top[0] + u * 0.55, top[1] + v * 0.5 - 7)
        leaves.append(
            Paint(stroke([top, middle, tip], 6.5, 0.6), lit(leaf, (-0.3, -0.16, 0.0, 0.12, -0.24, -0.08, 0.2)[k]))
        )
    nuts = [Paint(ellipse(top[0] + u, top[1] + 3, 2.4), (112, 78, 52)) for u in (-2.2, 2.4)]
    return [Paint(stroke(trunk, 6.5, 4.2), wood), *rings, *leaves, *nuts]


def _parasol(x: float, foot: float) -> list[Paint]:
    paints = [*glow(x, foot, 15, 3, SHADE, 0.3), Paint(stroke([(x, foot), (x + 3, foot - 32)], 1.6), (240, 236, 226))]
    top, n = (x + 3.2, foot - 35), 6
    for k in range(n):
        a, b = x - 15 + 34 * k / n, x - 15 + 34 * (k + 1) / n
        rgb: RGB = (226, 84, 78) if k % 2 == 0 else (250, 244, 232)
        bend = [18 - 11 * (1 - ((u - x - 2) / 17) ** 2) for u in (a, b)]
        paints.append(
            Paint(
                [top, (a, foot - 37 + bend[0]), ((a + b) / 2, foot - 35.6 + sum(bend) / 2), (b, foot - 37 + bend[1])],
                rgb,
            )
        )
    return paints


def forest(backdrop: Backdrop) -> list[Paint]:
    """Trunks in three depths, leaves above, ferns below, and light that falls in."""
    rng = np.random.default_rng(int(backdrop.detail("row", ROW)))
    side = 1.0 if backdrop.light >= 0 else -1.0
    paints = gradient((0, 0, W, W), (196, 222, 168), (128, 172, 112), 14)
    paints += glow(64 + 30 * side, 30, 60, 60, (250, 250, 206), 0.6, 8)
    for depth, (trunk, leaf, count, width) in enumerate(
        (
            ((158, 178, 132), (148, 186, 122), 9, 4.0),
            ((122, 132, 92), (104, 154, 90), 6, 7.0),
            ((92, 76, 58), (70, 122, 74), 4, 11.0),
        )
    ):
        for k in range(count):
            x = (k + float(rng.uniform(0.2, 0.8))) * W / count
            if depth == 2 and 36 < x < 92:
                continue
            w = width * float(rng.uniform(0.8, 1.2)) / 2
            foot = 98 + 7 * depth
            paints.append(Paint([(x - w, 0), (x + w, 0), (x + 1.3 * w, foot), (x - 1.3 * w, foot)], trunk))
            near = (x + 0.3 * w, x + w) if side > 0 else (x - w, x - 0.3 * w)
            paints.append(
                Paint([(near[0], 0), (near[1], 0), (near[1] + 0.2 * w * side, foot), (near[0], foot)], lit(trunk, 0.22))
            )
        for k in range(9):
            x, y = (k + float(rng.uniform(0, 1))) * W / 8 - 8, 16.0 - 6 * depth + float(rng.uniform(-6, 6))
            r = float(rng.uniform(10, 15))
            paints += [
                Paint(ellipse(x, y, r, 0.72 * r), lit(leaf, -0.12)),
                Paint(ellipse(x + 2 * side, y - 2, 0.7 * r, 0.5 * r), lit(leaf, 0.08)),
            ]
        paints += hills(W + 8, 40 - 8 * depth, lit(leaf, -0.08), 2.0 + depth)
    beams = [
        [(64 + side * u, 0), (64 + side * (u + 9), 0), (64 + side * (u - 26), W), (64 + side * (u - 44), W)]
        for u in (16, 38, 56)
    ]
    paints += [Paint(beam, (255, 252, 214), 0.15) for beam in beams]
    return [*paints, *_ferns(rng)]


def _ferns(rng: np.random.Generator) -> list[Paint]:
    paints = []
    for k in range(9):
        x = (k + float(rng.uniform(0.2, 0.8))) * W / 9
        rgb = lit((78, 136, 72), float(rng.uniform(-0.25, 0.15)))
        for u, v in ((-9, -10), (-4, -15), (2, -17), (7, -13), (11, -7)):
            frond = [(x, W + 2), (x + 0.5 * u, W + 0.75 * v), (x + u, W + v)]
            paints.append(Paint(stroke(frond, 3.4, 0.5), rgb))
    for _ in range(5):
        x = float(rng.uniform(4, W - 4))
        paints += [
            Paint(box(x - 0.8, 119, x + 0.8, 124), (244, 234, 214)),
            Paint(clip(ellipse(x, 119.5, 3.4, 3.2), (0.0, 1.0), 119.8), (208, 74, 62)),
        ]
    return paints


def night(backdrop: Backdrop) -> list[Paint]:
    """A sky full of stars, the moon, and hills with a few lit windows."""
    rng = np.random.default_rng(int(backdrop.detail("row", ROW)))
    side = 1.0 if backdrop.light >= 0 else -1.0
    paints = gradient((0, 0, W, 116), (22, 26, 66), (84, 82, 142), 18)
    band = smooth([(-10, 84), (30, 50), (76, 26), (140, -8), (140, 16), (84, 46), (36, 72), (-10, 106)], 5)
    paints.append(Paint(band, (136, 126, 196), 0.22))
    for k in range(70):
        x, y, r = float(rng.uniform(0, W)), float(rng.uniform(0, 92)), float(rng.uniform(0.35, 0.8))
        if k % 12 == 0:
            paints += [
                Paint([(x - 3, y), (x, y - 0.6), (x + 3, y), (x, y + 0.6)], (255, 252, 226), 0.9),
                Paint([(x, y - 3), (x + 0.6, y), (x, y + 3), (x - 0.6, y)], (255, 252, 226), 0.9),
            ]
        paints.append(Paint(ellipse(x, y, r, corners=8), (255, 252, 230), 0.9))
    x, y = 64 + 43 * side, 25.0
    paints += glow(x, y, 26, 26, (240, 236, 206), 0.4, 8)
    paints += [Paint(ellipse(x, y, 11), (248, 240, 206)), Paint(ellipse(x + 1.5 * side, y - 1, 9), (255, 250, 224))]
    paints += [
        Paint(ellipse(x + u, y + v, r, 0.9 * r, 14), (226, 214, 176), 0.8)
        for u, v, r in ((-4, -3, 2.2), (3, 3, 2.8), (-3, 5, 1.4), (5, -4, 1.3))
    ]
    paints += [
        *hills(W + 4, 56, (58, 60, 112), 1.0),
        *hills(W + 4, 40, (42, 44, 88), 3.1),
        *hills(W + 6, 26, (28, 32, 66), 5.0),
    ]
    for _ in range(7):
        u, v = float(rng.uniform(4, W - 4)), float(rng.uniform(104, 120))
        paints += [
            *glow(u, v, 2.6, 2.6, (255, 214, 120), 0.4),
            Paint(box(u - 0.9, v - 0.9, u + 0.9, v + 0.9), (255, 224, 140)),
        ]
    return paints


def before_another(backdrop: Backdrop, into: str) -> Backdrop:
    """The backdrop of the place that another one is changed to: as it is when nothing else is said."""
    return replace(backdrop, place=into, wall=STUDIO_WALL, details=())


def _with_next(place: Callable[[Backdrop], list[Paint]]) -> Callable[[Backdrop], list[Paint]]:
    """The place, and before it as much of the `next` one as is let down, as on a roll in a studio."""

    def draw(backdrop: Backdrop) -> list[Paint]:
        paints, into = place(backdrop), backdrop.detail("next", "")
        if not into:
            return paints
        foot = (W + BAR_PX) * backdrop.detail("share", 0.0)
        sheet = [
            paint._replace(polygon=clip(moved(paint.polygon, 0, foot - W), (0.0, 1.0), foot))
            for paint in SETTINGS[into](before_another(backdrop, into))
        ]
        bar = rounded(-4, foot - BAR_PX, W + 4, foot, 1.4)
        return [
            *paints,
            Paint(box(0, foot, W, foot + 3), SHADE, 0.3),
            *sheet,
            Paint(bar, (150, 112, 76)),
            Paint(box(0, foot - BAR_PX + 0.5, W, foot - BAR_PX + 1.2), (206, 168, 124)),
        ]

    return draw


SETTINGS: dict[str, Callable[[Backdrop], list[Paint]]] = {
    "studio": studio,
    "beach": beach,
    "forest": forest,
    "night": night,
}
PORTRAIT_PLACES: dict[str, Callable[[Backdrop], list[Paint]]] = {
    name: _with_next(place) for name, place in SETTINGS.items()
}
