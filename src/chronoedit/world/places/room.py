"""Indoors: a wall with something on it, and a floor. The parts serve other rooms too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..drawing import Paint, gradient
from ..geometry import Polygon, box, ellipse, stroke
from ..palette import RGB, SHADE, lit, mixed
from .base import DEPTH_PX, W

if TYPE_CHECKING:
    from ..state import Backdrop

WALL_STYLES = ("plain", "stripes", "panels", "bricks", "tiles", "dots")
FLOOR_STYLES = ("planks", "tiles", "plain")


def room(backdrop: Backdrop) -> list[Paint]:
    """A wall with something on it and a floor; which wall and floor comes of the colours and where the thing hangs."""
    edge = backdrop.floor_y - DEPTH_PX
    style = str(backdrop.detail("wall", WALL_STYLES[round(backdrop.decoration_x * 10) % len(WALL_STYLES)]))
    floor = str(backdrop.detail("floor", FLOOR_STYLES[sum(backdrop.floor) % len(FLOOR_STYLES)]))
    return [
        *gradient((0, 0, W, edge), lit(backdrop.wall, 0.1), lit(backdrop.wall, -0.08)),
        *WALLPAPERS[style](backdrop.wall, edge),
        *DECORATIONS[backdrop.decoration](backdrop),
        *FLOORINGS[floor](backdrop.floor, edge),
        *skirting(backdrop.wall, edge),
    ]


def skirting(wall: RGB, y: float) -> list[Paint]:
    """A board along the foot of a wall at `y`, and its shadow on the floor."""
    return [
        Paint(box(0, y - 5, W, y), lit(wall, 0.35)),
        Paint(box(0, y - 5.8, W, y - 5), lit(wall, -0.22)),
        Paint(box(0, y - 0.8, W, y), lit(wall, -0.12)),
        Paint(box(0, y, W, y + 1.2), SHADE, 0.28),
        Paint(box(0, y + 1.2, W, y + 2.6), SHADE, 0.13),
    ]


def _stripes(wall: RGB, bottom: float) -> list[Paint]:
    return [Paint(box(x, 0, x + 8, bottom), lit(wall, -0.08), 0.4) for x in np.arange(1, W, 16.0)]


def _panels(wall: RGB, bottom: float) -> list[Paint]:
    top = bottom - 34
    paints = [Paint(box(0, top, W, bottom), lit(wall, 0.22)), Paint(box(0, top - 2, W, top), lit(wall, 0.45))]
    paints.append(Paint(box(0, top, W, top + 0.9), lit(wall, -0.25), 0.7))
    for x in np.arange(4, W, 21.0):
        paints.append(Paint(box(x, top + 5, x + 17, bottom - 9), lit(wall, -0.02)))
        paints.append(Paint(box(x + 1.2, top + 6.2, x + 17, bottom - 9), lit(wall, 0.26)))
        paints.append(Paint(box(x + 1.2, top + 6.2, x + 15.8, bottom - 10.2), lit(wall, 0.16)))
    return paints


def _bricks(wall: RGB, bottom: float) -> list[Paint]:
    paints = [Paint(box(0, 0, W, bottom), lit(wall, 0.04))]
    for row, y in enumerate(np.arange(0, bottom, 9.0)):
        for column, x in enumerate(np.arange(-20 + 10 * (row % 2), W, 20.0)):
            shade = -0.05 - 0.025 * ((row * 7 + column * 5) % 4)
            paints.append(Paint(box(x + 0.7, y + 0.7, x + 19.3, min(y + 8.3, bottom)), lit(wall, shade)))
    return paints


def _tiled(wall: RGB, bottom: float) -> list[Paint]:
    paints = [Paint(box(0, 0, W, bottom), lit(wall, -0.05))]
    for row, y in enumerate(np.arange(bottom - 108, bottom, 18.0)):
        for column, x in enumerate(np.arange(-7, W, 18.0)):
            shade = 0.06 + 0.03 * ((row * 3 + column * 5) % 3)
            paints.append(Paint(box(x + 0.7, y + 0.7, x + 17.3, y + 17.3), lit(wall, shade)))
            paints.append(Paint([(x + 2.2, y + 2.2), (x + 8, y + 2.2), (x + 2.2, y + 8)], (255, 255, 255), 0.15))
    return paints


def _dots(wall: RGB, bottom: float) -> list[Paint]:
    return [
        Paint(ellipse(x, y, 2.1, corners=14), lit(wall, -0.1), 0.7)
        for row, y in enumerate(np.arange(6, bottom - 4, 12.0))
        for x in np.arange(3 + 8.5 * (row % 2), W, 17.0)
    ]


def planks(floor: RGB, top: float) -> list[Paint]:
    """Boards that run towards the eye."""
    paints = gradient((0, top, W, W), lit(floor, -0.14), lit(floor, 0.12), 8)
    far, near = np.linspace(-12, W + 12, 9), np.linspace(-90, W + 90, 9)
    for k, (a, b) in enumerate(zip(zip(far, near, strict=True), zip(far[1:], near[1:], strict=True), strict=False)):
        board = [(a[0], top), (b[0], top), (b[1], W), (a[1], W)]
        paints.append(Paint(board, lit(floor, (-0.08, 0.04, -0.03, 0.08)[(k * 3) % 4]), 0.55))
        paints.append(Paint(stroke([(a[0], top), (a[1], W)], 0.6, 1.2), lit(floor, -0.3), 0.5))
    return paints


def chequered(floor: RGB, top: float) -> list[Paint]:
    """Tiles of two shades in perspective."""
    paints = gradient((0, top, W, W), lit(floor, -0.1), lit(floor, 0.14), 8)
    rows = [top + (W - top) * (k / 4) ** 1.6 for k in range(5)]
    far, near = np.linspace(-20, W + 20, 12), np.linspace(-150, W + 150, 12)
    for row, (y0, y1) in enumerate(zip(rows, rows[1:], strict=False)):
        s0, s1 = ((y - top) / (W - top) for y in (y0, y1))
        at0, at1 = (far + (near - far) * s for s in (s0, s1))
        for k in range(row % 2, 11, 2):
            tile = [(at0[k], y0), (at0[k + 1], y0), (at1[k + 1], y1), (at1[k], y1)]
            paints.append(Paint(tile, lit(floor, -0.18), 0.5))
    return paints


def _carpet(floor: RGB, top: float) -> list[Paint]:
    return gradient((0, top, W, W), lit(floor, -0.16), lit(floor, 0.16), 14)


def _window(backdrop: Backdrop) -> list[Paint]:
    x, frame = backdrop.decoration_x, lit(mixed(backdrop.wall, (255, 255, 255), 0.6), 0.1)
    paints = [Paint(box(x - 17, 10, x + 18.5, 50.5), SHADE, 0.12), Paint(box(x - 17, 9, x + 17, 49), frame)]
    for x0, x1 in ((x - 14.5, x - 1), (x + 1, x + 14.5)):
        paints += gradient((x0, 11.5, x1, 46), (134, 190, 232), (222, 240, 246), 7)
        paints += [Paint(box(x0, 37, x1, 46), (150, 192, 142)), Paint(box(x0, 41.5, x1, 46), (122, 172, 118))]
        paints.append(Paint([(x0 + 3, 11.5), (x0 + 7, 11.5), (x0 + 1, 37), (x0, 37), (x0, 25)], (255, 255, 255), 0.3))
        paints.append(Paint(box(x0, 11.5, x1, 12.6), SHADE, 0.25))
    return [
        *paints,
        Paint(box(x - 19, 48, x + 19, 51), lit(frame, -0.06)),
        Paint(box(x - 19, 51, x + 19, 52), SHADE, 0.3),
    ]


def _picture(backdrop: Backdrop) -> list[Paint]:
    x = backdrop.decoration_x
    wood = mixed((128, 88, 56), backdrop.wall, 0.3)
    hills = [(x - 10.5, 35), (x - 10.5, 30), (x - 5, 26), (x, 30), (x + 5, 24.5), (x + 10.5, 29), (x + 10.5, 35)]
    return [
        Paint(box(x - 13, 18, x + 15, 40.5), SHADE, 0.16),
        Paint(box(x - 14, 16.5, x + 14, 38.5), wood),
        Paint(box(x - 12, 18.5, x + 12, 36.5), mixed((246, 240, 226), backdrop.wall, 0.3)),
        *gradient((x - 10.5, 20, x + 10.5, 35), (244, 204, 164), (250, 232, 204), 4),
        Paint(ellipse(x + 4, 25, 2.4), (240, 150, 96)),
        Paint(hills, (126, 152, 160)),
        Paint([(x - 10.5, 35), (x - 10.5, 32.5), (x + 2, 30), (x + 10.5, 33), (x + 10.5, 35)], (92, 124, 120)),
    ]


def _shelf(backdrop: Backdrop) -> list[Paint]:
    x, wood = backdrop.decoration_x, mixed((150, 108, 70), backdrop.wall, 0.25)
    paints = [Paint(box(x - 22, 44, x + 22, 47.5), SHADE, 0.16), Paint(box(x - 23, 40, x + 23, 44), wood)]
    paints += [
        Paint(box(x - 23, 40, x + 23, 41), lit(wood, 0.3)),
        Paint(box(x - 23, 43.2, x + 23, 44), lit(wood, -0.2)),
    ]
    left = x - 19
    for k, (width, height) in enumerate(((4.4, 14), (3.6, 12), (4.6, 15), (3.8, 12.5))):
        rgb = mixed(((150, 96, 92), (104, 122, 148), (172, 150, 108), (112, 138, 118))[k], backdrop.wall, 0.4)
        paints += [Paint(box(left, 40 - height, left + width, 40), rgb)]
        paints += [
            Paint(box(left, 40 - height, left + 1.2, 40), lit(rgb, 0.15)),
            Paint(box(left, 29.6, left + width, 31.2), lit(rgb, 0.25), 0.7),
        ]
        left += width + 0.2
    pot = mixed((176, 122, 96), backdrop.wall, 0.2)
    leaves: list[Polygon] = [ellipse(x + 12 + dx, 40 - 8 + dy, 2.2, 4.2) for dx, dy in ((-3, -1), (3, -1), (0, -4))]
    paints += [Paint(leaf, mixed((110, 146, 112), backdrop.wall, 0.2 + 0.1 * k)) for k, leaf in enumerate(leaves)]
    return [*paints, Paint([(x + 8, 33.5), (x + 16, 33.5), (x + 15, 40), (x + 9, 40)], pot)]


Flat = Callable[[RGB, float], list[Paint]]
WALLPAPERS: dict[str, Flat] = {
    "plain": lambda _wall, _bottom: [],
    "stripes": _stripes,
    "panels": _panels,
    "bricks": _bricks,
    "tiles": _tiled,
    "dots": _dots,
}
FLOORINGS: dict[str, Flat] = {"planks": planks, "tiles": chequered, "plain": _carpet}
DECORATIONS: dict[str, Callable[[Backdrop], list[Paint]]] = {
    "window": _window,
    "picture": _picture,
    "shelf": _shelf,
    "none": lambda _backdrop: [],
}
