"""Targets spoiled on purpose: what a scorer must refuse. Same item and spoiling, same picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from chronoedit.world import WORLD_SIZE, Item
from chronoedit.world.kinds import KIND_TABLE
from chronoedit.world.palette import turned_hue
from chronoedit.world.render import id_mask, render
from chronoedit.world.state import COLOURS, KINDS, Body, State

from .colour import delta_e, srgb_to_lab

DRAWS = 40
FAR_DE = 30.0  # a colour that is closer than this might pass for the body's own
CLEAR_DE = 20.0  # a twin that differs less from what is behind it cannot be told from it


def spoiled(item: Item, how: str) -> np.ndarray | None:
    """The item's target with one of its bodies spoiled in the way `how`, a name in SPOILINGS: uint8 size size 3.

    None when this scene leaves no room for that. The body and the place are drawn from the item's seed.

    Raises ValueError for an unknown `how`.
    """
    if how not in SPOILINGS:
        raise ValueError(f"unknown spoiling {how!r}; choose one of {', '.join(SPOILINGS)}")
    rng = np.random.default_rng((item.seed, list(SPOILINGS).index(how)))
    if not item.end.bodies:
        return None
    body = item.end.bodies[int(rng.integers(len(item.end.bodies)))]
    state = SPOILINGS[how](rng, item.end, body)
    return None if state is None else render(state, item.size)


def _inside(body: Body) -> bool:
    return all(0 <= x <= WORLD_SIZE and 0 <= y <= WORLD_SIZE for x, y in body.outline())


def _moved(rng: np.random.Generator, state: State, body: Body) -> State | None:
    """By one radius, in a direction that keeps the body in the picture."""
    for _ in range(DRAWS):
        turn = rng.uniform(0, 2 * math.pi)
        moved = replace(body, x=body.x + body.size * math.cos(turn), y=body.y + body.size * math.sin(turn))
        if _inside(moved):
            return state.with_body(moved)
    return None


def _recoloured(rng: np.random.Generator, state: State, body: Body) -> State | None:
    used = {other.colour for other in state.bodies}
    free = [colour for colour in COLOURS if colour not in used]
    for albedo in (*(COLOURS[str(colour)] for colour in rng.permutation(free)), turned_hue(body.albedo, 0.5)):
        spoilt = state.with_body(replace(body, albedo=albedo))
        if _difference(state, spoilt, body) > FAR_DE:
            return spoilt
    return None


def _difference(state: State, spoilt: State, body: Body) -> float:
    """Median ΔE at the pixels of a body of `spoilt`; 0 when none is to be seen."""
    where = id_mask(spoilt) == body.id
    if not where.any():
        return 0.0
    return float(np.median(delta_e(*(srgb_to_lab(render(each)[where]) for each in (state, spoilt)))))


def _missing(_rng: np.random.Generator, state: State, body: Body) -> State:
    return replace(state.without(body.id), ropes=tuple(r for r in state.ropes if r != body.id))


def _doubled(rng: np.random.Generator, state: State, body: Body) -> State | None:
    """A second one at least a diameter away from every body, before what does not look like it."""
    for _ in range(DRAWS):
        twin = replace(
            body, id=max(b.id for b in state.bodies) + 1, x=rng.uniform(0, WORLD_SIZE), y=rng.uniform(20, 110)
        )
        apart = all(math.hypot(twin.x - b.x, twin.y - b.y) > 2 * max(twin.size, b.size) for b in state.bodies)
        if apart and _inside(twin) and _difference(state, spoilt := state.with_body(twin), twin) > CLEAR_DE:
            return spoilt
    return None


def _reshaped(rng: np.random.Generator, state: State, body: Body) -> State:
    """Of another kind, in the same place and of the same half extent: one that is taken for it, if there is any."""
    if body.kind in KINDS or body.kind == "star":
        kinds = [kind for kind in KINDS if kind != body.kind]
    else:
        alike = [name for name, kind in KIND_TABLE.items() if kind.group and kind.group == body.look.group]
        kinds = [name for name in alike if name != body.kind and not body.points] or list(KINDS)
    return state.with_body(replace(body, kind=str(rng.choice(kinds)), points=()))


SPOILINGS: dict[str, Callable[[np.random.Generator, State, Body], State | None]] = {
    "moved": _moved,
    "recoloured": _recoloured,
    "missing": _missing,
    "doubled": _doubled,
    "reshaped": _reshaped,
}
