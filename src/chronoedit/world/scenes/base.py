"""What every scene family shares: the interface, and how bodies and backdrops are drawn from a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import numpy as np

from ..measures import AreaMeasure
from ..state import COLOURS, FIRST_BODY_ID, KINDS, WORLD_SIZE, Backdrop, Body, State

FRAMES = 29
MARGIN_PX = 4.0
MOST = 4  # things in a row of the plain families
WALLS = ((226, 222, 212), (206, 220, 232), (214, 228, 212), (232, 218, 214), (222, 216, 232), (236, 232, 222))
FLOORS = ((158, 132, 106), (132, 138, 148), (176, 156, 132), (118, 124, 112), (150, 142, 136))

Option = TypeVar("Option")


class Scene(ABC):
    """One sampled scene with one edit.

    `subject` is the id of the body that the edit is about (None when nothing changes), `checks` the names of what must
    hold in the edited picture besides count, kind, colour and place of every object (CHECKS), `measures` what area must
    be there.
    """

    family: ClassVar[str]
    edits: ClassVar[tuple[str, ...]]
    edit: str
    prompt: str
    subject: int | None
    checks: tuple[str, ...]

    def measures(self) -> tuple[AreaMeasure, ...]:
        """What must be conserved: nothing by itself."""
        return ()

    @classmethod
    @abstractmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Scene | None:
        """Draw a scene in which `edit` is possible; None when this draw has no room for it."""

    @abstractmethod
    def state(self, t: float) -> State:
        """The scene at time t in [0, 1] of the edit."""


def pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def jitter(rng: np.random.Generator, colour: tuple[int, int, int], amount: int) -> tuple[int, int, int]:
    """The colour with each channel moved by up to `amount` of 255, at random."""
    r, g, b = (int(np.clip(c + rng.integers(-amount, amount + 1), 0, 255)) for c in colour)
    return r, g, b


def sample_backdrop(rng: np.random.Generator) -> Backdrop:
    """Wall, floor, light and decoration, drawn at random."""
    return Backdrop(
        wall=jitter(rng, pick(rng, WALLS), 6),
        floor=jitter(rng, pick(rng, FLOORS), 8),
        floor_y=float(np.round(rng.uniform(94, 108), 1)),
        light=float(np.round(rng.uniform(-0.12, 0.12), 3)),
        decoration=pick(rng, ("window", "picture", "shelf", "none")),
        decoration_x=float(np.round(rng.uniform(24, 104), 1)),
    )


def sample_looks(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """`count` pairs (kind, colour), no colour twice."""
    colours = rng.permutation(list(COLOURS))[:count]
    return [(pick(rng, KINDS), str(colour)) for colour in colours]


def make_body(
    rng: np.random.Generator, body_id: int, look: tuple[str, str], x: float, floor_y: float, size: float
) -> Body:
    """A body that stands on the floor at `x`, its albedo a little off the palette's colour."""
    kind, colour = look
    albedo = jitter(rng, COLOURS[colour], 6)
    return Body(id=body_id, kind=kind, colour=colour, albedo=albedo, x=x, y=floor_y - size, size=size)


def sample_row(rng: np.random.Generator, count: int, floor_y: float, gap_px: float) -> list[Body] | None:
    """`count` bodies side by side on the floor, at least `gap_px` apart; None when they do not fit."""
    sizes = [float(np.round(rng.uniform(8.5, 12.5), 1)) for _ in range(count)]
    free = WORLD_SIZE - 2 * MARGIN_PX - 2 * sum(sizes) - (count - 1) * gap_px
    if free < 0:
        return None
    spare = np.diff(np.concatenate([[0.0], np.sort(rng.uniform(0, free, count))]))
    bodies, left = [], MARGIN_PX
    for k, (size, extra, look) in enumerate(zip(sizes, spare, sample_looks(rng, count), strict=True)):
        left += float(np.round(extra, 1))
        bodies.append(make_body(rng, FIRST_BODY_ID + k, look, left + size, floor_y, size))
        left += 2 * size + gap_px
    return bodies
