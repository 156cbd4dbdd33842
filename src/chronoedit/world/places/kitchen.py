"""A kitchen: tiles above a counter of wood or stone; a window, a shelf or hanging tools; some hour of the day."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..drawing import Paint, glow, gradient
from ..geometry import arc, box, ellipse, rounded, stroke
from ..palette import RGB, SHADE, lit, mixed
from .base import DEPTH_PX, W

if TYPE_CHECKING:
    from ..state import Backdrop

HOURS: dict[str, tuple[RGB, RGB, RGB, float]] = {  # zenith, haze, light on the wall, how much of it
    "morning": ((150, 196, 236), (252, 232, 204), (255, 238, 200), 0.2),
    "noon": ((120, 184, 236), (226, 242, 248), (255, 255, 248), 0.1),
    "evening": ((214, 134, 116), (252, 206, 142), (250, 186, 120), 0.2),
}
TILE_STYLES = ("square", "metro", "diamonds")
COUNTER_STYLES = ("planks", "butcher", "stone")
FRONT_PX = 17.0  # below the line on which things stand, the counter's front edge


def kitchen(backdrop: Backdrop) -> list[Paint]:
    """The wall with what hangs there, the light that falls in, and the counter."""
    edge = backdrop.floor_y - DEPTH_PX
    _, _, glint, much = HOURS[backdrop.detail("hour", "noon")]
    wall = mixed(backdrop.wall, glint, much)
    tiles = TILINGS[backdrop.detail("tiles", "square")](wall, edge)
    things = HANGINGS[backdrop.decoration](backdrop)
    return [
        *gradient((0, 0, W, edge), lit(wall, 0.06), lit(wall, -0.1)),
        *tiles,
        *_upper_wall(wall),
        *things,
        *_beams(backdrop, edge),
        *_counter(backdrop, edge),
    ]


def _square(wall: RGB, bottom: float) -> list[Paint]:
    return _laid(wall, bottom, 21.4, 20.0, 0.0)


def _metro(wall: RGB, bottom: float) -> list[Paint]:
    return _laid(wall, bottom, 32.0, 14.0, 0.5)


def _laid(wall: RGB, bottom: float, width: float, height: float, shift: float) -> list[Paint]:
    """Large glazed tiles in rows, every other row moved by a share of a tile; a few are a little darker."""
    paints = [Paint(box(0, 0, W, bottom), lit(wall, -0.05))]
    rows = int(bottom / height) + 1
    for row in range(rows):
        y1 = bottom - row * height
        y0 = y1 - height
        for number, x in enumerate(np.arange(-width * (1 + shift * (row % 2)), W, width)):
            shade = 0.05 + 0.03 * ((row * 5 + number * 7 + row * number) % 3)
            paints.append(Paint(box(x + 0.8, y0 + 0.8, x + width - 0.8, y1 - 0.8), lit(wall, shade)))
            shine = [(x + 2.4, y0 + 2.4), (x + 0.36 * width, y0 + 2.4), (x + 2.4, y0 + 0.48 * height)]
            paints.append(Paint(shine, (255, 255, 255), 0.12))
    return paints


def _diamonds(wall: RGB, bottom: float) -> list[Paint]:
    """Square tiles with small darker ones at their corners."""
    side = 25.6
    paints = _laid(wall, bottom, side, side, 0.0)
    for row in range(int(bottom / side) + 2):
        for x in np.arange(-side, W + side, side):
            y = bottom - row * side
            paints.append(Paint([(x - 4, y), (x, y - 4), (x + 4, y), (x, y + 4)], lit(wall, -0.16)))
    return [paint for paint in paints if min(y for _, y in paint.polygon) < bottom]


def _upper_wall(wall: RGB) -> list[Paint]:
    """Plaster above the tiles, with a border."""
    plaster = lit(mixed(wall, (255, 250, 240), 0.45), 0.05)
    return [
        *gradient((0, 0, W, 15), lit(plaster, 0.05), lit(plaster, -0.06), 5),
        Paint(box(0, 15, W, 18), lit(wall, -0.14)),
    ]


def _window(backdrop: Backdrop) -> list[Paint]:
    """A window with a gathered curtain and a herb on its sill."""
    x, y0, y1 = backdrop.decoration_x, 5.0, 50.0
    zenith, haze, _, _ = HOURS[backdrop.detail("hour", "noon")]
    frame = mixed((250, 246, 238), backdrop.wall, 0.25)
    paints = [Paint(box(x - 23, y0 - 1, x + 24.6, y1 + 2), SHADE, 0.1), Paint(box(x - 23, y0 - 2, x + 23, y1), frame)]
    for x0, x1 in ((x - 20, x - 1.4), (x + 1.4, x + 20)):
        paints += gradient((x0, y0, x1, y1 - 3), zenith, haze, 8)
        hill = [(x0, 40), (x0 + 6, 37), (x0 + 12, 38.5), (x1, 36), (x1, y1 - 3), (x0, y1 - 3)]
        paints.append(Paint(hill, mixed((130, 172, 132), haze, 0.3)))
    cloth = mixed((224, 124, 110), backdrop.wall, 0.4)
    for k in range(5):
        left = x - 23 + 9.2 * k
        hem = arc(left + 4.6, 13, 4.6, 3, 0, 180, 8)
        paints.append(Paint([(left, y0 - 2), (left + 9.2, y0 - 2), *hem], lit(cloth, 0.16 if k % 2 else 0.0)))
    pot = mixed((186, 118, 88), backdrop.wall, 0.2)
    herb = [
        Paint(ellipse(x + 10 + dx, y1 - 12 + dy, 4.2, 3.8, 14), lit(mixed((104, 152, 96), haze, 0.2), s))
        for dx, dy, s in ((-3.6, 1.4, -0.1), (3.6, 1.4, -0.05), (0, -1.6, 0.06))
    ]
    return [
        *paints,
        *herb,
        Paint([(x + 4.6, y1 - 9), (x + 15.4, y1 - 9), (x + 13.8, y1), (x + 6.2, y1)], pot),
        Paint(box(x - 25, y1, x + 25, y1 + 3), lit(frame, -0.04)),
        Paint(box(x - 25, y1 + 3, x + 25, y1 + 4.6), SHADE, 0.14),
    ]


def _shelf(backdrop: Backdrop) -> list[Paint]:
    """A board on brackets, with plates, a cup and a plant; all of it paler than what stands on the counter."""
    x, y = backdrop.decoration_x, 42.0
    wood = mixed((156, 112, 72), backdrop.wall, 0.4)
    paints = [Paint(box(x - 27, y + 3, x + 28.6, y + 6.4), SHADE, 0.1)]
    paints += [
        Paint([(a, y + 2), (a + 2.6, y + 2), (a + 2.6, y + 9), (a, y + 5)], lit(wood, -0.2)) for a in (x - 21, x + 19)
    ]
    china = mixed((236, 232, 222), backdrop.wall, 0.3)
    paints += [
        Paint(ellipse(x + dx, y - 8.6, 5.2, 8.6, 20), lit(china, shade)) for dx, shade in ((-19, -0.12), (-14, -0.02))
    ]
    cup = mixed((150, 128, 136), backdrop.wall, 0.45)
    paints += [
        Paint(stroke(arc(x + 4.6, y - 5, 2.6, 2.6, -90, 90, 8), 1.7), lit(cup, -0.12)),
        Paint(rounded(x - 4.6, y - 9.6, x + 4.6, y, 1.6), cup),
        Paint(rounded(x - 4.6, y - 9.6, x - 1.6, y, 1.4), lit(cup, 0.14)),
    ]
    leaves = [
        Paint(ellipse(x + 17 + dx, y - 12 + dy, rx, ry, 14), mixed((118, 158, 116), backdrop.wall, 0.36 + 0.06 * k))
        for k, (dx, dy, rx, ry) in enumerate(((-5, 0, 3.2, 5.6), (5, 0, 3.2, 5.6), (0, -2.6, 3.4, 6)))
    ]
    pot = mixed((190, 132, 100), backdrop.wall, 0.35)
    return [
        *paints,
        *leaves,
        Paint([(x + 11, y - 8.6), (x + 23, y - 8.6), (x + 21.4, y), (x + 12.6, y)], pot),
        Paint(box(x - 28, y, x + 28, y + 3), wood),
    ]


def _rail(backdrop: Backdrop) -> list[Paint]:
    """A rail from which a ladle, a sieve and a spoon hang."""
    x, y = backdrop.decoration_x, 26.0
    steel = mixed((150, 158, 168), backdrop.wall, 0.36)
    paints = [
        Paint(box(x - 27, y + 2, x + 28, y + 4), SHADE, 0.08),
        Paint(rounded(x - 28, y - 1.3, x + 28, y + 1.3, 1.3), steel),
    ]
    for k, dx in enumerate((-18.0, 0.0, 18.0)):
        cx = x + dx
        paints.append(Paint(stroke([(cx, y), (cx, y + 3), (cx, y + 15)], 2.4), lit(steel, -0.06)))
        paints += (
            [Paint([*arc(cx, y + 16, 6.4, 6.4, 0, 180, 14)], lit(steel, -0.12))],
            [Paint(ellipse(cx, y + 20, 6.6), lit(steel, -0.14)), Paint(ellipse(cx, y + 20, 4.8), lit(steel, 0.14))],
            [Paint(ellipse(cx, y + 19, 4.2, 6), mixed((170, 122, 80), backdrop.wall, 0.4))],
        )[k]
    return paints


def _beams(backdrop: Backdrop, edge: float) -> list[Paint]:
    """Light that falls in slantwise from its side, in two broad bands."""
    side = 1.0 if backdrop.light >= 0 else -1.0
    _, _, glint, much = HOURS[backdrop.detail("hour", "noon")]

    def at(u: float) -> float:
        return 64 + side * u

    paints = [
        Paint([(at(a), 0), (at(b), 0), (at(b - 62), edge), (at(a - 62), edge)], glint, 0.3 * much + 0.05)
        for a, b in ((40, 60), (68, 82))
    ]
    return [*paints, *glow(at(58), edge * 0.4, 46, 52, glint, 0.4 * much + 0.06)]


def counter_rgb(backdrop: Backdrop) -> RGB:
    """The colour of the counter's top."""
    stone = backdrop.detail("counter", "planks") == "stone"
    return mixed(backdrop.floor, (206, 206, 208), 0.6) if stone else backdrop.floor


def _counter(backdrop: Backdrop, top: float) -> list[Paint]:
    """The counter's top, its front edge and the cupboard below."""
    rgb, front = backdrop.floor, backdrop.floor_y + FRONT_PX
    style = backdrop.detail("counter", "planks")
    paints = [*gradient((0, top, W, front), lit(rgb, -0.12), lit(rgb, 0.16), 8), *COUNTERS[style](rgb, top, front)]
    paints.append(Paint(box(0, top, W, top + 2.4), SHADE, 0.14))
    if front < W:
        door = mixed(lit(backdrop.wall, -0.1), rgb, 0.25)
        paints += [
            Paint(box(0, front + 4.5, W, W), door),
            Paint(box(0, front, W, front + 4.5), lit(rgb, -0.14)),
            Paint(box(0, front + 4.5, W, front + 6.5), SHADE, 0.16),
            Paint(box(63.2, front + 6.5, 64.8, W), SHADE, 0.16),
        ]
    return paints


def _planks(rgb: RGB, top: float, bottom: float) -> list[Paint]:
    """Three long boards that run along the counter."""
    paints = []
    edges = [top + (bottom - top) * (k / 3) ** 1.3 for k in range(4)]
    for k, (y0, y1) in enumerate(zip(edges, edges[1:], strict=False)):
        paints.append(Paint(box(0, y0, W, y1), lit(rgb, (-0.05, 0.06, -0.02)[k]), 0.6))
        paints.append(Paint(box(0, y1 - 1.2, W, y1), lit(rgb, -0.2), 0.5))
        joint = (37 * k + 23) % 128
        paints.append(Paint(box(joint, y0, joint + 1.6, y1), lit(rgb, -0.2), 0.5))
    return paints


def _butcher(rgb: RGB, top: float, bottom: float) -> list[Paint]:
    """Staves glued side by side."""
    paints = []
    edges = np.linspace(top, bottom, 4)
    for row, (y0, y1) in enumerate(zip(edges, edges[1:], strict=False)):
        for number, x in enumerate(np.arange(-42.0 + 14 * row, W, 42.0)):
            shade = (-0.08, 0.04, 0.1, -0.02)[(row * 3 + number * 5) % 4]
            paints.append(Paint(box(x, y0, x + 42, y1), lit(rgb, shade), 0.7))
    return paints


def _stone(rgb: RGB, top: float, bottom: float) -> list[Paint]:
    """Polished stone with a few pale clouds."""
    pale = mixed(rgb, (206, 206, 208), 0.6)
    paints = gradient((0, top, W, bottom), lit(pale, -0.12), lit(pale, 0.16), 8)
    for k in range(9):
        x, y = (k * 47.3) % W, top + 4 + (k * 13.7) % (bottom - top - 8)
        paints.append(Paint(ellipse(x, y, 7 + 2 * (k % 3), 1.6, 16), lit(pale, -0.12 if k % 3 else 0.3), 0.5))
    return [*paints, Paint([(14, top), (44, top), (20, bottom), (-20, bottom)], (255, 255, 255), 0.12)]


TILINGS: dict[str, Callable[[RGB, float], list[Paint]]] = {"square": _square, "metro": _metro, "diamonds": _diamonds}
COUNTERS: dict[str, Callable[[RGB, float, float], list[Paint]]] = {
    "planks": _planks,
    "butcher": _butcher,
    "stone": _stone,
}
HANGINGS: dict[str, Callable[[Backdrop], list[Paint]]] = {
    "window": _window,
    "shelf": _shelf,
    "rail": _rail,
    "none": lambda _backdrop: [],
}
