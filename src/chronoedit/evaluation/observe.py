"""Finding the things of a known scene in a picture: where each body and the arm are, and what else is there.

Each pixel is given the nearest of the scene's colours (its backdrop, arm, ropes, bodies, and the world's palette);
bodies are the large pieces of their own colour. The truth says what to look for; where it is comes from the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from chronoedit.world.render import ARM_DARK, ARM_LIGHT, ROPE, id_mask, render
from chronoedit.world.state import ARM_ID, COLOURS, KINDS, WORLD_SIZE, Arm, Body, State

from .colour import colour_lab, delta_e, srgb_to_lab
from .morphology import best_shift, centroid, components, dilate, erode, opened

COLOUR_REACH_DE = 45.0  # a pixel further than this from every colour of the scene belongs to none
PIECE_SHARE = 0.25  # of the (smallest) expected area: smaller pieces are taken for blur and noise
ARM_SHARE = 0.5  # of the arm's outline that must be seen
ANGLE_GAIN = 0.04  # overlap by which a turned outline must fit better than the true one
KIND_GAIN = 0.05  # the same for another kind's outline

_BACKDROP, _ARM, _NOTHING = -1, -2, -3  # labels of pixels besides the index of a palette colour


@dataclass(frozen=True, kw_only=True, eq=False)
class Sighting:
    """One expected body as it is seen: `body` is the true one moved to where it was found (world px)."""

    body: Body
    mask: np.ndarray  # bool H W
    position_error: float  # radii
    angle_error: float  # radians
    area_ratio: float  # seen area / true visible area
    delta_e: float  # of its inner pixels' median colour to its albedo
    kind: str  # whose outline fits best


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """What a picture shows of a scene: bodies by id, pieces that should not be there, and the arm."""

    truth: State
    bodies: dict[int, Sighting]
    surplus: int
    arm: Arm | None
    arm_error_px: float  # world px; infinite when an expected arm is not seen
    explained: np.ndarray  # bool H W: within 2 px of a thing that was found
    lab: np.ndarray  # the picture, H W 3
    backdrop_lab: np.ndarray  # the empty scene, H W 3

    @property
    def state(self) -> State:
        """The scene as seen, for the checks of physics."""
        bodies = tuple(self.bodies[b.id].body for b in self.truth.bodies if b.id in self.bodies)
        return replace(self.truth, bodies=bodies, arm=self.arm)


def observe(picture: np.ndarray, truth: State) -> Observation:
    """Look for the things of `truth` in a picture, uint8 size size 3.

    Raises ValueError when the picture is not square uint8 RGB.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.shape[0] != picture.shape[1]:
        raise ValueError(f"the picture is {picture.shape} of {picture.dtype}; give size size 3 of uint8")
    lab, ids = srgb_to_lab(picture), id_mask(truth, picture.shape[0])
    backdrop = srgb_to_lab(render(State(backdrop=truth.backdrop, bodies=()), picture.shape[0]))
    labels = _label_pixels(lab, backdrop, truth)
    arm, arm_error_px, arm_mask = _find_arm(labels == _ARM, ids == ARM_ID, truth, picture.shape[0] / WORLD_SIZE)
    sightings, surplus = {}, 0
    for index, colour in enumerate(COLOURS):
        body = next((b for b in truth.bodies if b.colour == colour and (ids == b.id).any()), None)
        pieces = _pieces(labels == index, _smallest_area(ids, body))
        if body is not None and pieces:
            sightings[body.id] = _sight(pieces.pop(0), body, ids == body.id, lab, dilate(labels == _ARM, 1))
        surplus += len(pieces)
    explained = arm_mask.copy()
    for sighting in sightings.values():
        explained |= sighting.mask
    margin = 2 * _unit(picture.shape[0])
    return Observation(
        truth=truth,
        bodies=sightings,
        surplus=surplus,
        arm=arm,
        arm_error_px=arm_error_px,
        explained=dilate(explained, margin),
        lab=lab,
        backdrop_lab=backdrop,
    )


def _unit(size: int) -> int:
    return max(1, round(size / WORLD_SIZE))


def _label_pixels(lab: np.ndarray, backdrop: np.ndarray, truth: State) -> np.ndarray:
    """The nearest colour at each pixel, as the index in COLOURS or one of the labels above: int H W."""
    own = {body.colour: body.albedo for body in truth.bodies}
    colours = [(index, own.get(name, albedo)) for index, (name, albedo) in enumerate(COLOURS.items())]
    if truth.arm is not None:
        colours += [(_ARM, ARM_DARK), (_ARM, ARM_LIGHT)]
    if truth.ropes:
        colours.append((_NOTHING, ROPE))
    distances = np.stack([delta_e(lab, backdrop)] + [delta_e(lab, colour_lab(colour)) for _, colour in colours])
    labels = np.array([_BACKDROP] + [label for label, _ in colours])
    return np.where(distances.min(axis=0) < COLOUR_REACH_DE, labels[distances.argmin(axis=0)], _NOTHING)


def _smallest_area(ids: np.ndarray, body: Body | None) -> int:
    """Area in px that decides which pieces count: the body's own, or that of the smallest body in the scene."""
    if body is not None:
        return int(np.count_nonzero(ids == body.id))
    areas = np.bincount(ids[ids > ARM_ID].ravel())
    return int(areas[areas > 0].min()) if areas.any() else ids.size // 64


def _pieces(mask: np.ndarray, area: int) -> list[np.ndarray]:
    """Pieces of at least PIECE_SHARE of `area`, largest first; what a finger (3 px) divides stays one piece."""
    unit = _unit(mask.shape[0])
    kept = opened(mask, unit)
    joined = components(dilate(kept, 2 * unit))
    pieces = [joint & mask & dilate(kept, unit) for joint in joined]
    pieces = [piece for piece in pieces if np.count_nonzero(piece) >= PIECE_SHARE * area]
    return sorted(pieces, key=lambda piece: -int(np.count_nonzero(piece)))


def _sight(mask: np.ndarray, body: Body, true_mask: np.ndarray, lab: np.ndarray, hidden: np.ndarray) -> Sighting:
    scale = mask.shape[0] / WORLD_SIZE
    (x, y), (true_x, true_y) = centroid(mask), centroid(true_mask)
    seen = replace(body, x=body.x + (x - true_x) / scale, y=body.y + (y - true_y) / scale)
    area_ratio = np.count_nonzero(mask) / np.count_nonzero(true_mask)
    shape = _shape(mask, seen, hidden, area_ratio)
    inner = erode(mask, 2 * _unit(mask.shape[0]))
    colour = np.median(lab[inner if inner.any() else mask], axis=0)
    return Sighting(
        body=seen,
        mask=mask,
        position_error=math.hypot(seen.x - body.x, seen.y - body.y) / body.size,
        angle_error=_angle_error(shape, seen),
        area_ratio=area_ratio,
        delta_e=float(delta_e(colour, colour_lab(body.albedo))),
        kind=_kind(shape, seen),
    )


@dataclass(frozen=True)
class _Outline:
    """A kind's outline at size 1 about its centroid, as half planes: inside is `points @ normals <= offsets`."""

    normals: np.ndarray  # 2 edges
    offsets: np.ndarray  # edges
    area: float


@cache
def _outline(kind: str) -> _Outline:
    body = Body(id=0, kind=kind, colour="", albedo=(0, 0, 0), x=0.0, y=0.0, size=1.0)
    centre, area = _centre_and_area(body)
    points = np.asarray(body.outline()) - centre
    edges = np.roll(points, -1, axis=0) - points
    normals = np.stack([edges[:, 1], -edges[:, 0]])
    return _Outline(normals, (points * normals.T).sum(axis=1), area)


def _centre_and_area(body: Body) -> tuple[np.ndarray, float]:
    """Centroid (2) and area of a body's outline, by the shoelace formula."""
    points = np.asarray(body.outline())
    ahead = np.roll(points, -1, axis=0)
    cross = points[:, 0] * ahead[:, 1] - ahead[:, 0] * points[:, 1]
    return ((points + ahead) * cross[:, None]).sum(axis=0) / (3 * cross.sum()), abs(float(cross.sum())) / 2


@dataclass(frozen=True, eq=False)
class _Shape:
    """A seen mask, cut out around its body, for comparison with outlines; pixels hidden by the arm do not count."""

    points: np.ndarray  # n 2, px from where the centroid of the body's outline must be
    mask: np.ndarray  # n
    outline_area_px: float

    def fits(self, kind: str, angles: Sequence[float]) -> np.ndarray:
        """IoU with a kind's outline of the mask's own area, at each angle (radians)."""
        outline = _outline(kind)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        x, y = self.points.T / math.sqrt(self.outline_area_px / outline.area)
        local = np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)  # angles n 2
        inside = (local @ outline.normals <= outline.offsets).all(axis=-1)  # angles n
        return (inside & self.mask).sum(axis=1) / np.maximum((inside | self.mask).sum(axis=1), 1)


def _shape(mask: np.ndarray, seen: Body, hidden: np.ndarray, area_ratio: float) -> _Shape:
    scale = mask.shape[0] / WORLD_SIZE
    centre = _centre_and_area(seen)[0] * scale
    ys, xs = np.indices(mask.shape)
    near = (np.hypot(xs + 0.5 - centre[0], ys + 0.5 - centre[1]) < 2.5 * seen.size * scale) & ~hidden
    points = np.stack([xs[near] + 0.5 - centre[0], ys[near] + 0.5 - centre[1]], axis=-1)
    return _Shape(points, mask[near], _outline(seen.kind).area * (seen.size * scale) ** 2 * area_ratio)


def _kind(shape: _Shape, body: Body) -> str:
    """The kind whose outline fits best; the true kind where it is close to a draw."""
    return max(KINDS, key=lambda kind: float(shape.fits(kind, [body.angle])[0]) + KIND_GAIN * (kind == body.kind))


def _angle_error(shape: _Shape, body: Body) -> float:
    """The smallest turn in radians, in steps of 10°, whose outline fits clearly better than the true one; 0 for a ball."""
    if body.kind == "ball":
        return 0.0
    limit = 40 if body.kind == "cube" else 180
    turns = sorted(range(-limit, limit, 10), key=abs)
    fits = shape.fits(body.kind, [body.angle + math.radians(turn) for turn in turns])
    best = int(fits.argmax())
    return math.radians(abs(turns[best])) if fits[best] > fits[0] + ANGLE_GAIN else 0.0


def _find_arm(seen: np.ndarray, true_mask: np.ndarray, truth: State, scale: float) -> tuple[Arm | None, float, np.ndarray]:
    """The arm, how far it is from the true place in world px, and its mask there; the opening is taken as the true one."""
    nowhere = np.zeros_like(seen)
    if truth.arm is None:
        return None, 0.0, nowhere
    above_floor = seen.copy()
    above_floor[round(truth.backdrop.floor_y * scale) :] = False
    dx, dy, share = best_shift(true_mask, above_floor)
    if share < ARM_SHARE:
        return None, math.inf, nowhere
    arm = replace(truth.arm, x=truth.arm.x + dx / scale, y=truth.arm.y + dy / scale)
    # drawn anew rather than shifted: a lower arm hangs from a longer column
    return arm, math.hypot(dx, dy) / scale, id_mask(State(backdrop=truth.backdrop, bodies=(), arm=arm), seen.shape[0]) > 0
