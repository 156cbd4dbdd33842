"""Outdoors: sky, clouds, hills and grass. The parts serve other places too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..drawing import Paint, glow, gradient
from ..geometry import ellipse
from ..palette import RGB, lit, mixed
from .base import DEPTH_PX, W

if TYPE_CHECKING:
    from ..state import Backdrop


def sky(top: float, bottom: float, zenith: RGB, haze: RGB) -> list[Paint]:
    """The open sky between two heights, lighter towards the horizon."""
    return gradient((0, top, W, bottom), zenith, haze, 16)


def cloud(x: float, y: float, width: float, rgb: RGB = (255, 255, 255), alpha: float = 0.85) -> list[Paint]:
    """A cloud about (x, y): puffs on a flat foot."""
    puffs = ((-0.3, 0.0, 0.2), (-0.08, -0.1, 0.27), (0.2, -0.02, 0.22))
    foot = ellipse(x, y + 0.08 * width, 0.5 * width, 0.11 * width)
    return [
        Paint(foot, rgb, alpha),
        *(Paint(ellipse(x + a * width, y + b * width, r * width), rgb, alpha) for a, b, r in puffs),
    ]


def hills(y: float, height: float, rgb: RGB, phase: float = 0.0) -> list[Paint]:
    """A row of round hills whose feet stand at `y`."""
    crest = [
        (float(x), y - height * (0.6 + 0.4 * math.sin(x / 19 + phase) * math.cos(x / 47 + 2 * phase)))
        for x in np.linspace(0, W, 33)
    ]
    return [Paint([(0.0, y), *crest, (W, y)], rgb)]


def meadow(backdrop: Backdrop) -> list[Paint]:
    """Sky, hills and grass: a place outdoors for any scene."""
    edge = backdrop.floor_y - DEPTH_PX
    grass: RGB = mixed((128, 176, 92), backdrop.floor, 0.15)
    x = backdrop.decoration_x
    blades = [
        Paint([(u, v), (u + 1.4, v - 4.4), (u + 2.8, v)], lit(grass, -0.16), 0.6)
        for k in range(12)
        for u, v in [((k * 37.7 + x) % W, edge + 4 + (k * 11.3) % (W - edge))]
    ]
    return [
        *sky(0, edge, (112, 176, 232), (226, 240, 244)),
        *glow(64 + 48 * (1 if backdrop.light >= 0 else -1), 16, 16, 16, (255, 244, 190), 0.8),
        *cloud(x, 24, 34),
        *cloud((x + 60) % W, 40, 24, alpha=0.7),
        *hills(edge, 22, (150, 190, 170), x),
        *hills(edge, 13, (134, 180, 128), x / 2),
        *gradient((0, edge, W, W), lit(grass, -0.06), lit(grass, 0.14), 8),
        *blades,
    ]
