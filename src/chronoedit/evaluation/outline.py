"""Which kind a seen mask has, and how far it is turned: its overlap with the outlines that the world draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from chronoedit.world.state import KINDS, WORLD_SIZE, Body

KIND_GAIN = 0.06  # overlap (IoU) by which another kind must fit better than the true one
KIND_FIT = 0.72  # overlap below which a mask has no kind at all: true shapes through an autoencoder reach 0.76 and more
ANGLE_GAIN = 0.06  # the same for another angle
# a cube turned by 90° is itself, and a cone turned by 120° nearly so
LARGEST_TURN_DEG = {"ball": 0, "cube": 40, "cone": 50, "cup": 180, "star": 30}


@dataclass(frozen=True, eq=False)
class Outline:
    """A kind's outline at size 1 about its centroid, as convex pieces of half planes.

    A point is inside a piece of normals (2 edges) and offsets (edges) where `point @ normals <= offsets`.
    """

    pieces: tuple[tuple[np.ndarray, np.ndarray], ...]
    area: float

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Which of the points, ... 2, lie within."""
        return np.any([(points @ normals <= offsets).all(axis=-1) for normals, offsets in self.pieces], axis=0)


@cache
def outline(kind: str) -> Outline:
    """The outline of a kind of body."""
    body = Body(id=0, kind=kind, colour="", albedo=(0, 0, 0), x=0.0, y=0.0, size=1.0)
    centre, area = _centre_and_area(body)
    corners = np.asarray(body.outline()) - centre
    if kind != "star":
        return Outline((_half_planes(corners),), area)
    points = range(0, len(corners), 2)
    kites = [np.stack([np.zeros(2), corners[k - 1], corners[k], corners[k + 1]]) for k in points]
    return Outline(tuple(_half_planes(kite) for kite in kites), area)


def _half_planes(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The half planes between which a convex polygon lies."""
    edges = np.roll(corners, -1, axis=0) - corners
    normals = np.stack([edges[:, 1], -edges[:, 0]])
    return normals, (corners * normals.T).sum(axis=1)


def covers(body: Body, size: int) -> np.ndarray:
    """Pixels of a size × size picture whose centres lie within the body's outline: bool size size."""
    shape, scale = outline(body.kind), size / WORLD_SIZE
    centre = _centre_and_area(body)[0]
    ys, xs = np.indices((size, size))
    x, y = (xs + 0.5) / scale - centre[0], (ys + 0.5) / scale - centre[1]
    cos, sin = math.cos(body.angle), math.sin(body.angle)
    local = np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1) / body.size
    return shape.inside(local)


def _centre_and_area(body: Body) -> tuple[np.ndarray, float]:
    """Centroid (2) and area of a body's outline, by the shoelace formula."""
    points = np.asarray(body.outline())
    ahead = np.roll(points, -1, axis=0)
    cross = points[:, 0] * ahead[:, 1] - ahead[:, 0] * points[:, 1]
    return ((points + ahead) * cross[:, None]).sum(axis=0) / (3 * cross.sum()), abs(float(cross.sum())) / 2


@dataclass(frozen=True, eq=False)
class SeenShape:
    """A seen mask, cut out around its body, for comparison with outlines."""

    points: np.ndarray  # n 2, px from where the centroid of the body's outline must be
    mask: np.ndarray  # n
    area_px: float  # of the whole outline, were nothing hidden

    def fits(self, kind: str, angles: Sequence[float]) -> np.ndarray:
        """IoU of the mask with a kind's outline of the same area, at each angle in radians."""
        shape = outline(kind)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        x, y = self.points.T / math.sqrt(self.area_px / shape.area)
        local = np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)  # angles n 2
        inside = shape.inside(local)  # angles n
        return (inside & self.mask).sum(axis=1) / np.maximum((inside | self.mask).sum(axis=1), 1)


def seen_shape(mask: np.ndarray, seen: Body, hidden: np.ndarray, area_ratio: float) -> SeenShape:
    """The part of `mask` (bool H W) around the body `seen`, without the pixels `hidden`.

    `area_ratio` is the mask's area over that of the true body where it can be seen.
    """
    scale = mask.shape[0] / WORLD_SIZE
    centre = _centre_and_area(seen)[0] * scale
    ys, xs = np.indices(mask.shape)
    x, y = xs + 0.5 - centre[0], ys + 0.5 - centre[1]
    near = (np.hypot(x, y) < 2.5 * seen.size * scale) & ~hidden
    area_px = outline(seen.kind).area * (seen.size * scale) ** 2 * area_ratio
    return SeenShape(np.stack([x[near], y[near]], axis=-1), mask[near], area_px)


def best_kind(shape: SeenShape, body: Body, kinds: Sequence[str] = KINDS) -> str | None:
    """The kind whose outline fits best, the body's own where it is close to a draw; None when none fits."""
    fits = {kind: float(shape.fits(kind, [body.angle])[0]) for kind in kinds}
    best = max(kinds, key=lambda kind: fits[kind] + KIND_GAIN * (kind == body.kind))
    return best if fits[best] >= KIND_FIT else None


def angle_error(shape: SeenShape, body: Body) -> float:
    """The turn in radians, in steps of 10°, whose outline fits clearly better than the true one; 0 when none does."""
    limit = LARGEST_TURN_DEG[body.kind]
    turns = sorted(range(-limit, limit + 1, 10), key=abs)
    fits = shape.fits(body.kind, [body.angle + math.radians(turn) for turn in turns])
    best = int(fits.argmax())
    return math.radians(abs(turns[best])) if fits[best] > fits[0] + ANGLE_GAIN else 0.0
