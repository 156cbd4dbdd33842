"""What all kitchen scenes share: the room, things that stand about, and how they are set side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..kinds.kitchen import LID_SHARE
from ..kinds.kitchen_produce import PRODUCE
from ..measures import AreaMeasure
from ..places.kitchen import COUNTER_STYLES, HOURS, TILE_STYLES
from ..render import solid_polygons
from ..state import ALBEDO, COLOURS, WORLD_SIZE, Backdrop, Body, State
from .base import jitter, pick

MARGIN_PX = 2.0
GAP_PX = 4.0
ASIDE = 0.8  # of the usual size: what has no part in the edit
WALLS = (
    (232, 226, 210),
    (196, 216, 228),
    (204, 224, 206),
    (230, 208, 202),
    (214, 208, 228),
    (222, 222, 220),
    (170, 204, 204),
)
COUNTERS = ((176, 128, 84), (142, 98, 66), (204, 164, 116), (120, 92, 78), (164, 150, 138))
CROCKERY_COLOURS = ("red", "blue", "green", "orange", "turquoise", "navy", "purple", "yellow", "pink")
CROCKERY = {"mug": (11.0, 13.0), "pan": (6.8, 8.0)}  # sizes in px
PRESERVES = ("red", "orange", "yellow", "green", "purple", "pink", "brown")

Group = tuple[Body, ...]


class Plot(ABC):
    """One edit in one kitchen: what Scene asks for, and the words for the slots of the instruction."""

    start: State
    subject: int
    slots: Mapping[str, str]
    checks: tuple[str, ...]

    @abstractmethod
    def state(self, t: float) -> State:
        """The scene at t in (0, 1]."""

    def measures(self) -> tuple[AreaMeasure, ...]:
        return ()


@dataclass
class Ids:
    """Numbers for bodies, and which looks are taken: no two bodies of one noun have the same colour."""

    next: int
    taken: set[tuple[str, str]]

    def number(self) -> int:
        self.next += 1
        return self.next - 1

    def colour(self, rng: np.random.Generator, kind: str, colours: Sequence[str]) -> str | None:
        """A colour in which there is no such thing yet; None when all are taken."""
        free = [colour for colour in colours if (kind, colour) not in self.taken]
        if not free:
            return None
        colour = pick(rng, free)
        self.taken.add((kind, colour))
        return colour


def tenth(value: float) -> float:
    """The value rounded to tenths."""
    return float(np.round(value, 1))


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number in tenths between two."""
    return tenth(rng.uniform(low, high))


def sample_kitchen(rng: np.random.Generator) -> Backdrop:
    """Wall, counter, hour and what hangs on the wall, drawn at random."""
    details = (
        ("counter", pick(rng, COUNTER_STYLES)),
        ("hour", pick(rng, list(HOURS))),
        ("tiles", pick(rng, TILE_STYLES)),
    )
    return Backdrop(
        wall=jitter(rng, pick(rng, WALLS), 6),
        floor=jitter(rng, pick(rng, COUNTERS), 8),
        floor_y=uniform(rng, 97, 105),
        light=float(np.round(rng.uniform(-0.12, 0.12), 3)),
        decoration=pick(rng, ("window", "shelf", "rail", "none")),
        decoration_x=uniform(rng, 30, 98),
        place="kitchen",
        details=details,
    )


def standing(
    rng: np.random.Generator, number: int, look: tuple[str, str], size: float, ground_y: float, x: float = 0.0
) -> Body:
    """A body of a kind and a colour's name that stands on a ground, its albedo a little off the palette's."""
    kind, colour = look
    return Body(
        id=number, kind=kind, colour=colour, albedo=jitter(rng, ALBEDO[colour], 5), x=x, y=ground_y - size, size=size
    )


def sample_produce(
    rng: np.random.Generator, ids: Ids, kinds: Iterable[str], ground_y: float, share: float = 1.0
) -> Body | None:
    """A vegetable or fruit of one of the kinds, `share` of its usual size; None when its colours are taken."""
    kind = pick(rng, list(kinds))
    colour = ids.colour(rng, kind, PRODUCE[kind].colours)
    if colour is None:
        return None
    low, high = PRODUCE[kind].size_px
    body = standing(rng, ids.number(), (kind, colour), tenth(share * rng.uniform(low, high)), ground_y)
    return body.with_details(flip=float(pick(rng, (-1, 1))))


def sample_jar(rng: np.random.Generator, ids: Ids, ground_y: float, share: float = 1.0) -> Group | None:
    """A jar of preserve with its lid on, `share` of its usual size; None when its colours are taken."""
    colour = ids.colour(rng, "jar", PRESERVES)
    if colour is None:
        return None
    jar = standing(rng, ids.number(), ("jar", colour), tenth(share * rng.uniform(16.0, 19.5)), ground_y)
    jar = jar.with_details(fill=uniform(rng, 0.7, 0.9))
    caps = [each for each in (*COLOURS, "silver", "brown", "navy", "turquoise") if each != colour]
    size = tenth(share * rng.uniform(7.8, 8.6))
    cap = ids.colour(rng, "lid", caps)
    assert cap is not None
    lid = standing(rng, ids.number(), ("lid", cap), size, jar.y - jar.size)
    half = float(np.round(0.7 * jar.size / (LID_SHARE * size), 2))
    return jar, lid.with_details(half=half, style=pick(rng, ("screw", "screw", "knob")))


def sample_distractor(rng: np.random.Generator, ids: Ids, ground_y: float) -> Group | None:
    """Something that stands about and has no part in the edit."""
    what = pick(rng, ("round", "round", "long", "jar", "mug", "pan"))
    if what == "jar":
        return sample_jar(rng, ids, ground_y, ASIDE)
    if what in CROCKERY:
        colour = ids.colour(rng, what, CROCKERY_COLOURS)
        assert colour is not None
        body = standing(rng, ids.number(), (what, colour), tenth(ASIDE * rng.uniform(*CROCKERY[what])), ground_y)
        return (body.with_details(flip=float(pick(rng, (-1, 1)))),)
    food = sample_produce(rng, ids, [k for k, p in PRODUCE.items() if p.long == (what == "long")], ground_y, ASIDE)
    return None if food is None else (food,)


def extent(group: Iterable[Body]) -> tuple[float, float, float]:
    """Left, right and top of all that hides something."""
    points = [point for body in group for polygon in solid_polygons(body) for point in polygon]
    return min(x for x, _ in points), max(x for x, _ in points), min(y for _, y in points)


def shifted(group: Group, dx: float) -> Group:
    """The group moved sideways."""
    return tuple(replace(body, x=body.x + dx) for body in group)


def arranged(rng: np.random.Generator, groups: Sequence[Group], gap_px: float = GAP_PX) -> list[Group] | None:
    """The groups side by side from left to right, the free space shared out at random; None when they do not fit."""
    extents = [extent(group) for group in groups]
    free = WORLD_SIZE - 2 * MARGIN_PX - (len(groups) - 1) * gap_px - sum(right - left for left, right, _ in extents)
    if free < 0:
        return None
    spare = np.diff(np.concatenate([[0.0], np.sort(rng.uniform(0, free, len(groups)))]))
    placed, edge = [], MARGIN_PX
    for group, (left, right, _), extra in zip(groups, extents, spare, strict=True):
        edge += float(extra)
        placed.append(shifted(group, tenth(edge - left)))
        edge += right - left + gap_px
    return placed


def with_distractors(
    rng: np.random.Generator, ids: Ids, middle: Sequence[Group], ground_y: float, most: int
) -> list[Group] | None:
    """The groups in the middle, and up to `most` other things to their left and right; None when they do not fit."""
    left: list[Group] = []
    right: list[Group] = []
    for _ in range(int(rng.integers(most + 1))):
        group = sample_distractor(rng, ids, ground_y)
        if group is not None:
            (left if rng.uniform() < 0.5 else right).append(group)
    placed = arranged(rng, [*left, *middle, *right])
    return (
        None
        if placed is None
        else [*placed[len(left) : len(left) + len(middle)], *placed[: len(left)], *placed[len(left) + len(middle) :]]
    )


def clear_y(bodies: Iterable[Body]) -> float:
    """As low as a thing may be carried over the bodies."""
    return extent(bodies)[2] - 2.5


def carried(body: Body, point: tuple[float, float], at_x: float, bottom_y: float, angle: float) -> Body:
    """The body turned by `angle`, a point of its own frame at `at_x`, its lowest corner at `bottom_y`."""
    turned = replace(body, x=0.0, y=0.0, angle=angle)
    ((x, _),) = turned.placed([point])
    return replace(turned, x=at_x - x, y=bottom_y - turned.span[3])
