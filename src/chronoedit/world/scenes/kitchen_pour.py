"""Pouring: what leaves the tilted vessel is in the stream or in the other vessel; its area is the same at all times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..geometry import Point, Polygon, area, below, filled, span
from ..kinds.kitchen_vessels import CLEAR, VESSELS, lip_of, room_of
from ..language import named
from ..measures import AreaMeasure
from ..palette import mixed
from ..physics import between, ease
from ..state import ALBEDO, FIRST_BODY_ID, Backdrop, Body, State
from .base import jitter, pick
from .kitchen_stage import (
    Group,
    Ids,
    Plot,
    carried,
    clear_y,
    sample_produce,
    standing,
    uniform,
    with_distractors,
)

POURS = (0.32, 0.68)  # when the first and the last of it leaves the lip
LEAVES_PX, GRAVITY_PX = 220.0, 4000.0  # speed at the lip and its growth, per edit and per edit squared
STEEPEST = 1.9  # radians
FULLEST = 0.74  # of a glass
TINT_CONTRAST = 70.0  # of 441
TINTS = ("turquoise", "blue", "green", "purple", "brown", "navy", "orange", "red")
WORDS: dict[str, tuple[str, ...]] = {
    "yellow": ("mixture", "sauce", "juice", "liquid"),
    "orange": ("juice", "mixture", "sauce", "liquid"),
    "red": ("juice", "sauce", "mixture", "liquid"),
    "green": ("juice", "sauce", "mixture", "liquid"),
    "purple": ("juice", "mixture", "liquid"),
    "pink": ("juice", "mixture", "sauce", "liquid"),
    "brown": ("sauce", "mixture", "liquid"),
    "blue": ("liquid", "mixture"),
}
IN_DISH = ("tomato", "bell_pepper", "onion")
IN_DISH_COUNT = 2


@dataclass(kw_only=True)
class Pour(Plot):
    """A vessel is lifted, tilted over another until what has to leave it has left, and set down where it stood.

    `order` is the order in which bodies are drawn, by id.
    """

    start: State
    subject: int
    slots: Mapping[str, str]
    source: Body
    target: Body
    contents: Body
    stream: int
    amount: float
    over_x: float
    checks: tuple[str, ...] = ("inside",)
    order: tuple[int, ...] = ()
    _tilts: dict[float, float] = field(default_factory=dict, repr=False)

    def measures(self) -> tuple[AreaMeasure, ...]:
        return (AreaMeasure(name="poured", ids=(self.subject,), tolerance=0.35),)

    @property
    def held(self) -> float:
        """Area of what the vessel holds at the start, px²."""
        return area(self.contents.outline())

    @cached_property
    def high(self) -> float:
        """As low as the vessel may be over the others."""
        return clear_y(self.start.others(self.source.id))

    @property
    def slack(self) -> float:
        """By how much it may be short of running over the lip, px²: the last drops do not need another quarter turn."""
        return 0.015 * self.held

    def left(self, t: float) -> float:
        """Area that has not left the vessel at time t."""
        u = min(max((t - POURS[0]) / (POURS[1] - POURS[0]), 0.0), 1.0)
        return self.held - self.amount * u * u * (3 - 2 * u)

    def vessel(self, t: float) -> Body:
        """The vessel that pours, at time t."""
        start, end = (self._tilt(self.left(each)) for each in POURS)
        if t <= POURS[0]:
            tilt = between(0.0, start, t, 0.16, POURS[0])
        else:
            tilt = self._tilt(self.left(t)) if t < POURS[1] else between(end, 0.0, t, POURS[1] + 0.01, 0.84)
        lip, side = lip_of(self.source), self.source.detail("flip", 1.0)
        ((home_x, _),) = self.source.placed([lip])
        home_y = self.source.span[3]
        there = ease((t - 0.1) / 0.2) - ease((t - 0.7) / 0.19)
        up = ease(t / 0.14) - ease((t - 0.86) / 0.14)
        at_x, bottom = home_x + (self.over_x - home_x) * there, home_y + (self.high - home_y) * up
        return carried(self.source, lip, at_x, bottom, side * tilt) if 0 < t < 1 else self.source

    def state(self, t: float) -> State:
        vessel, rest = self.vessel(t), self.left(t)
        stream, landed = self._falling(t, vessel)
        bodies = {body.id: body for body in self.start.bodies}
        bodies[vessel.id] = vessel
        bodies.pop(self.contents.id)
        if rest > 1e-6:
            bodies[self.contents.id] = held_by(vessel, filled(room_of(vessel), rest), self.contents)
        if stream:
            bodies[self.stream] = outlined(replace(self.contents, id=self.stream, kind="stream"), stream)
        if landed > 1.0:
            pool = held_by(self.target, filled(room_of(self.target), landed), self.contents)
            bodies[self.subject] = replace(pool, id=self.subject).with_details(host=float(self.target.id))
        return replace(self.start, bodies=tuple(bodies[each] for each in self.order if each in bodies))

    def _tilt(self, contents: float) -> float:
        """The angle at which the vessel holds just so much: a little more, and it runs over the lip."""
        if contents not in self._tilts:
            low, high = 0.0, STEEPEST
            for _ in range(30):
                tilt = (low + high) / 2
                low, high = (tilt, high) if _holds(self.source, tilt) > contents + self.slack else (low, tilt)
            self._tilts[contents] = high
        return self._tilts[contents]

    def _falling(self, t: float, vessel: Body) -> tuple[Polygon, float]:
        """Outline of the stream (empty when there is none), and the area that has arrived."""
        gone, lip = self.held - self.left(t), vessel.placed([lip_of(vessel)])[0]
        landed = gone
        stream: Polygon = []
        for _ in range(4):
            pool = filled(room_of(self.target), max(landed, 0.0)) if landed > 1 else []
            level = span(pool)[1] if pool else span(room_of(self.target))[3]
            stream = self._ribbon(t, lip, level)
            landed = gone - (area(stream) if stream else 0.0)
        return stream, landed

    def _ribbon(self, t: float, lip: Point, level: float) -> Polygon:
        """The stream from the lip to the level: as wide at each height as what left the lip then makes it."""
        drop = max(level - lip[1], 1.0)
        fall = (math.sqrt(LEAVES_PX**2 + 2 * GRAVITY_PX * drop) - LEAVES_PX) / GRAVITY_PX
        first, last = max(0.0, t - POURS[1]), min(fall, t - POURS[0])
        mass = self.left(t - last) - self.left(t - first)
        if last - first < 1e-4 or mass < 1.0:
            return []
        across = (self.target.x - self.over_x) * 0.8 / fall
        times = np.linspace(first, last, 14)
        path = [(lip[0] + across * s, lip[1] + LEAVES_PX * s + GRAVITY_PX * s * s / 2) for s in times]
        widths = [
            (self.left(t - s - 0.005) - self.left(t - s + 0.005)) / 0.01 / (LEAVES_PX + GRAVITY_PX * s) for s in times
        ]
        ribbon = _banded(path, [abs(w) for w in widths])
        if area(ribbon) < 0.5:
            return []
        return _banded(path, [abs(w) * mass / area(ribbon) for w in widths])


def _holds(vessel: Body, tilt: float) -> float:
    """Area that the vessel holds when tilted so far to the side of its lip."""
    turned = replace(vessel, angle=vessel.detail("flip", 1.0) * tilt)
    ((_, lip_y),) = turned.placed([lip_of(turned)])
    part = below(room_of(turned), lip_y)
    return area(part) if len(part) > 2 else 0.0


def _banded(path: list[Point], widths: list[float]) -> Polygon:
    """A band along a path that mostly goes down, as wide in each point as said."""
    return [(x - w / 2, y) for (x, y), w in zip(path, widths, strict=True)] + [
        (x + w / 2, y) for (x, y), w in zip(path[::-1], widths[::-1], strict=True)
    ]


def outlined(body: Body, polygon: Polygon) -> Body:
    """The body with this outline, given in world px."""
    points = tuple(((x - body.x) / body.size, (y - body.y) / body.size) for x, y in polygon)
    return replace(body, points=points)


def held_by(vessel: Body, polygon: Polygon, liquid: Body) -> Body:
    """The liquid as it lies in the vessel."""
    return outlined(replace(liquid, x=vessel.x, y=vessel.y, size=vessel.size, angle=0.0), polygon)


def sample_pour(rng: np.random.Generator, backdrop: Backdrop) -> Pour | None:
    """A jug or a bowl, and beside it a glass, or a dish of vegetables."""
    ids, ground, flip = Ids(FIRST_BODY_ID, set()), backdrop.floor_y, float(pick(rng, (-1, 1)))
    into = pick(rng, ("glass", "dish"))
    source = _glass_body(
        rng,
        ids,
        backdrop,
        pick(rng, ("jug", "jug", "mixing_bowl") if into == "glass" else ("jug", "mixing_bowl", "mixing_bowl")),
        flip,
    )
    target = _glass_body(rng, ids, backdrop, into, 1.0)
    if source is None or target is None:
        return None
    vegetables = _vegetables(rng, ids, target) if into == "dish" else ()
    if vegetables is None:
        return None
    pair: list[Group] = [(source,), (target, *vegetables)]
    placed = with_distractors(rng, ids, pair if flip > 0 else pair[::-1], ground, 2 if into == "glass" else 1)
    if placed is None:
        return None
    (source,), (target, *vegetables_there) = placed[:2] if flip > 0 else placed[1::-1]
    others = [body for group in placed[2:] for body in group]
    return _poured(rng, ids, backdrop, (source, target, tuple(vegetables_there), others))


def _glass_body(rng: np.random.Generator, ids: Ids, backdrop: Backdrop, kind: str, flip: float) -> Body | None:
    """A vessel of glass in a tint that stands out from the wall; None when none does."""
    tints = [each for each in TINTS if math.dist(mixed(ALBEDO[each], CLEAR, 0.54), backdrop.wall) > TINT_CONTRAST]
    colour = ids.colour(rng, kind, tints)
    if colour is None:
        return None
    size = uniform(rng, *VESSELS[kind].size_px)
    return standing(rng, ids.number(), (kind, colour), size, backdrop.floor_y).with_details(flip=flip)


def _vegetables(rng: np.random.Generator, ids: Ids, dish: Body) -> Group | None:
    """Two of them side by side on the floor of the dish."""
    left, _, right, floor = span(room_of(dish))
    width = (right - left - 2) / IN_DISH_COUNT
    group = []
    for k in range(IN_DISH_COUNT):
        body = sample_produce(rng, ids, IN_DISH, floor)
        if body is None:
            return None
        size = min(uniform(rng, 9.2, 11.0), width / 2 / 1.18 - 0.2)
        x = left + 1 + width * (k + 0.5)
        group.append(replace(body, size=size, x=x, y=floor - size).with_details(ground_y=floor))
    return tuple(group)


def _poured(
    rng: np.random.Generator, ids: Ids, backdrop: Backdrop, things: tuple[Body, Body, Group, list[Body]]
) -> Pour | None:
    source, target, vegetables, others = things
    room, into = area(room_of(source)), room_of(target)
    left, top, right, floor = span(into)
    if vegetables:
        level = 0.72 * min(body.size for body in vegetables) * float(rng.uniform(0.8, 1.0))
        amount = area(below(into, floor - level))
        held = amount
    else:
        held = float(rng.uniform(0.5, 0.8)) * room
        amount = min(held, FULLEST * area(into))
        held = amount if held < 1.5 * amount else held
    if held > 0.86 * room:
        return None
    colour = pick(rng, [c for c in WORDS if c not in {source.colour, target.colour, *(v.colour for v in vegetables)}])
    contents = Body(
        id=ids.number(),
        kind="drink",
        colour=colour,
        albedo=jitter(rng, ALBEDO[colour], 5),
        x=source.x,
        y=source.y,
        size=source.size,
    ).with_details(host=float(source.id))
    contents = held_by(source, filled(room_of(source), held), contents)
    subject, stream = ids.number(), ids.number()
    bodies = (source, contents, target, *vegetables, *others)
    order = tuple(each.id for each in others) + (
        target.id,
        *(v.id for v in vegetables),
        subject,
        stream,
        source.id,
        contents.id,
    )
    ordered = {body.id: body for body in bodies}
    start = State(backdrop=backdrop, bodies=tuple(ordered[each] for each in order if each in ordered))
    side = source.detail("flip", 1.0)
    reach = 0.25 * (right - left) if not vegetables else float(rng.uniform(0.1, 0.3)) * (right - left)
    return Pour(
        start=start,
        subject=subject,
        slots=_words(rng, start, contents, source, target, vegetables),
        source=source,
        target=target,
        contents=contents,
        stream=stream,
        amount=amount,
        over_x=target.x - side * reach,
        order=order,
    )


def _words(
    rng: np.random.Generator, start: State, contents: Body, source: Body, target: Body, vegetables: Group
) -> dict[str, str]:
    """What is poured: by its colour, or by what it is in; and where."""
    words = WORDS[contents.colour] if not vegetables else ("mixture", "mixture", "sauce")
    what = f"{contents.colour} {pick(rng, words)}"
    if rng.uniform() < 0.3:
        what = named(rng, start, source)
    where = f"into the {named(rng, start, target)}"
    if vegetables and rng.uniform() < 0.8:
        where = pick(
            rng,
            ("over the vegetables", "over the vegetables", "onto the vegetables", "over the vegetables in the dish"),
        )
    return {"a": what, "where": where}
