"""The exact scores of the world: an edited picture against what the simulator knows, with no judge.

Tolerances are such that a decent autoencoder's picture of the truth passes (a blur of 1 px, ΔE 10, 28 dB), and that
an object moved by one radius, recoloured, missing, doubled or of another kind fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from chronoedit.world import FRAMES, Item
from chronoedit.world.checks import CHECKS, overlap_radii
from chronoedit.world.measures import AreaMeasure
from chronoedit.world.render import id_mask
from chronoedit.world.state import WORLD_SIZE

from .appearance import Observation, Sighting, observe, unlike
from .colour import delta_e, psnr_db, srgb_to_lab
from .morphology import components, dilate, iou, opened

PLACE_RADII = 0.5
ANGLE_RAD = math.radians(25)
COLOUR_DE = 22.0
AREA_RATIO = (0.6, 1.6)
PHYSICS_RADII = {"supported": 0.4, "gripped": 0.5, "touched": 0.4, "on_ground": 0.3, "attached": 0.4, "inside": 0.3}
OVERLAP_RADII = 0.4
ARM_PX = 8.0  # where the arm ends after it has let go is a matter of taste; "gripped" and "touched" are stricter
STILL_ARM_PX = 3.0
CHANGE_IOU = 0.4
CHANGED_DE = 20.0
FAINT_DE = 10.0  # what counts as a change where the edit changes little: half of what it does, but no less
OUTSIDE_DE = 6.0
OUTSIDE_PSNR_DB = 20.0
PIECE_RADII2 = 0.6  # area of a piece that is wrong, in squared radii of the smallest body: a fifth of a ball


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of one edited picture: `checks` must all hold; the measures say how far off it is.

    `position_error` in radii and `angle_error` in radians are the subject's (the worst body's where there is no
    subject), None when it is not seen; ΔE is CIE 1976; `outside_*` are taken outside the true edit mask.
    `trajectory_error` (radii, mean over the reasoning frames in which the subject is seen) and `trajectory_seen`
    (share of those frames) are None for an editor that does not show its reasoning.
    """

    checks: dict[str, bool]
    position_error: float | None
    angle_error: float | None
    change_iou: float
    colour_delta_e: float | None
    outside_delta_e: float
    outside_psnr_db: float
    overlap_radii: float
    physics_radii: dict[str, float | None] = field(default_factory=dict)
    trajectory_error: float | None = None
    trajectory_seen: float | None = None

    @property
    def success(self) -> bool:
        return all(self.checks.values())

    def to_json(self) -> dict:
        return {"success": self.success, **asdict(self)}


def score(item: Item, edited: np.ndarray, trajectory: np.ndarray | None = None) -> Score:
    """Score an edited picture, uint8 size size 3.

    `trajectory` are the frames that an editor with reasoning shows, the edit last: uint8 T size size 3.

    Raises ValueError when the picture is not of the item's size.
    """
    if edited.shape != (item.size, item.size, 3):
        raise ValueError(f"the edited picture is {edited.shape}; seed {item.seed} needs {(item.size, item.size, 3)}")
    seen = observe(edited, item.end)
    sightings = list(seen.bodies.values())
    target_lab = srgb_to_lab(item.target)
    change_iou = _change_iou(item, seen.lab, target_lab)
    outside_de, outside_psnr_db = _outside(item, edited, delta_e(seen.lab, target_lab))
    physics, overlap = _physics(item, seen), overlap_radii(seen.state)
    checks = {
        **_identity_checks(item, seen),
        "placed": all(s.position_error <= PLACE_RADII and s.angle_error <= ANGLE_RAD for s in sightings),
        "changed": change_iou >= CHANGE_IOU,
        "unchanged_elsewhere": outside_de <= OUTSIDE_DE and outside_psnr_db >= OUTSIDE_PSNR_DB,
        **_residue_checks(item, seen, target_lab),
        "solid": overlap <= OVERLAP_RADII,
        **{name: error <= PHYSICS_RADII[name] for name, error in physics.items()},
        **{measure.name: _conserved(measure, seen, item) for measure in item.scene.measures()},
    }
    if item.end.arm is not None:
        checks["arm"] = seen.arm_error_px <= (STILL_ARM_PX if item.subject is None else ARM_PX)
    judged = _judged(item, seen)
    error, share = (None, None) if trajectory is None else trajectory_error(item, trajectory)
    return Score(
        checks={name: bool(held) for name, held in checks.items()},
        position_error=max((s.position_error for s in judged), default=None),
        angle_error=max((s.angle_error for s in judged), default=None),
        change_iou=change_iou,
        colour_delta_e=max((s.delta_e for s in judged), default=None),
        outside_delta_e=outside_de,
        outside_psnr_db=outside_psnr_db,
        overlap_radii=overlap,
        physics_radii={name: error if math.isfinite(error) else None for name, error in physics.items()},
        trajectory_error=error,
        trajectory_seen=share,
    )


def trajectory_error(item: Item, frames: np.ndarray) -> tuple[float | None, float | None]:
    """Mean position error of the subject in radii over the reasoning frames, and the share of frames where it is seen.

    `frames` is uint8 T size size 3: frames 1 … T−2 are the world's frames of that index, frame 0 is the input and the
    last the edit, which are left out. Both are None when the true subject is not to be seen in any.
    """
    errors = []
    for index in range(1, min(len(frames) - 1, FRAMES - 1)):
        truth = item.state(index / (FRAMES - 1))
        subject = truth.body(item.subject) if item.subject is not None else None
        if subject is None or not (id_mask(truth, item.size) == subject.id).any():
            continue
        sighting = observe(frames[index], truth, (subject.id,)).bodies.get(subject.id)
        errors.append(math.nan if sighting is None else sighting.position_error)
    if not errors:
        return None, None
    found = [error for error in errors if not math.isnan(error)]
    return (float(np.mean(found)) if found else None), len(found) / len(errors)


def _judged(item: Item, seen: Observation) -> Sequence[Sighting]:
    if item.subject is None or item.end.body(item.subject) is None:
        return list(seen.bodies.values())
    return [seen.bodies[item.subject]] if item.subject in seen.bodies else []


def _identity_checks(item: Item, seen: Observation) -> dict[str, bool]:
    sightings = seen.bodies.values()
    low, high = AREA_RATIO
    return {
        "present": len(seen.bodies) == len(item.end.bodies),
        "none_surplus": seen.surplus == 0,
        "kind": all(s.kind == s.body.kind for s in sightings),
        "colour": all(s.delta_e <= COLOUR_DE for s in sightings),
        "size": all(low <= s.area_ratio <= high for s in sightings),
    }


def _physics(item: Item, seen: Observation) -> dict[str, float]:
    """What the scene asks of its subject, in radii; infinite when the subject is not seen."""
    sighting = seen.bodies.get(item.subject) if item.subject is not None else None
    return {
        name: CHECKS[name](seen.state, sighting.body) if sighting is not None else math.inf
        for name in item.scene.checks
    }


def _conserved(measure: AreaMeasure, seen: Observation, item: Item) -> bool:
    """Whether the bodies of a measure have the area that they should."""

    def area(ids: tuple[int, ...]) -> int:
        return sum(int(np.count_nonzero(seen.bodies[each].mask)) for each in ids if each in seen.bodies)

    true_px = int(np.isin(item.target_ids, measure.ids).sum())
    expected = area(measure.versus) if measure.versus else true_px
    return abs(area(measure.ids) - expected) <= measure.tolerance * max(expected, 1)


def _change_iou(item: Item, lab: np.ndarray, target_lab: np.ndarray) -> float:
    """IoU of what differs from the input in the edited picture and in the true one; 1 when neither differs."""
    before = srgb_to_lab(item.input)
    threshold = CHANGED_DE
    if item.edit_mask.any():
        true_change = float(np.median(delta_e(target_lab, before)[item.edit_mask]))
        threshold = min(CHANGED_DE, max(FAINT_DE, true_change / 2))
    raw = [delta_e(other, before) > threshold for other in (lab, target_lab)]
    changed, truly = (opened(mask, _unit(item)) for mask in raw)
    if raw[1].any() and not truly.any():
        changed, truly = raw  # all that changes is thin
    if not truly.any():
        return 1.0 if _largest_px(changed) < _piece_px(item) else 0.0
    return iou(changed, truly)


def _outside(item: Item, edited: np.ndarray, off: np.ndarray) -> tuple[float, float]:
    """Mean ΔE and PSNR in dB against the target where nothing changes; `off` is the ΔE at each pixel."""
    outside = ~dilate(item.edit_mask, 2 * _unit(item))
    return float(off[outside].mean()) if outside.any() else 0.0, psnr_db(edited, item.target, outside)


def _unit(item: Item) -> int:
    return max(1, round(item.size / WORLD_SIZE))


def _piece_px(item: Item) -> float:
    """Area in px from which a piece of the picture counts as wrong."""
    bodies = item.end.bodies or item.start.bodies
    return PIECE_RADII2 * (min(body.size for body in bodies) * item.size / WORLD_SIZE) ** 2


def _residue_checks(item: Item, seen: Observation, target_lab: np.ndarray) -> dict[str, bool]:
    """`still`: no piece differs outside the edit. `clean`: no piece is neither true, nor backdrop, nor a thing found.

    A subject that is a little off its true place may cover, and uncover, what lies around the edit mask.
    """
    off, off_backdrop = (
        unlike(seen.lab, expected, seen.ground) > COLOUR_DE for expected in (target_lab, seen.backdrop_lab)
    )
    subject_px = max((b.size for b in item.end.bodies), default=0.0) * item.size / WORLD_SIZE
    nearby = dilate(item.edit_mask, math.ceil(PLACE_RADII * subject_px)) if item.edit_mask.any() else item.edit_mask
    return {
        "still": _largest_px(opened(off & ~nearby, _unit(item))) < _piece_px(item),
        "clean": _largest_px(opened(off & off_backdrop & ~seen.explained, _unit(item))) < _piece_px(item),
    }


def _largest_px(mask: np.ndarray) -> int:
    pieces = components(mask)
    return int(np.count_nonzero(pieces[0])) if pieces else 0
