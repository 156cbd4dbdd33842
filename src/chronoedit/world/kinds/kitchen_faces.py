"""What the cut faces of vegetables and fruit show, in a disc of radius 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..drawing import Paint
from ..geometry import arc, ellipse
from ..palette import RGB, lit, mixed

SEED: RGB = (246, 232, 176)

FacePattern = Callable[[RGB], list[Paint]]


def _seeds(spots: Sequence[tuple[float, float]], rgb: RGB = SEED, size: float = 0.1) -> list[Paint]:
    return [Paint(ellipse(u, v, size * 1.25, size, 10), rgb) for u, v in spots]


def hollow_face(rgb: RGB) -> list[Paint]:
    """Walls about a hollow, with a core of a few seeds."""
    spots = [(0.3 * math.cos(2.1 * k), 0.44 * math.sin(1.3 * k + 0.4)) for k in range(4)]
    return [
        Paint(ellipse(0, 0, 0.78), lit(rgb, 0.55)),
        Paint(ellipse(0, 0, 0.66), mixed(lit(rgb, -0.1), (250, 240, 200), 0.35)),
        Paint(ellipse(0, 0, 0.36, 0.46), (244, 240, 206)),
        *_seeds(spots, (222, 192, 118), 0.15),
    ]


def juicy_face(rgb: RGB) -> list[Paint]:
    """Chambers with a seed each between fleshy walls."""
    pockets = [ellipse(0.5 * math.cos(a), 0.5 * math.sin(a), 0.26, 0.24, 14) for a in (0.5, 2.6, 4.7)]
    spots = [(0.5 * math.cos(a), 0.5 * math.sin(a)) for a in (0.5, 2.6, 4.7)]
    return [
        Paint(ellipse(0, 0, 0.84), lit(rgb, 0.34)),
        *(Paint(p, lit(rgb, -0.2)) for p in pockets),
        *_seeds(spots, size=0.12),
    ]


def ringed_face(rgb: RGB) -> list[Paint]:
    """Skins about each other, coloured and pale."""
    pale = mixed(rgb, (255, 252, 244), 0.78)
    radii = (0.88, 0.6, 0.3)
    return [Paint(ellipse(0, 0, r), pale if k % 2 == 0 else mixed(rgb, pale, 0.5)) for k, r in enumerate(radii)]


def segmented_face(rgb: RGB) -> list[Paint]:
    """Wedges of juice in a pale peel."""
    paints = [Paint(ellipse(0, 0, 0.9), (252, 246, 214))]
    for k in range(6):
        a, b = (2 * math.pi * (k + share) / 6 for share in (0.1, 0.9))
        wedge = [
            (0.08 * math.cos((a + b) / 2), 0.08 * math.sin((a + b) / 2)),
            *arc(0, 0, 0.8, 0.8, math.degrees(a), math.degrees(b), 6),
        ]
        paints.append(Paint(wedge, lit(rgb, 0.12)))
    return paints


def cored_face(rgb: RGB) -> list[Paint]:
    """A lighter core."""
    return [
        Paint(ellipse(0, 0, 0.86), lit(rgb, 0.36)),
        Paint(ellipse(0, 0, 0.44), mixed(rgb, (255, 226, 130), 0.6)),
        Paint(ellipse(0, 0, 0.14), lit(rgb, 0.1)),
    ]


def apple_face(_rgb: RGB) -> list[Paint]:
    """White flesh, and pips in its middle."""
    return [
        Paint(ellipse(0, 0, 0.9), (252, 244, 214)),
        Paint(ellipse(0, 0, 0.36, 0.42), (236, 218, 160)),
        *_seeds([(-0.18, 0), (0.2, 0)], (116, 78, 50), 0.14),
    ]


def pale_face(spots: Sequence[tuple[float, float]], flesh: RGB) -> FacePattern:
    """Flesh with seeds at the spots."""
    return lambda rgb: [
        Paint(ellipse(0, 0, 0.86), mixed(flesh, rgb, 0.12)),
        Paint(ellipse(0, 0, 0.56), mixed(lit(flesh, -0.12), rgb, 0.12)),
        *_seeds(spots, (250, 244, 206), 0.13),
    ]


RING = tuple((0.36 * math.cos(k * 1.57), 0.36 * math.sin(k * 1.57)) for k in range(4))
