"""Finding the things of a known scene in a picture by how they look, shaded, textured and made of parts as they are.

Each body of the true state is drawn, and looked for where it should be and up to REACH_RADII around. What the picture
shows elsewhere must be the rest of the truth; soft shadows may be a little lighter or darker than they should.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chronoedit.world.kinds import KIND_TABLE
from chronoedit.world.render import id_mask, render
from chronoedit.world.state import ARM_ID, WORLD_SIZE, Arm, Body, State

from .colour import delta_e, srgb_to_lab
from .morphology import components, dilate, erode, opened
from .template import CAP_DE, Template, shifted, softer

REACH_RADII = 1.5
ARM_REACH_PX = 24.0
RIGHT_DE = 22.0  # a pixel that is closer than this shows what it should
DISTINCT_DE = 10.0  # where a thing and what is behind it differ by less, nobody can tell which is seen
SURPLUS_DE = 16.0  # a piece that is further off than this from all that may be there should not be there
PRESENT_SHARE = 0.5  # of the distinct pixels, that are more like the thing than like what is behind it
RIGHT_SHARE = 0.72  # of the thing's pixels, that are right once its colour is allowed for
WRONG_PIECE = 0.12  # of the thing's area: a piece within it that is wrong
ARM_SHARE = 0.5
JUDGED_PX = 12  # a thing of which fewer pixels can be seen is taken as it should be
SOFT_STEPS = 3  # of a blur, each of a variance of half a px²: a thing may be drawn softly
LIKENESS_DE = 1.0  # mean ΔE about the thing by which another kind, or another angle, must fit better
TURNS_DEG = (15, -15, 30, -30, 45, -45, 60, -60, 90, -90, 120, -120, 150, -150, 180)
SHADOW_L, SHADOW_AB = 30.0, 14.0  # how far a shadow takes a colour
SHADOW_PX = 5.0  # world px above and below the line on which a thing stands
PALETTE = 16  # colours that stand for a thing's look


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
    ground: np.ndarray  # bool H W: where shadows fall, which need not be exact

    @property
    def state(self) -> State:
        """The scene as seen, for the checks of physics."""
        bodies = tuple(self.bodies[b.id].body for b in self.truth.bodies if b.id in self.bodies)
        return replace(self.truth, bodies=bodies, arm=self.arm)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scene:
    """The truth as drawn at the picture's size, and the picture."""

    truth: State
    size: int
    lab: np.ndarray
    truth_lab: np.ndarray
    ids: np.ndarray
    also: Sequence[str]

    def drawn(self, state: State) -> np.ndarray:
        return srgb_to_lab(render(state, self.size))

    @property
    def scale(self) -> float:
        return self.size / WORLD_SIZE

    @property
    def unit(self) -> int:
        return max(1, round(self.scale))


def observe(
    picture: np.ndarray, truth: State, only: Collection[int] | None = None, also: Sequence[str] = ()
) -> Observation:
    """Look for the bodies of `truth`, or for those with the ids `only`, in a picture, uint8 size size 3.

    A body is seen as one of the kinds of its group, or of the kinds `also`.

    Raises ValueError when the picture is not square uint8 RGB.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.shape[0] != picture.shape[1]:
        raise ValueError(f"the picture is {picture.shape} of {picture.dtype}; give size size 3 of uint8")
    size = picture.shape[0]
    scene = _Scene(
        truth=truth,
        size=size,
        lab=srgb_to_lab(picture),
        truth_lab=srgb_to_lab(render(truth, size)),
        ids=id_mask(truth, size),
        also=also,
    )
    arm, arm_error_px, arm_mask = _find_arm(scene)
    bodies, right = {}, [arm_mask]
    for body in truth.bodies:
        if only is None or body.id in only:
            sighting, shown = _find(scene, body)
            right.append(shown)
            if sighting is not None:
                bodies[body.id] = sighting
    explained = dilate(np.any(right, axis=0), 2 * scene.unit)
    ground = _ground(scene)
    empty = scene.drawn(State(backdrop=truth.backdrop, bodies=()))
    return Observation(
        truth=truth,
        bodies=bodies,
        surplus=_surplus(scene, empty, explained, ground),
        arm=arm,
        arm_error_px=arm_error_px,
        explained=explained,
        lab=scene.lab,
        backdrop_lab=empty,
        ground=ground,
    )


def unlike(lab: np.ndarray, expected: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """ΔE of two pictures in L*a*b*, H W 3; 0 where, on the `ground` (bool H W), a shadow alone could be the reason."""
    difference = np.abs(lab - expected)
    shadow = (difference[..., 0] < SHADOW_L) & (np.hypot(difference[..., 1], difference[..., 2]) < SHADOW_AB)
    return np.where(shadow & ground, 0.0, delta_e(lab, expected))


def _ground(scene: _Scene) -> np.ndarray:
    """Where shadows fall: the rows about every line that a body may stand on, bool H W."""
    y = (np.arange(scene.size) + 0.5) / scene.scale
    backdrop = scene.truth.backdrop
    lines = {backdrop.floor_y, *(body.ground_y(backdrop) for body in scene.truth.bodies)}
    rows = np.any([np.abs(y - line) < SHADOW_PX for line in lines], axis=0)
    return np.repeat(rows[:, None], scene.size, axis=1)


def _surplus(scene: _Scene, empty: np.ndarray, explained: np.ndarray, ground: np.ndarray) -> int:
    """How many pieces are neither the truth, nor the empty place, nor a thing that was found."""
    others = [unlike(scene.lab, other, ground) > SURPLUS_DE for other in (empty, scene.truth_lab)]
    off = others[0] & others[1] & ~explained
    smallest = min((body.size for body in scene.truth.bodies), default=8.0) * scene.scale
    return sum(int(np.count_nonzero(piece)) > 0.6 * smallest**2 for piece in components(opened(off, scene.unit)))


def _find(scene: _Scene, body: Body) -> tuple[Sighting | None, np.ndarray]:
    """The body as it is seen, and the pixels that show it as it should look (bool H W)."""
    mask = scene.ids == body.id
    if np.count_nonzero(mask) < JUDGED_PX:
        return _as_it_should(body, mask), mask
    template = Template(scene.truth_lab, mask, scene.drawn(_without(scene.truth, body)))
    dx, dy = template.find(scene.lab, REACH_RADII * body.size * scene.scale, 2 * scene.unit)
    there = template.shifted(dx, dy)
    off, behind = delta_e(scene.lab, there.look), delta_e(scene.lab, there.behind)
    right = there.mask & (off < RIGHT_DE)
    distinct = there.mask & (delta_e(there.look, there.behind) > DISTINCT_DE)
    judged = distinct if distinct.any() else there.mask
    present = (off < behind)[judged] if distinct.any() else right[judged]
    if not judged.any() or present.mean() < PRESENT_SHARE:
        return None, np.zeros_like(mask)
    seen = replace(body, x=body.x + dx / scene.scale, y=body.y + dy / scene.scale)
    area = _seen_area(scene, template, there, right & ~distinct)
    kind, angle = _likeness(scene, body, seen, dilate(mask | there.mask, 3 * scene.unit), there)
    return (
        Sighting(
            body=seen,
            mask=area,
            position_error=math.hypot(dx, dy) / scene.scale / body.size,
            angle_error=angle,
            area_ratio=int(np.count_nonzero(area)) / int(np.count_nonzero(mask)),
            delta_e=_colour_error(scene, there),
            kind=kind,
        ),
        right,
    )


def _without(state: State, body: Body) -> State:
    return replace(state.without(body.id), ropes=tuple(each for each in state.ropes if each != body.id))


def _as_it_should(body: Body, mask: np.ndarray) -> Sighting:
    return Sighting(
        body=body, mask=mask, position_error=0.0, angle_error=0.0, area_ratio=1.0, delta_e=0.0, kind=body.kind
    )


def _colour_error(scene: _Scene, there: Template) -> float:
    """ΔE of the median difference to how the thing should look, away from its edge."""
    inner = erode(there.mask, scene.unit)
    chosen = inner if inner.any() else there.mask
    return float(np.linalg.norm(np.median((scene.lab - there.look)[chosen], axis=0)))


def _seen_area(scene: _Scene, template: Template, there: Template, unclear: np.ndarray) -> np.ndarray:
    """Pixels about the thing that have its colours rather than those behind it, and `unclear` ones that are right."""
    place = template.mask | there.mask
    near = dilate(place, max(2, round(0.4 * math.sqrt(np.count_nonzero(template.mask) / math.pi))))
    colours = _palette(template.look[template.mask])
    behind = delta_e(scene.lab, template.behind)
    own = np.full(behind.shape, np.inf, dtype=behind.dtype)
    for colour in colours:
        own[near] = np.minimum(own[near], delta_e(scene.lab[near], colour))
    outside = (own < 0.6 * behind) & (behind > RIGHT_DE)
    return near & np.where(place, (own < behind) & (behind > DISTINCT_DE), outside) | unclear


def _palette(colours: np.ndarray) -> np.ndarray:
    """A few of the colours (n 3), each the furthest from those chosen before it."""
    chosen = [np.median(colours, axis=0)]
    distance = delta_e(colours, chosen[0])
    for _ in range(min(PALETTE, len(colours)) - 1):
        chosen.append(colours[int(distance.argmax())])
        distance = np.minimum(distance, delta_e(colours, chosen[-1]))
    return np.stack(chosen)


def _likeness(scene: _Scene, true: Body, seen: Body, region: np.ndarray, there: Template) -> tuple[str | None, float]:
    """The kind that the thing looks like where it was found (None: like none) and its angle's error in radians.

    `region` is about both places, the true one and where it was found: another kind may stand at either.
    """
    own = _mean_off(scene, there.look, region)
    if own < LIKENESS_DE:
        return seen.kind, 0.0
    group = [name for name, kind in KIND_TABLE.items() if kind.group and kind.group == seen.look.group]
    costs = {
        name: min(
            _mean_off(scene, scene.drawn(scene.truth.with_body(replace(at, kind=name))), region)
            for at in dict.fromkeys((true, seen))
        )
        for name in dict.fromkeys((*group, *scene.also))
        if name != seen.kind
    }
    best = min(costs, key=lambda name: costs[name], default=None)
    if best is not None and costs[best] < own - LIKENESS_DE:
        return best, 0.0
    if _looks_right(scene, there):
        return seen.kind, 0.0
    turns = [math.radians(turn) for turn in TURNS_DEG if abs(turn) <= seen.look.turn_deg]
    fits = {
        turn: _mean_off(scene, scene.drawn(scene.truth.with_body(replace(seen, angle=seen.angle + turn))), region)
        for turn in turns
    }
    turn = min(fits, key=lambda each: fits[each], default=0.0)
    return (seen.kind, abs(turn)) if fits and fits[turn] < own - 2 * LIKENESS_DE else (None, 0.0)


def _mean_off(scene: _Scene, expected: np.ndarray, region: np.ndarray) -> float:
    return float(np.minimum(delta_e(scene.lab[region], expected[region]), CAP_DE).mean())


def _looks_right(scene: _Scene, there: Template) -> bool:
    """Most pixels are right, drawn sharply or softly, and no piece within the thing is wrong."""
    looks = [there.look, *softer(there.look, SOFT_STEPS * scene.unit**2)]
    wrong = there.mask & (np.min([delta_e(scene.lab, look) for look in looks], axis=0) > RIGHT_DE)
    area = int(np.count_nonzero(there.mask))
    pieces = components(opened(wrong, scene.unit))
    largest = int(np.count_nonzero(pieces[0])) if pieces else 0
    return int(np.count_nonzero(wrong)) <= (1 - RIGHT_SHARE) * area and largest <= WRONG_PIECE * area


def _arm_shift(scene: _Scene, template: Template) -> tuple[int, int]:
    """The arm's shift in px.

    It has a pattern that repeats, and hangs from above the picture: what a higher one loses at the top may be amiss or
    not. The arm is drawn at both places, and the one that the picture shows counts.
    """
    found = dict.fromkeys(
        each.find(scene.lab, ARM_REACH_PX * scene.scale, 2 * scene.unit)
        for each in (template, replace(template, beyond_de=0.0))
    )
    if len(found) == 1:
        return next(iter(found))
    region = np.any([template.mask, *(shifted(template.mask, *shift) for shift in found)], axis=0)
    near = dilate(region, 2 * scene.unit)

    def off(shift: tuple[int, int]) -> float:
        state = replace(scene.truth, arm=_moved_arm(scene, *shift))
        return _mean_off(scene, scene.drawn(state), near)

    return min(found, key=off)


def _moved_arm(scene: _Scene, dx: int, dy: int) -> Arm:
    arm = scene.truth.arm
    assert arm is not None
    return replace(arm, x=arm.x + dx / scene.scale, y=arm.y + dy / scene.scale)


def _find_arm(scene: _Scene) -> tuple[Arm | None, float, np.ndarray]:
    """The arm as seen, its error in world px (infinite when it is not there), and its pixels."""
    mask, true_arm = scene.ids == ARM_ID, scene.truth.arm
    nowhere = np.zeros_like(mask)
    if true_arm is None:
        return None, 0.0, nowhere
    template = Template(scene.truth_lab, mask, scene.drawn(replace(scene.truth, arm=None)))
    dx, dy = _arm_shift(scene, template)
    there = shifted(mask, dx, dy)
    right = delta_e(scene.lab, shifted(template.look, dx, dy)) < RIGHT_DE
    if not there.any() or right[there].mean() < ARM_SHARE:
        return None, math.inf, nowhere
    arm = _moved_arm(scene, dx, dy)
    # drawn anew rather than shifted: a lower arm hangs from a longer column
    alone = State(backdrop=scene.truth.backdrop, bodies=(), arm=arm)
    return arm, math.hypot(dx, dy) / scene.scale, id_mask(alone, scene.size) == ARM_ID
