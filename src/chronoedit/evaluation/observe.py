"""Finding the things of a known scene in a picture: where each body and the arm are, and what else is there.

Each pixel is given the nearest of the scene's colours (its backdrop, arm, ropes, bodies, and the world's palette);
bodies are the large pieces of their own colour. The truth says what to look for; where it is comes from the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chronoedit.world.render import ARM_DARK, ARM_LIGHT, ROPE, id_mask, render
from chronoedit.world.state import ARM_ID, COLOURS, KINDS, WORLD_SIZE, Arm, Body, State

from .colour import colour_lab, delta_e, srgb_to_lab
from .morphology import best_shift, centroid, components, dilate, erode, opened
from .outline import angle_error, best_kind, covers, seen_shape

COLOUR_REACH_DE = 45.0  # a pixel further than this from every colour of the scene belongs to none
PIECE_SHARE = 0.25  # of the (smallest) expected area: smaller pieces are taken for blur and noise
ARM_SHARE = 0.5  # of the arm's outline that must be seen

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
    kind: str | None  # whose outline fits best, if any does


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
    ground: np.ndarray  # bool H W: where shadows fall, which need not be exact; nowhere in a flat scene

    @property
    def state(self) -> State:
        """The scene as seen, for the checks of physics."""
        bodies = tuple(self.bodies[b.id].body for b in self.truth.bodies if b.id in self.bodies)
        return replace(self.truth, bodies=bodies, arm=self.arm)


def observe(picture: np.ndarray, truth: State, also: Sequence[str] = ()) -> Observation:
    """Look for the things of `truth` in a picture, uint8 size size 3.

    A body is seen as one of the world's kinds, of those in `truth`, or of the kinds `also`.

    Raises ValueError when the picture is not square uint8 RGB.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.shape[0] != picture.shape[1]:
        raise ValueError(f"the picture is {picture.shape} of {picture.dtype}; give size size 3 of uint8")
    lab, ids = srgb_to_lab(picture), id_mask(truth, picture.shape[0])
    backdrop = srgb_to_lab(render(State(backdrop=truth.backdrop, bodies=()), picture.shape[0]))
    labels = _label_pixels(lab, backdrop, truth)
    found = _find_arm(labels == _ARM, ids == ARM_ID, truth, picture.shape[0] / WORLD_SIZE)
    bodies, surplus = _find_bodies(lab, backdrop, labels, truth, found.mask, also)
    explained = np.any([found.mask, *(sighting.mask for sighting in bodies.values())], axis=0)
    return Observation(
        truth=truth,
        bodies=bodies,
        surplus=surplus,
        arm=found.arm,
        arm_error_px=found.error_px,
        explained=dilate(explained, 2 * _unit(picture.shape[0])),
        lab=lab,
        backdrop_lab=backdrop,
        ground=np.zeros(ids.shape, dtype=bool),
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


def _find_bodies(
    lab: np.ndarray,
    backdrop: np.ndarray,
    labels: np.ndarray,
    truth: State,
    arm: np.ndarray,
    also: Sequence[str],
) -> tuple[dict[int, Sighting], int]:
    """The expected bodies that are seen, by id, and how many pieces of the palette's colours there are besides."""
    size, ids = len(labels), id_mask(truth, len(labels))
    # without seams, where two colours mix and look like a third
    kept = [opened(labels == index, _unit(size)) for index in range(len(COLOURS))]
    # drawn ids reach half a pixel past the outline on some sides
    visible = {body.id: (ids == body.id) & covers(body, size) for body in truth.bodies}
    kinds = tuple(dict.fromkeys([*KINDS, *(body.kind for body in truth.bodies), *also]))
    sightings, surplus = {}, 0
    for index, colour in enumerate(COLOURS):
        body = next((b for b in truth.bodies if b.colour == colour and visible[b.id].any()), None)
        pieces = _pieces(kept[index], _smallest_area(ids, body))
        if body is not None and pieces:
            near = dilate(pieces.pop(0), 2 * _unit(size)) & ~arm & ~np.any(kept[:index] + kept[index + 1 :], axis=0)
            mask = near & _covered(lab, backdrop, colour_lab(body.albedo))
            if mask.any():
                sightings[body.id] = _sight(mask, body, visible[body.id], lab, dilate(arm, _unit(size)), kinds)
        surplus += len(pieces)
    return sightings, surplus


def _smallest_area(ids: np.ndarray, body: Body | None) -> int:
    """Area in px that decides which pieces count: the body's own, or that of the smallest body in the scene."""
    if body is not None:
        return int(np.count_nonzero(ids == body.id))
    areas = np.bincount(ids[ids > ARM_ID].ravel())
    return int(areas[areas > 0].min()) if areas.any() else ids.size // 64


def _pieces(kept: np.ndarray, area: int) -> list[np.ndarray]:
    """Pieces of at least PIECE_SHARE of `area`, largest first; what a finger (3 px) divides stays one piece."""
    joined = components(dilate(kept, 2 * _unit(kept.shape[0])))
    pieces = [joint & kept for joint in joined]
    pieces = [piece for piece in pieces if np.count_nonzero(piece) >= PIECE_SHARE * area]
    return sorted(pieces, key=lambda piece: -int(np.count_nonzero(piece)))


def _covered(lab: np.ndarray, backdrop: np.ndarray, albedo: np.ndarray) -> np.ndarray:
    """Pixels that are more than half albedo, the rest backdrop: a blurred edge is found where it truly is."""
    step = albedo - backdrop
    return ((lab - backdrop) * step).sum(axis=-1) > 0.5 * (step * step).sum(axis=-1)


def _sight(
    mask: np.ndarray, body: Body, true_mask: np.ndarray, lab: np.ndarray, hidden: np.ndarray, kinds: tuple[str, ...]
) -> Sighting:
    scale = mask.shape[0] / WORLD_SIZE
    (x, y), (true_x, true_y) = centroid(mask), centroid(true_mask)
    seen = replace(body, x=body.x + (x - true_x) / scale, y=body.y + (y - true_y) / scale)
    area_ratio = np.count_nonzero(mask) / np.count_nonzero(true_mask)
    shape = seen_shape(mask, seen, hidden, area_ratio)
    inner = erode(mask, 2 * _unit(mask.shape[0]))
    colour = np.median(lab[inner if inner.any() else mask], axis=0)
    return Sighting(
        body=seen,
        mask=mask,
        position_error=math.hypot(seen.x - body.x, seen.y - body.y) / body.size,
        angle_error=angle_error(shape, seen),
        area_ratio=area_ratio,
        delta_e=float(delta_e(colour, colour_lab(body.albedo))),
        kind=best_kind(shape, seen, kinds),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _FoundArm:
    arm: Arm | None
    error_px: float  # world px
    mask: np.ndarray  # bool H W


def _find_arm(seen: np.ndarray, true_mask: np.ndarray, truth: State, scale: float) -> _FoundArm:
    """The arm, where its outline covers most of the pixels in its colours; its opening is taken as the true one."""
    nowhere = np.zeros_like(seen)
    if truth.arm is None:
        return _FoundArm(arm=None, error_px=0.0, mask=nowhere)
    above_floor = seen.copy()
    above_floor[round(truth.backdrop.floor_y * scale) :] = False
    dx, dy, share = best_shift(true_mask, above_floor)
    if share < ARM_SHARE:
        return _FoundArm(arm=None, error_px=math.inf, mask=nowhere)
    arm = replace(truth.arm, x=truth.arm.x + dx / scale, y=truth.arm.y + dy / scale)
    # drawn anew rather than shifted: a lower arm hangs from a longer column
    mask = id_mask(State(backdrop=truth.backdrop, bodies=(), arm=arm), seen.shape[0]) == ARM_ID
    return _FoundArm(arm=arm, error_px=math.hypot(dx, dy) / scale, mask=mask)
