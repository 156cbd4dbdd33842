"""Falling: objects hang from ropes; the one that is released falls and comes to rest on what lies below."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ..language import say
from ..physics import simulate
from ..state import Body, State
from .base import FRAMES, MOST, Scene, pick, sample_backdrop, sample_row

DURATION_S = 1.2


@dataclass
class Falling(Scene):
    """A row of bodies, one or two of them hoisted on ropes; a hoisted one may hang above a cube that stands."""

    family: ClassVar[str] = "falling"
    edits: ClassVar[tuple[str, ...]] = ("release",)
    start: State
    edit: str
    prompt: str
    subject: int | None
    checks: tuple[str, ...] = ("supported",)
    _states: list[State] = field(default_factory=list, repr=False)

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Falling | None:
        backdrop = sample_backdrop(rng)
        bodies = sample_row(rng, int(rng.integers(2, MOST + 1)), backdrop.floor_y, gap_px=5.0)
        if bodies is None:
            return None
        hanging = [int(k) for k in rng.permutation(len(bodies))[: int(rng.integers(1, 3))]]
        subject = bodies[hanging[0]]
        for k in hanging:
            bodies[k] = replace(bodies[k], y=float(np.round(rng.uniform(22, 46), 1)))
        bodies[hanging[0]] = _maybe_above_cube(rng, bodies, hanging)
        start = State(backdrop=backdrop, bodies=tuple(bodies), ropes=tuple(sorted(bodies[k].id for k in hanging)))
        scene = cls(start, edit, say(rng, edit, {"a": subject.name}), subject.id)
        return scene if scene._settles() else None

    def state(self, t: float) -> State:
        return self._frames()[round(t * (FRAMES - 1))]

    def _frames(self) -> list[State]:
        if not self._states:
            assert self.subject is not None
            cut = replace(self.start, ropes=tuple(r for r in self.start.ropes if r != self.subject))
            fall = simulate(cut, (self.subject,), frames=FRAMES, duration_s=DURATION_S)
            self._states = [self.start, *fall[1:]]
        return self._states

    def _settles(self) -> bool:
        """At rest at the end, upright, and not knocked against a neighbour on the way."""
        assert self.subject is not None
        first, before, last = (self._frames()[k].body(self.subject) for k in (0, -4, -1))
        assert first is not None and before is not None and last is not None
        still = abs(last.y - before.y) < 0.3 and abs(last.x - before.x) < 0.3
        return still and abs(last.angle) < 0.05 and abs(last.x - first.x) < 1.0


def _maybe_above_cube(rng: np.random.Generator, bodies: list[Body], hanging: list[int]) -> Body:
    subject = bodies[hanging[0]]
    cubes = [b for k, b in enumerate(bodies) if k not in hanging and b.kind == "cube"]
    others = [bodies[k] for k in hanging[1:]]
    if not cubes or rng.uniform() < 0.4:
        return subject
    cube = pick(rng, cubes)
    moved = replace(subject, x=cube.x)
    if any(abs(moved.x - other.x) < moved.size + other.size + 2 for other in others):
        return subject
    return moved
