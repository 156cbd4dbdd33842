"""Seasoning: a shaker is turned over a soup and shaken; what falls out of it stays on the surface, grain by grain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..geometry import Point
from ..kinds.kitchen_vessels import MOUTHS, surface_of
from ..measures import AreaMeasure
from ..physics import ease
from ..state import ALBEDO, FIRST_BODY_ID, Backdrop, Body, State
from .base import jitter, pick
from .kitchen_stage import CROCKERY_COLOURS, Ids, Plot, carried, clear_y, standing, uniform, with_distractors

SHAKES = (0.33, 0.66)
FALLS = 0.09  # of the edit, from the shaker to the soup
GRAIN_PX = 2.0
GRAINS = 72
SPREAD = (0.68, 0.66)  # of the soup's half axes, that the grains reach
COVERED = 165.0  # contrast that is left
COVERS = (0.7, 0.88)  # how much of the soup the grains hide, the less the more they stand out: it soaks them
OVER = 2.45  # radians: the cap points down
SEASONINGS: dict[str, tuple[str, ...]] = {  # by colour: what it is called
    "white": ("salt", "sugar"),
    "black": ("pepper", "black pepper"),
    "red": ("paprika", "chili powder"),
    "green": ("parsley", "herbs", "basil"),
    "yellow": ("curry powder", "turmeric"),
    "brown": ("cinnamon", "nutmeg"),
}
SOUPS = ("orange", "red", "green", "yellow", "beige", "brown")
CONTRAST = 172.0  # of 441: how far the colours of seasoning and soup are apart


@dataclass(kw_only=True)
class Season(Plot):
    """`grains` is what lies on the soup at the end; `leaves` is when each grain leaves the shaker."""

    start: State
    subject: int
    slots: Mapping[str, str]
    shaker: Body
    grains: Body
    leaves: tuple[float, ...]
    checks: tuple[str, ...] = ("inside",)

    def measures(self) -> tuple[AreaMeasure, ...]:
        return (AreaMeasure(name="seasoned", ids=(self.subject,), tolerance=0.35),)

    @cached_property
    def high(self) -> float:
        """As low as the shaker may be over the others."""
        return clear_y(self.start.others(self.shaker.id)) - 5.0

    def held(self, t: float) -> Body:
        """The shaker at time t."""
        shaker, side = self.shaker, self.shaker.detail("flip", 1.0)
        if not 0 < t < 1:
            return shaker
        over = ease((t - 0.12) / 0.2) - ease((t - 0.67) / 0.2)
        there = ease((t - 0.12) / 0.19) - ease((t - 0.69) / 0.19)
        up = ease(t / 0.14) - ease((t - 0.87) / 0.13)
        strong = ease((t - SHAKES[0]) / 0.05) - ease((t - SHAKES[1]) / 0.03)
        beat = math.sin(2 * math.pi * 5 * (t - SHAKES[0]) / (SHAKES[1] - SHAKES[0])) * strong
        bottom = shaker.span[3] + (self.high - shaker.span[3]) * up + 1.6 * beat
        x = shaker.x + (self.grains.x - 2.0 * side - shaker.x) * there
        return carried(shaker, (0.0, -1.0 * over), x, bottom, side * (OVER * over + 0.14 * beat))

    def state(self, t: float) -> State:
        state = self.start.with_body(self.held(t))
        if t >= 1:
            return state.with_body(self.grains)
        places = self.grains.placed(list(self.grains.points))
        flying = [self._at(place, leaves, t) for place, leaves in zip(places, self.leaves, strict=True) if leaves < t]
        if len(flying) < 3:
            return state
        x, y, size = self.grains.x, self.grains.y, self.grains.size
        return state.with_body(replace(self.grains, points=tuple(((u - x) / size, (v - y) / size) for u, v in flying)))

    def _at(self, place: Point, leaves: float, t: float) -> Point:
        """Where a grain is that ends at `place`: it falls freely, and a little sideways."""
        share = min((t - leaves) / FALLS, 1.0)
        ((x, y),) = self.held(leaves).placed([(0.0, -1.0)])
        return x + (place[0] - x) * share, y + (place[1] - y) * (0.3 * share + 0.7 * share**2)


def sample_season(rng: np.random.Generator, backdrop: Backdrop) -> Season | None:
    """A bowl or a pot of soup with a shaker beside it, and what stands about."""
    ids, ground, side = Ids(FIRST_BODY_ID, set()), backdrop.floor_y, float(pick(rng, (-1, 1)))
    spice = pick(rng, list(SEASONINGS))
    tint = pick(rng, [each for each in SOUPS if math.dist(ALBEDO[each], ALBEDO[spice]) > CONTRAST])
    colour = pick(rng, [each for each in CROCKERY_COLOURS if math.dist(ALBEDO[each], ALBEDO[tint]) > 90])
    host = standing(rng, ids.number(), (pick(rng, list(MOUTHS)), colour), uniform(rng, 14.0, 16.4), ground)
    host = host.with_details(soup=tint)
    shaker = standing(rng, ids.number(), ("shaker", spice), uniform(rng, 10.6, 12.2), ground).with_details(flip=side)
    pair = [(shaker,), (host,)]
    placed = with_distractors(rng, ids, pair if side > 0 else pair[::-1], ground, 2)
    if placed is None:
        return None
    (shaker,), (host,) = placed[:2] if side > 0 else placed[1::-1]
    others = [body for group in placed[2:] for body in group]
    start = State(backdrop=backdrop, bodies=(*others, host, shaker))
    grains, leaves = _sprinkled(rng, ids, host, spice)
    slots = {"a": _called(rng, host), "what": pick(rng, SEASONINGS[spice])}
    return Season(start=start, subject=grains.id, slots=slots, shaker=shaker, grains=grains, leaves=leaves)


def _called(rng: np.random.Generator, host: Body) -> str:
    """The soup, sometimes by its colour, or by what it is in."""
    name = f"{host.detail('soup', '')} soup" if rng.uniform() < 0.4 else "soup"
    return f"{name} in the {host.look.noun}" if host.kind == "pot" and rng.uniform() < 0.3 else name


def _sprinkled(rng: np.random.Generator, ids: Ids, host: Body, colour: str) -> tuple[Body, tuple[float, ...]]:
    """Grains on the soup, thick in the middle and thinner around; and when each of them falls."""
    y, half, high = (value * host.size for value in surface_of(host.kind))
    angles, radii = rng.uniform(0, 2 * math.pi, GRAINS), rng.uniform(0, 1, GRAINS) ** 0.5
    size = float(np.round(0.4 * half, 1))
    spots = [
        (r * math.cos(a) * SPREAD[0] * half / size, r * math.sin(a) * SPREAD[1] * high / size)
        for a, r in zip(angles, radii, strict=True)
    ]
    points = tuple((float(np.round(u, 3)), float(np.round(v, 3))) for u, v in sorted(spots, key=lambda spot: spot[1]))
    grains = Body(
        id=ids.number(),
        kind="grains",
        colour=colour,
        albedo=jitter(rng, ALBEDO[colour], 4),
        x=host.x,
        y=host.y + y,
        size=size,
        points=points,
        alpha=_cover(colour, host.detail("soup", "")),
    ).with_details(grain=float(np.round(GRAIN_PX / size, 3)), host=float(host.id))
    leaves = np.sort(rng.uniform(SHAKES[0] + 0.02, SHAKES[1] - 0.02, GRAINS))
    return grains, tuple(float(np.round(each, 3)) for each in rng.permutation(leaves))


def _cover(colour: str, soup: str) -> float:
    return float(np.round(np.clip(COVERED / math.dist(ALBEDO[colour], ALBEDO[soup]), *COVERS), 2))
