"""What the scenes share in which things lose their balance: what a plan is, and bodies to set one up with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..physics import Release, gap_px
from ..state import COLOURS, FIRST_BODY_ID, WORLD_SIZE, Body, State
from .base import jitter, pick
from .grasp import Grasp

MARGIN_PX, CLEAR_PX = 3.0, 4.0
BYSTANDERS = ("ball", "cube", "cone", "cup", "crate")


def _anything(_end: State) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A scene at its start, and `loose`: the same at the instant when things are let go.

    What `loose` lacks fades in the first `fade_frames`. `leans` allows bodies to end at any angle, `accept` says
    whether the end is one of those that the instruction means. `grasp` is what the arm does, if there is one; `slots`
    are the words of the instruction.
    """

    start: State
    release: Release
    slots: dict[str, str]
    subject: int
    loose: State
    checks: tuple[str, ...] = ("on_ground",)
    duration_s: float = 1.5
    fade_frames: int = 0
    leans: bool = False
    accept: Callable[[State], bool] = _anything
    grasp: Grasp | None = None


@dataclass
class Palette:
    """Bodies with numbers of their own, and no colour twice."""

    rng: np.random.Generator
    free: list[str] = field(default_factory=list)
    next: int = FIRST_BODY_ID

    def __post_init__(self) -> None:
        self.free = [str(colour) for colour in self.rng.permutation(list(COLOURS))]

    def body(self, kind: str, size: float, x: float, bottom_y: float) -> Body:
        """A body whose foot is at `bottom_y`."""
        colour, number = self.free.pop(), self.next
        self.next += 1
        albedo = jitter(self.rng, COLOURS[colour], 5)
        return Body(id=number, kind=kind, colour=colour, albedo=albedo, x=x, y=bottom_y - size, size=size)

    def pile(self, kinds: Sequence[str], sizes: Sequence[float], x: float, bottom_y: float) -> list[Body]:
        """Bodies that stand on one another, from the lowest up."""
        bodies: list[Body] = []
        for kind, size in zip(kinds, sizes, strict=True):
            bodies.append(self.body(kind, size, x, bottom_y))
            bottom_y -= 2 * size
        return bodies

    def with_bystanders(self, bodies: list[Body], floor_y: float, taken: tuple[float, float]) -> tuple[Body, ...]:
        """The bodies, and up to two others on the floor outside the interval `taken`, where there is room."""
        for _ in range(int(self.rng.integers(0, 3))):
            size = tenths(self.rng, 8, 11)
            x = tenths(self.rng, MARGIN_PX + size, WORLD_SIZE - MARGIN_PX - size)
            if not self.free or taken[0] < x + size + CLEAR_PX and x - size - CLEAR_PX < taken[1]:
                continue
            body = self.body(pick(self.rng, BYSTANDERS), size, x, floor_y)
            if all(gap_px(body, other) > CLEAR_PX for other in bodies):
                bodies = [*bodies, body]
        return tuple(bodies)


def tenths(rng: np.random.Generator, low: float, high: float) -> float:
    """A number in tenths between two."""
    return float(np.round(rng.uniform(low, high), 1))
