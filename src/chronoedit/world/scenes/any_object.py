"""Any object: recolour, remove, add, or nothing to do; everything else stays as it is to the pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..language import say
from ..physics import ease
from ..state import COLOURS, KINDS, Body, State
from .base import MOST, Scene, jitter, make_body, pick, sample_backdrop, sample_row

PLACES = {"on the left": 20.0, "in the middle": 64.0, "on the right": 108.0}
ADDED_SIZE_PX = 10.5


@dataclass
class AnyObject(Scene):
    """Objects in a row; `after` is the subject as the edit leaves it (None when it is removed or nothing changes)."""

    family: ClassVar[str] = "any"
    edits: ClassVar[tuple[str, ...]] = ("recolour", "remove", "add", "nothing")
    start: State
    edit: str
    prompt: str
    subject: int | None
    after: Body | None
    checks: tuple[str, ...] = ()

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> AnyObject | None:
        backdrop = sample_backdrop(rng)
        count = int(rng.integers(1 if edit == "add" else 2, MOST + 1))
        bodies = sample_row(rng, count, backdrop.floor_y, gap_px=5.0)
        if bodies is None:
            return None
        start = State(backdrop=backdrop, bodies=tuple(bodies))
        return {"recolour": cls._recolour, "remove": cls._remove, "add": cls._add, "nothing": cls._nothing}[edit](
            rng, start
        )

    @classmethod
    def _recolour(cls, rng: np.random.Generator, start: State) -> AnyObject:
        body = pick(rng, start.bodies)
        colour = pick(rng, _free_colours(start))
        after = replace(body, colour=colour, albedo=jitter(rng, COLOURS[colour], 0))
        return cls(start, "recolour", say(rng, "recolour", {"a": body.name, "colour": colour}), body.id, after)

    @classmethod
    def _remove(cls, rng: np.random.Generator, start: State) -> AnyObject:
        body = pick(rng, start.bodies)
        return cls(start, "remove", say(rng, "remove", {"a": body.name}), body.id, None)

    @classmethod
    def _add(cls, rng: np.random.Generator, start: State) -> AnyObject | None:
        place = pick(rng, list(PLACES))
        if any(abs(body.x - PLACES[place]) < body.size + ADDED_SIZE_PX + 4 for body in start.bodies):
            return None
        look = (pick(rng, KINDS), pick(rng, _free_colours(start)))
        body_id = max(body.id for body in start.bodies) + 1
        after = make_body(rng, body_id, look, PLACES[place], start.backdrop.floor_y, ADDED_SIZE_PX)
        after = replace(after, albedo=COLOURS[look[1]])
        return cls(start, "add", say(rng, "add", {"a": after.name, "place": place}), body_id, after)

    @classmethod
    def _nothing(cls, rng: np.random.Generator, start: State) -> AnyObject:
        return cls(start, "nothing", say(rng, "nothing"), None, None)

    def state(self, t: float) -> State:
        if self.subject is None or t <= 0:
            return self.start
        done = ease(t)
        before = self.start.body(self.subject)
        if self.after is None:
            assert before is not None
            return self.start.with_body(replace(before, alpha=1 - done)) if t < 1 else self.start.without(before.id)
        if before is None:
            return self.start.with_body(replace(self.after, alpha=done))
        mixed = [round(a + (b - a) * done) for a, b in zip(before.albedo, self.after.albedo, strict=True)]
        return self.start.with_body(replace(self.after, albedo=(mixed[0], mixed[1], mixed[2])))


def _free_colours(state: State) -> list[str]:
    used = {body.colour for body in state.bodies}
    return [colour for colour in COLOURS if colour not in used]
