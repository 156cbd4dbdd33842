"""Opening and closing a jar: the lid is turned, lifted, and laid beside it; or comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..language import named
from ..physics import between
from ..state import FIRST_BODY_ID, Backdrop, Body, State
from .base import pick
from .kitchen_stage import Group, Ids, Plot, extent, sample_jar, tenth, with_distractors

LIFT_PX = 9.0  # above what lies under its way
TURNS = 0.2  # of a turn, until the lid is loose


@dataclass(kw_only=True)
class Lid(Plot):
    """The lid, the subject, goes from where it lies on the jar to its place beside it, or back when `closes`."""

    start: State
    subject: int
    slots: Mapping[str, str]
    on: Body
    beside: Body
    closes: bool
    checks: tuple[str, ...] = ("supported",)

    def state(self, t: float) -> State:
        return self.start.with_body(self.lid(1 - t if self.closes else t))

    def lid(self, t: float) -> Body:
        """The lid at time t of the opening."""
        on, beside = self.on, self.beside
        if t <= 0 or t >= 1:
            return on if t <= 0 else beside
        high = on.y - LIFT_PX
        y = between(on.y, on.y - 1.0, t, 0.0, 0.28) if t < 0.28 else between(on.y - 1.0, high, t, 0.28, 0.5)
        if t > 0.56:
            y = between(high, beside.y, t, 0.56, 1.0)
        # sideways while it is above the jar, then down
        x = between(on.x, beside.x, t, 0.42, 0.78)
        twist = between(0.0, TURNS, t, 0.0, 0.32) if t < 0.9 else between(TURNS, 0.0, t, 0.9, 1.0)
        return replace(on, x=x, y=y).with_details(twist=float(twist))


def sample_open(rng: np.random.Generator, backdrop: Backdrop) -> Lid | None:
    """A closed jar that is opened."""
    return _sample(rng, backdrop, closes=False)


def sample_close(rng: np.random.Generator, backdrop: Backdrop) -> Lid | None:
    """An open jar whose lid lies beside it, and is put on."""
    return _sample(rng, backdrop, closes=True)


def _sample(rng: np.random.Generator, backdrop: Backdrop, *, closes: bool) -> Lid | None:
    """A jar with room for its lid beside it, sometimes a second jar, and what stands about."""
    ids, ground = Ids(FIRST_BODY_ID, set()), backdrop.floor_y
    pair = sample_jar(rng, ids, ground)
    assert pair is not None
    beside = _beside(rng, pair, ground)
    middle: list[Group] = [(pair[0], beside)]
    if rng.uniform() < 0.35:
        second = sample_jar(rng, ids, ground)
        assert second is not None
        middle.append(second)
    placed = with_distractors(rng, ids, middle, ground, 2)
    if placed is None:
        return None
    jar, there = placed[0]
    on = replace(pair[1], x=pair[1].x + jar.x - pair[0].x)
    bodies = (jar, there if closes else on, *(body for group in placed[1:] for body in group))
    start = State(backdrop=backdrop, bodies=bodies)
    return Lid(start=start, subject=on.id, slots={"a": named(rng, start, jar)}, on=on, beside=there, closes=closes)


def _beside(rng: np.random.Generator, pair: Group, ground_y: float) -> Body:
    """The lid on the counter, clear of the jar."""
    jar, lid = pair
    left, right, _ = extent([jar])
    half = (lid.span[2] - lid.span[0]) / 2
    gap = tenth(rng.uniform(3.5, 7.0))
    x = right + half + gap if pick(rng, (True, False)) else left - half - gap
    return replace(lid, x=float(np.round(x, 2)), y=ground_y - lid.size)
