"""Slicing in half: a knife comes down, and the two halves are drawn apart with their cut faces to the eye."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..kinds.kitchen_produce import PRODUCE, cut_at
from ..language import named
from ..measures import AreaMeasure
from ..physics import between, ease
from ..places.kitchen import counter_rgb
from ..state import ALBEDO, FIRST_BODY_ID, Backdrop, Body, State
from .base import jitter, pick
from .kitchen_stage import Group, Ids, Plot, extent, sample_produce, standing, uniform, with_distractors

CUTS = (0.24, 0.43)  # when the knife reaches the skin, and when the board
APART = (0.46, 0.86)
GAP_PX = 4.0  # between the halves at the end
BOARD_PX = 10.0
BOARD_CONTRAST = 70.0  # of 441, to the counter
LEAN = 0.3  # radians: a round half rolls so far on its back
WOODS = ("brown", "beige", "grey", "white")
SLICED = (*PRODUCE, "chili", "chili")  # people who cook cut chili peppers most


@dataclass(kw_only=True)
class Slice(Plot):
    """The subject lies on a board; its id goes to the left half."""

    start: State
    subject: int
    slots: Mapping[str, str]
    board: Body
    other: int
    knife: Body
    checks: tuple[str, ...] = ("supported",)

    def measures(self) -> tuple[AreaMeasure, ...]:
        return (AreaMeasure(name="halves", ids=(self.subject,), versus=(self.other,), tolerance=0.25),)

    @property
    def whole(self) -> Body:
        body = self.start.body(self.subject)
        assert body is not None
        return body

    def half(self, side: float, t: float) -> Body:
        """One half at time t; `side` is -1 for the left one."""
        whole = self.whole
        share = ease((t - APART[0]) / (APART[1] - APART[0]))
        shape = replace(whole, kind="half").with_details(
            of=whole.kind, cut=cut_at(whole.kind, whole.detail("flip", 1.0)), side=side, open=share
        )
        body = replace(shape, id=self.subject if side < 0 else self.other)
        lean = 0.0 if PRODUCE[whole.kind].long else LEAN * share
        turned = replace(body, angle=side * lean)
        # drawn apart by as much as the faces bulge, and a gap
        cut_x = whole.x + whole.size * body.detail("cut", 0.0)
        inner = turned.span[2] if side < 0 else turned.span[0]
        top = self.board.span[1]
        return replace(
            turned, x=turned.x + cut_x + side * GAP_PX / 2 * share - inner, y=turned.y + top - turned.span[3]
        )

    def state(self, t: float) -> State:
        if t < CUTS[1]:
            state = self.start
        else:
            state = self.start.with_body(self.half(-1.0, t)).with_body(self.half(1.0, t))
        blade = self._blade(t)
        return state if blade is None else state.with_body(blade)

    def _blade(self, t: float) -> Body | None:
        """The knife, point down over the cut; None while it is out of the picture."""
        whole, reach = self.whole, self.knife.size
        x = whole.x + whole.size * cut_at(whole.kind, whole.detail("flip", 1.0))
        high, skin, low = -1.2 * reach, whole.span[1] - reach - 1.5, self.board.span[1] - reach
        y = between(high, skin, t, 0.0, CUTS[0]) if t < CUTS[0] else between(skin, low, t, *CUTS)
        if t > CUTS[1]:
            y = between(low, high, t, CUTS[1] + 0.02, 0.76)
        return None if y <= high + 0.1 else replace(self.knife, x=x, y=y)


def sample_slice(rng: np.random.Generator, backdrop: Backdrop) -> Slice | None:
    """A board with something to cut, perhaps a second thing beside it, and what stands about."""
    ids, thick = Ids(FIRST_BODY_ID, set()), uniform(rng, 7.0, 8.8)
    woods = [each for each in WOODS if math.dist(ALBEDO[each], counter_rgb(backdrop)) > BOARD_CONTRAST]
    board = standing(rng, ids.number(), ("board", pick(rng, woods)), BOARD_PX, backdrop.floor_y)
    things = _things(rng, ids, backdrop.floor_y - thick)
    if things is None:
        return None
    left, right = _room(things[0])
    right = max(right, *(extent([each])[1] for each in things))
    half = (right - left) / 2 + 4
    board = replace(board, x=(left + right) / 2).with_details(
        half=float(np.round(half / BOARD_PX, 3)), top=float(1 - thick / BOARD_PX)
    )
    placed = with_distractors(rng, ids, [(board, *things)], backdrop.floor_y, 2)
    if placed is None:
        return None
    bodies = tuple(body for group in placed for body in group)
    return _sliced(rng, ids, State(backdrop=backdrop, bodies=bodies), bodies[0], bodies[1])


def _things(rng: np.random.Generator, ids: Ids, top: float) -> Group | None:
    """What is to be cut, at x = 0, and sometimes a second thing to its right, clear of the halves."""
    first = sample_produce(rng, ids, SLICED, top)
    assert first is not None
    first = first.with_details(ground_y=top)
    if rng.uniform() >= 0.4:
        return (first,)
    alike = len(PRODUCE[first.kind].colours) > 1 and rng.uniform() < 0.5
    kinds = [first.kind] if alike else [name for name, produce in PRODUCE.items() if not produce.long]
    second = sample_produce(rng, ids, kinds, top)
    if second is None:
        return None
    x = _room(first)[1] + GAP_PX + 2 - extent([second])[0]
    return first, replace(second, x=x).with_details(ground_y=top)


def _room(subject: Body) -> tuple[float, float]:
    """Left and right of what the two halves will take."""
    plain = Slice(
        start=State(backdrop=_NOWHERE, bodies=(subject,)),
        subject=subject.id,
        slots={},
        board=subject,
        other=0,
        knife=subject,
    )
    return extent([plain.half(-1.0, 1.0)])[0], extent([plain.half(1.0, 1.0)])[1]


def _sliced(rng: np.random.Generator, ids: Ids, start: State, board: Body, subject: Body) -> Slice:
    other, knife_id = ids.number(), ids.number()
    colour = pick(rng, ("black", "brown", "red", "navy"))
    knife = Body(
        id=knife_id,
        kind="knife",
        colour=colour,
        albedo=jitter(rng, ALBEDO[colour], 5),
        x=0.0,
        y=0.0,
        size=uniform(rng, 19, 22),
        layer=1,
    )
    slots = {"a": named(rng, start, subject)}
    return Slice(start=start, subject=subject.id, slots=slots, board=board, other=other, knife=knife)


_NOWHERE = Backdrop(wall=(0, 0, 0), floor=(0, 0, 0), floor_y=100.0, light=0.0, decoration="none", decoration_x=64.0)
