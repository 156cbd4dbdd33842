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
    return _laid(wall, bottom, 11.0, 11.0, 0.0)


def _metro(wall: RGB, bottom: float) -> list[Paint]:
    return _laid(wall, bottom, 16.0, 7.5, 0.5)


def _laid(wall: RGB, bottom: float, width: float, height: float, shift: float) -> list[Paint]:
    """Glazed tiles in rows, every other row moved by a share of a tile; a few are a little darker."""
    paints = [Paint(box(0, 0, W, bottom), lit(wall, -0.17))]
    rows = int(bottom / height) + 1
    for row in range(rows):
        y1 = bottom - row * height
        y0 = y1 - height
        for number, x in enumerate(np.arange(-width * (1 + shift * (row % 2)), W, width)):
            shade = 0.05 + 0.045 * ((row * 5 + number * 7 + row * number) % 3)
            paints.append(Paint(box(x + 0.35, y0 + 0.35, x + width - 0.35, y1 - 0.35), lit(wall, shade)))
            shine = [(x + 1.4, y0 + 1.3), (x + 0.36 * width, y0 + 1.3), (x + 1.4, y0 + 0.42 * height)]
            paints.append(Paint(shine, (255, 255, 255), 0.28))
    return paints


def _diamonds(wall: RGB, bottom: float) -> list[Paint]:
    """Square tiles with small dark ones at their corners."""
    paints = _laid(wall, bottom, 14.0, 14.0, 0.0)
    for row in range(int(bottom / 14.0) + 2):
        for x in np.arange(-14.0, W + 14, 14.0):
            y = bottom - row * 14.0
            paints.append(Paint([(x - 2, y), (x, y - 2), (x + 2, y), (x, y + 2)], lit(wall, -0.4)))
    return [paint for paint in paints if min(y for _, y in paint.polygon) < bottom]


def _upper_wall(wall: RGB) -> list[Paint]:
    """Plaster above the tiles, with a border."""
    plaster = lit(mixed(wall, (255, 250, 240), 0.45), 0.05)
    return [
        *gradient((0, 0, W, 15), lit(plaster, 0.05), lit(plaster, -0.06), 5),
        Paint(box(0, 15, W, 17.4), lit(wall, -0.32)),
        Paint(box(0, 15, W, 15.7), lit(wall, 0.2)),
        Paint(box(0, 17.4, W, 18.4), SHADE, 0.16),
    ]


def _window(backdrop: Backdrop) -> list[Paint]:
    """A window with a gathered curtain and a herb on its sill."""
    x, y0, y1 = backdrop.decoration_x, 5.0, 47.0
    zenith, haze, _, _ = HOURS[backdrop.detail("hour", "noon")]
    frame: RGB = (250, 246, 238)
    paints = [Paint(box(x - 20, y0 - 1, x + 21.4, y1 + 2), SHADE, 0.16), Paint(box(x - 20, y0 - 2, x + 20, y1), frame)]
    for x0, x1 in ((x - 17.6, x - 1), (x + 1, x + 17.6)):
        paints += gradient((x0, y0, x1, y1 - 3), zenith, haze, 8)
        paints.append(
            Paint(
                [(x0, 38), (x0 + 5, 34.5), (x0 + 11, 37), (x1, 33.5), (x1, y1 - 3), (x0, y1 - 3)],
                mixed((112, 158, 116), haze, 0.25),
            )
        )
        paints.append(Paint([(x0 + 3, y0), (x0 + 7, y0), (x0 + 1, 34), (x0, 34), (x0, 20)], (255, 255, 255), 0.22))
    cloth = mixed((224, 96, 84), backdrop.wall, 0.35)
    for k in range(10):
        left = x - 20 + 4 * k
        paints.append(
            Paint(
                [(left, y0 - 2), (left + 4, y0 - 2), (left + 4, 12), *arc(left + 2, 12, 2, 2.2, 0, 180, 6)],
                lit(cloth, 0.3 if k % 2 else 0.0),
            )
        )
    pot = mixed((186, 108, 76), backdrop.wall, 0.15)
    herb = [
        Paint(ellipse(x + 9 + dx, y1 - 9 + dy, 2.4, 2.1, 12), lit((92, 140, 82), s))
        for dx, dy, s in ((-3, 1, -0.2), (3, 1, -0.1), (0, -1.4, 0.1), (-1, 1.6, 0.0), (1.6, 2, -0.2))
    ]
    return [
        *paints,
        *herb,
        Paint([(x + 5.4, y1 - 6.4), (x + 12.6, y1 - 6.4), (x + 11.6, y1), (x + 6.4, y1)], pot),
        Paint(box(x + 5, y1 - 7, x + 13, y1 - 5.4), lit(pot, 0.2)),
        Paint(box(x - 22, y1, x + 22, y1 + 2.6), lit(frame, -0.04)),
        Paint(box(x - 22, y1 + 2.6, x + 22, y1 + 3.8), SHADE, 0.24),
    ]


def _shelf(backdrop: Backdrop) -> list[Paint]:
    """A board on brackets, with plates, cups and a plant; all of it paler than what stands on the counter."""
    x, y = backdrop.decoration_x, 38.0
    wood = mixed((156, 112, 72), backdrop.wall, 0.3)
    paints = [Paint(box(x - 27, y + 2.6, x + 28.6, y + 6), SHADE, 0.15)]
    paints += [
        Paint([(a, y + 2), (a + 1.8, y + 2), (a + 1.8, y + 8), (a, y + 4)], lit(wood, -0.35)) for a in (x - 21, x + 19)
    ]
    for k, dx in enumerate((-21.0, -17.6, -14.2)):
        paints.append(
            Paint(
                ellipse(x + dx, y - 6.6, 3.4, 6.6, 20),
                lit(mixed((236, 232, 222), backdrop.wall, 0.25), -0.16 + 0.1 * k),
            )
        )
    for k, (dx, tone) in enumerate(((-5.0, (186, 116, 104)), (3.2, (112, 140, 164)))):
        cup = mixed(tone, backdrop.wall, 0.42)
        paints.append(Paint(stroke(arc(x + dx + 3.2, y - 3.6, 1.9, 1.9, -90, 90, 8), 0.9), lit(cup, -0.2)))
        paints += [
            Paint(rounded(x + dx - 3, y - 7, x + dx + 3, y, 1.0), cup),
            Paint(box(x + dx - 2.6, y - 6.6, x + dx - 1.4, y - 0.8), lit(cup, 0.35), 0.8),
        ]
        paints.append(Paint(box(x + dx - 3, y - 4.4 - k, x + dx + 3, y - 3.6 - k), lit(cup, 0.3), 0.7))
    leaves = [
        Paint(ellipse(x + 16 + dx, y - 9 + dy, rx, ry, 14), mixed((104, 146, 104), backdrop.wall, 0.25 + 0.1 * k))
        for k, (dx, dy, rx, ry) in enumerate(((-4, 0, 2, 4), (4, 0, 2, 4), (0, -2.4, 2.2, 4.4)))
    ]
    pot = mixed((190, 132, 100), backdrop.wall, 0.3)
    return [
        *paints,
        *leaves,
        Paint([(x + 11.6, y - 6.6), (x + 20.4, y - 6.6), (x + 19, y), (x + 13, y)], pot),
        Paint(box(x - 28, y, x + 28, y + 2.6), wood),
        Paint(box(x - 28, y, x + 28, y + 0.8), lit(wood, 0.35)),
    ]


def _rail(backdrop: Backdrop) -> list[Paint]:
    """A rail from which a ladle, a whisk, a sieve and a spoon hang."""
    x, y = backdrop.decoration_x, 27.0
    steel = mixed((150, 158, 168), backdrop.wall, 0.25)
    paints = [
        Paint(box(x - 27, y + 1.4, x + 28, y + 2.8), SHADE, 0.14),
        Paint(rounded(x - 28, y - 0.9, x + 28, y + 0.9, 0.9), steel),
        Paint(box(x - 27, y - 0.6, x + 27, y - 0.1), lit(steel, 0.5)),
    ]
    for k, dx in enumerate((-20.0, -7.0, 7.0, 20.0)):
        cx = x + dx
        paints.append(Paint(stroke([(cx, y), (cx, y + 3), (cx, y + 13)], 1.3), lit(steel, -0.12)))
        head = (
            [Paint([*arc(cx, y + 14, 4.2, 4.2, 0, 180, 12)], lit(steel, -0.2))],
            [
                Paint(ellipse(cx, y + 17, r, 5, 16), tone)
                for r, tone in (
                    (3.4, lit(steel, -0.25)),
                    (2.4, lit(backdrop.wall, -0.05)),
                    (1.2, lit(steel, -0.2)),
                    (0.5, lit(backdrop.wall, -0.05)),
                )
            ],
            [Paint(ellipse(cx, y + 17, 4.6), lit(steel, -0.25)), Paint(ellipse(cx, y + 17, 3.6), lit(steel, 0.3))],
            [Paint(ellipse(cx, y + 16, 2.6, 4), mixed((170, 122, 80), backdrop.wall, 0.3))],
        )[k]
        paints += head
    return paints


def _beams(backdrop: Backdrop, edge: float) -> list[Paint]:
    """Light that falls in slantwise from its side, in two soft bands."""
    side = 1.0 if backdrop.light >= 0 else -1.0
    _, _, glint, much = HOURS[backdrop.detail("hour", "noon")]

    def at(u: float) -> float:
        return 64 + side * u

    paints = [
        Paint([(at(a), 0), (at(b), 0), (at(b - 62), edge), (at(a - 62), edge)], glint, 0.3 * much + 0.05)
        for a, b in ((46, 64), (70, 80), (30, 38))
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
    paints += [Paint(box(0, top, W, top + 1.1), SHADE, 0.26), Paint(box(0, top + 1.1, W, top + 2.6), SHADE, 0.12)]
    if front < W:
        door = mixed(lit(backdrop.wall, -0.1), rgb, 0.25)
        paints += [
            Paint(box(0, front, W, front + 4.5), lit(rgb, -0.25)),
            Paint(box(0, front, W, front + 0.8), lit(rgb, 0.4)),
            Paint(box(0, front + 4.5, W, W), door),
            Paint(box(0, front + 4.5, W, front + 6.5), SHADE, 0.3),
            *(Paint(box(x, front + 4.5, x + 0.8, W), SHADE, 0.3) for x in (30.0, 62.0, 94.0)),
        ]
    return paints


def _planks(rgb: RGB, top: float, bottom: float) -> list[Paint]:
    """Long boards with grain, that run along the counter."""
    paints = []
    edges = [top + (bottom - top) * (k / 4) ** 1.3 for k in range(5)]
    for k, (y0, y1) in enumerate(zip(edges, edges[1:], strict=False)):
        paints.append(Paint(box(0, y0, W, y1), lit(rgb, (-0.06, 0.08, -0.02, 0.1)[k]), 0.6))
        paints.append(Paint(box(0, y1 - 0.4, W, y1), lit(rgb, -0.5), 0.6))
        joint = (37 * k + 23) % 128
        paints.append(Paint(box(joint, y0, joint + 0.6, y1), lit(rgb, -0.45), 0.6))
        for j in range(5):
            x, y = (j * 31 + k * 17) % 118, y0 + (y1 - y0) * (0.25 + 0.13 * ((j * 2 + k) % 5))
            grain = [(x, y), (x + 8, y - 0.3), (x + 17, y + 0.15), (x + 26, y)]
            paints.append(Paint(stroke(grain, 0.5, 0.2), lit(rgb, -0.34), 0.5))
    return paints


def _butcher(rgb: RGB, top: float, bottom: float) -> list[Paint]:
    """Short staves glued side by side."""
    paints = []
    edges = np.linspace(top, bottom, 6)
    for row, (y0, y1) in enumerate(zip(edges, edges[1:], strict=False)):
        for number, x in enumerate(np.arange(-26.0 + 9 * (row % 3), W, 26.0)):
            shade = (-0.16, 0.06, 0.16, -0.05)[(row * 3 + number * 5) % 4]
            paints.append(Paint(box(x, y0, x + 26, y1), lit(rgb, shade), 0.7))
            paints.append(
                Paint(
                    stroke([(x + 2, (y0 + y1) / 2), (x + 14, (y0 + y1) / 2 - 0.4), (x + 24, (y0 + y1) / 2)], 0.4, 0.2),
                    lit(rgb, -0.35),
                    0.45,
                )
            )
            paints.append(Paint(box(x, y0, x + 0.4, y1), lit(rgb, -0.45), 0.5))
    return paints


def _stone(rgb: RGB, top: float, bottom: float) -> list[Paint]:
    """Polished stone with specks."""
    pale = mixed(rgb, (206, 206, 208), 0.6)
    paints = gradient((0, top, W, bottom), lit(pale, -0.16), lit(pale, 0.2), 8)
    for k in range(90):
        x, y = (k * 47.3) % W, top + 2 + (k * 13.7) % (bottom - top - 2)
        paints.append(Paint(ellipse(x, y, 0.5 + 0.2 * (k % 3), 0.35, 6), lit(pale, -0.4 if k % 3 else 0.5), 0.5))
    return [*paints, Paint([(14, top), (44, top), (20, bottom), (-20, bottom)], (255, 255, 255), 0.14)]


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
