"""What stands behind a portrait: a studio wall, a beach, a forest, a night sky. One can be let down before another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..drawing import Paint, glow, gradient
from ..geometry import Polygon, box, clip, ellipse, moved, rounded, smooth, stroke
from ..palette import RGB, SHADE, lit
from .base import W
from .outdoors import cloud, hills, sky

if TYPE_CHECKING:
    from ..state import Backdrop

STUDIO_WALL: RGB = (206, 196, 182)
ROW = 7.0  # what a place is drawn from where nothing else is said
BAR_PX = 3.0
SPARKLE: Polygon = [
    (1.0, 0.0),
    (0.3, 0.3),
    (0.0, 1.0),
    (-0.3, 0.3),
    (-1.0, 0.0),
    (-0.3, -0.3),
    (0.0, -1.0),
    (0.3, -0.3),
]

FOREST: tuple[tuple[RGB, RGB, int, float], ...] = (  # from far to near: trunks, leaves, how many trunks, how wide
    ((172, 194, 148), (164, 198, 138), 5, 8.0),
    ((146, 160, 118), (134, 178, 114), 3, 13.0),
    ((126, 112, 88), (106, 154, 100), 2, 19.0),
)


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
    horizon, shore = 68.0, 94.0
    sea, sand, high = (98, 178, 204), (238, 214, 168), (134, 196, 236)
    paints = [
        *sky(0, horizon, high, (214, 236, 242)),
        *glow(64 + 44 * side, 22, 26, 26, (255, 246, 200), 0.6, 6),
        Paint(ellipse(64 + 44 * side, 22, 9), (255, 250, 216)),
        *cloud(64 - 34 * side + float(rng.uniform(-8, 8)), 26, 42, (240, 247, 250), 1.0),
        *gradient((0, horizon, W, shore + 4), lit(sea, -0.12), lit(sea, 0.26), 10),
    ]
    for k in range(5):
        x, y = float(rng.uniform(0, W)), horizon + 5 + 4.2 * k
        paints.append(Paint(ellipse(x, y, float(rng.uniform(9, 15)), 1.0, 16), lit(sea, 0.4), 0.5))
    foam = [(float(x), shore + 2 * float(np.sin(x / 12))) for x in np.linspace(0, W, 40)]
    paints += [
        Paint([*foam, (W, W), (0, W)], (242, 240, 226)),
        Paint([*moved(foam, 0, 4), (W, W), (0, W)], lit(sand, -0.06)),
        Paint([*moved(foam, 0, 9), (W, W), (0, W)], sand),
    ]
    return [*paints, *_parasol(64 + 46 * side, 110), *_palm(64 - 50 * side, 108, -side)]


def _palm(x: float, foot: float, lean: float) -> list[Paint]:
    """A bent trunk, and broad leaves about its top."""
    top = (x - 5 * lean, foot - 68)
    trunk = [(x, foot), (x + 2.5 * lean, foot - 22), (x + 1.5 * lean, foot - 44), top]
    wood, leaf = (182, 146, 110), (112, 172, 124)
    leaves = []
    for k, (u, v) in enumerate(((-27, 9), (27, 10), (-17, -14), (18, -13), (0, 22))):
        tip = (top[0] + u, top[1] + v)
        middle = (top[0] + u * 0.55, top[1] + v * 0.5 - 6)
        leaves.append(Paint(stroke([top, middle, tip], 10, 1.2), lit(leaf, (-0.1, 0.0, 0.06, 0.12, -0.16)[k])))
    return [Paint(stroke(trunk, 8, 5.5), wood), *leaves]


def _parasol(x: float, foot: float) -> list[Paint]:
    """A pole, and a cover of four gores."""
    pole: RGB = (226, 216, 198)
    paints = [*glow(x, foot, 15, 3, SHADE, 0.2), Paint(stroke([(x, foot), (x + 2, foot - 34)], 2.4), pole)]
    top, n = (x + 2.2, foot - 40), 4
    for k in range(n):
        a, b = x - 18 + 40 * k / n, x - 18 + 40 * (k + 1) / n
        rgb: RGB = (232, 128, 116) if k % 2 == 0 else (246, 232, 210)
        bend = [20 - 12 * (1 - ((u - x - 2) / 20) ** 2) for u in (a, b)]
        paints.append(
            Paint(
                [top, (a, foot - 39 + bend[0]), ((a + b) / 2, foot - 37 + sum(bend) / 2), (b, foot - 39 + bend[1])],
                rgb,
            )
        )
    return paints


def forest(backdrop: Backdrop) -> list[Paint]:
    """Trunks in three depths, leaves above, ferns below, and light that falls in."""
    rng = np.random.default_rng(int(backdrop.detail("row", ROW)))
    side = 1.0 if backdrop.light >= 0 else -1.0
    paints = gradient((0, 0, W, W), (198, 224, 172), (148, 188, 128), 14)
    paints += glow(64 + 30 * side, 30, 60, 60, (250, 250, 206), 0.5, 8)
    for depth, (trunk, leaf, count, width) in enumerate(FOREST):
        for k in range(count):
            x = (k + float(rng.uniform(0.25, 0.75))) * W / count
            if depth == 2:
                x = (float(rng.uniform(6, 20)), W - float(rng.uniform(6, 20)))[k]
            w, foot = width * float(rng.uniform(0.85, 1.15)) / 2, 100 + 7 * depth
            paints.append(Paint([(x - w, 0), (x + w, 0), (x + 1.3 * w, foot), (x - 1.3 * w, foot)], trunk))
            near = (x + 0.2 * w, x + w) if side > 0 else (x - w, x - 0.2 * w)
            paints.append(
                Paint([(near[0], 0), (near[1], 0), (near[1] + 0.2 * w * side, foot), (near[0], foot)], lit(trunk, 0.12))
            )
        for k in range(5):
            x, y = (k + float(rng.uniform(0.2, 0.8))) * W / 4 - 16, 12.0 - 6 * depth + float(rng.uniform(-4, 4))
            r = float(rng.uniform(18, 23))
            paints += [
                Paint(ellipse(x, y, r, 0.66 * r), lit(leaf, -0.05)),
                Paint(ellipse(x + 3 * side, y - 3, 0.7 * r, 0.46 * r), lit(leaf, 0.05)),
            ]
        paints += hills(W + 8, 36 - 7 * depth, lit(leaf, -0.05), 2.0 + depth)
    beams = [
        [(64 + side * u, 0), (64 + side * (u + 13), 0), (64 + side * (u - 20), W), (64 + side * (u - 46), W)]
        for u in (18, 46)
    ]
    paints += [Paint(beam, (255, 252, 214), 0.12) for beam in beams]
    return [*paints, *_ferns(rng)]


def _ferns(rng: np.random.Generator) -> list[Paint]:
    """Broad fronds at the sides, and two mushrooms between them."""
    paints = []
    for k in range(5):
        x = (k + float(rng.uniform(0.3, 0.7))) * W / 5
        rgb = lit((96, 148, 88), float(rng.uniform(-0.12, 0.1)))
        for u, v in ((-13, -11), (1, -17), (14, -11)):
            paints.append(Paint(stroke([(x, W + 3), (x + 0.5 * u, W + 0.75 * v), (x + u, W + v)], 7, 1.5), rgb))
    for x in (float(rng.uniform(8, 24)), W - float(rng.uniform(8, 24))):
        paints += [
            Paint(box(x - 2, 116, x + 2, 124), (240, 230, 208)),
            Paint(clip(ellipse(x, 117, 6.5, 6.2), (0.0, 1.0), 117.6), (212, 112, 98)),
        ]
    return paints


def night(backdrop: Backdrop) -> list[Paint]:
    """A sky with a dozen stars, the moon, and hills with a few lit windows."""
    rng = np.random.default_rng(int(backdrop.detail("row", ROW)))
    side = 1.0 if backdrop.light >= 0 else -1.0
    paints = gradient((0, 0, W, 116), (34, 38, 80), (90, 88, 146), 18)
    band = smooth([(-10, 84), (30, 50), (76, 26), (140, -8), (140, 16), (84, 46), (36, 72), (-10, 106)], 5)
    paints.append(Paint(band, (136, 126, 196), 0.18))
    for k in range(12):
        x, y = (k % 4 + float(rng.uniform(0.15, 0.85))) * W / 4, (k // 4 + float(rng.uniform(0.15, 0.85))) * 28
        r = float(rng.uniform(1.4, 1.9))
        paints += glow(x, y, 3 * r, 3 * r, (226, 222, 236), 0.3, 3)
        if k % 5 == 0:
            r *= 1.9
            paints.append(Paint([(x + u * r, y + v * r) for u, v in SPARKLE], (250, 246, 226)))
        else:
            paints.append(Paint(ellipse(x, y, r, corners=12), (246, 242, 226)))
    x, y = 64 + 43 * side, 25.0
    paints += glow(x, y, 28, 28, (240, 236, 206), 0.4, 8)
    paints += [Paint(ellipse(x, y, 12.5), (246, 238, 206)), Paint(ellipse(x + 1.5 * side, y - 1, 10), (252, 246, 222))]
    paints += [
        Paint(ellipse(x + u, y + v, r, 0.9 * r, 14), (234, 224, 192), 0.8) for u, v, r in ((-4, -3, 2.8), (3, 4, 3.2))
    ]
    paints += [
        *hills(W + 4, 56, (64, 66, 118), 1.0),
        *hills(W + 4, 40, (50, 52, 98), 3.1),
        *hills(W + 6, 26, (38, 42, 80), 5.0),
    ]
    for k in range(3):
        u, v = (10.0, 26.0, 116.0)[k] + float(rng.uniform(-5, 5)), float(rng.uniform(108, 118))
        paints += [
            *glow(u, v, 5, 5, (255, 214, 120), 0.4),
            Paint(box(u - 1.7, v - 1.7, u + 1.7, v + 1.7), (250, 218, 142)),
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
