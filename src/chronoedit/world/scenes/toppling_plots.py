"""Supports that are taken away, stacks that topple, balls that roll down ramps, and rows of dominoes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..kinds.blocks import DOMINO_HALF, RAMP_BACK, RAMP_EDGE
from ..language import named
from ..physics import Release, gap_px
from ..state import WORLD_SIZE, Backdrop, Body, State
from .base import pick
from .toppling_stage import MARGIN_PX, Palette, Plan, tenths

PULL_PX_S2 = 2200.0
FADE_FRAMES = 6
UPRIGHT_RAD, ASIDE_PX = 0.06, 3.0


def remove_support(rng: np.random.Generator, backdrop: Backdrop) -> Plan:
    """One of two or three things that stand on one another is taken from under the others: it fades, or is pulled."""
    palette, floor, x = Palette(rng), backdrop.floor_y, tenths(rng, 26, 102)
    pile = palette.pile(*_pile(rng), x, floor)
    gone, side = int(rng.integers(len(pile) - 1)), pick(rng, (-1, 1))
    pulled = gone == 0 and rng.uniform() < 0.5
    taken = (x - 24.0 if side > 0 or not pulled else 0.0, x + 24.0 if side < 0 or not pulled else float(WORLD_SIZE))
    start = State(backdrop=backdrop, bodies=palette.with_bystanders(pile, floor, taken))
    support, above = pile[gone], pile[gone + 1]
    moving = tuple(body.id for body in pile[gone + 1 :])
    pull = {support.id: PULL_PX_S2 * side} if pulled else {}

    def straight_down(end: State) -> bool:
        fallen = [body for body in end.bodies if body.id in moving]
        return all((b.look.rolls or abs(b.angle) < UPRIGHT_RAD) and abs(b.x - x) < ASIDE_PX for b in fallen)

    return Plan(
        start=start,
        loose=start if pulled else start.without(support.id),
        release=Release(moving=moving, pulled=pull, elasticity=0.15, rolling_px_s2=60.0),
        slots={"a": named(rng, start, support), "b": named(rng, start, above)},
        subject=above.id,
        checks=("supported",),
        duration_s=1.1,
        fade_frames=0 if pulled else FADE_FRAMES,
        accept=straight_down,
    )


def _pile(rng: np.random.Generator) -> tuple[list[str], list[float]]:
    """Kinds and sizes from the lowest up: flat things, and anything on top; a pillar is taller than it is wide."""
    size, between = tenths(rng, 9, 11.5), int(rng.integers(0, 2))
    kinds = [pick(rng, ("cube", "crate", "pillar")), *(pick(rng, ("cube", "crate")) for _ in range(between))]
    sizes = [tenths(rng, 0.85 * size, size) for _ in kinds]
    sizes[0] = float(np.round(1.25 * size, 1)) if kinds[0] == "pillar" else size
    return [*kinds, pick(rng, ("ball", "cube", "cup", "crate", "cone"))], [*sizes, tenths(rng, 0.85 * size, size)]


def topple(rng: np.random.Generator, backdrop: Backdrop) -> Plan:
    """A tower of three or four blocks turns about a corner of its foot, as after a push at its top."""
    palette, floor, side = Palette(rng), backdrop.floor_y, int(pick(rng, (-1, 1)))
    high, size = int(rng.integers(3, 5)), tenths(rng, 7, 8.8)
    from_edge = tenths(rng, 14, WORLD_SIZE - 2 * size * high - 14)
    x = from_edge if side > 0 else WORLD_SIZE - from_edge
    kinds = pick(rng, (("cube",), ("crate",), ("cube", "crate")))
    stack = palette.pile([pick(rng, kinds) for _ in range(high)], [size] * high, x, floor)
    taken = (x - size - 4, float(WORLD_SIZE)) if side > 0 else (0.0, x + size + 4)
    start = State(backdrop=backdrop, bodies=palette.with_bystanders(stack, floor, taken))
    spin, moving = side * tenths(rng, 1.7, 2.3), tuple(body.id for body in stack)

    def all_on_the_floor(end: State) -> bool:
        return all(abs(body.span[3] - floor) < 1 for body in end.bodies if body.id in moving)

    return Plan(
        start=start,
        loose=start,
        release=Release(moving=moving, starts=_about(stack, (x + side * size, floor), spin), elasticity=0.05),
        slots={"side": "right" if side > 0 else "left"},
        subject=stack[-1].id,
        duration_s=1.9,
        accept=all_on_the_floor,
    )


def _about(bodies: list[Body], corner: tuple[float, float], spin: float) -> dict[int, tuple[float, float, float]]:
    """Velocities of bodies that turn about a corner as if they were one."""
    return {b.id: (-spin * (b.y - corner[1]), spin * (b.x - corner[0]), spin) for b in bodies}


def roll(rng: np.random.Generator, backdrop: Backdrop) -> Plan:
    """A ball on a ramp's platform gets a push; it rolls out on the floor, or against a block."""
    palette, floor, flip = Palette(rng), backdrop.floor_y, int(pick(rng, (-1, 1)))
    height, radius, from_edge = tenths(rng, 13, 17), tenths(rng, 7, 9), tenths(rng, 20, 34)
    x = from_edge if flip > 0 else WORLD_SIZE - from_edge
    ramp = palette.body("ramp", height, x, floor).with_details(flip=float(flip))
    ball = palette.body("ball", radius, x + flip * height * (RAMP_BACK + RAMP_EDGE) / 2, floor - 2 * height)
    bodies = (ramp, ball, _stop(rng, palette, floor, flip)) if rng.uniform() < 0.4 else (ramp, ball)
    start, push = State(backdrop=backdrop, bodies=bodies), flip * tenths(rng, 42, 52)

    def on_the_floor(end: State) -> bool:
        last = end.body(ball.id)
        return last is not None and abs(last.span[3] - floor) < 1 and gap_px(ramp, last) > -1

    return Plan(
        start=start,
        loose=start,
        release=Release(
            moving=(ball.id,),
            starts={ball.id: (push, 0.0, push / radius)},
            rolling_px_s2=tenths(rng, 68, 80),
            elasticity=0.05,
        ),
        slots={"a": named(rng, start, ball), "b": named(rng, start, ramp)},
        subject=ball.id,
        duration_s=2.9,
        accept=on_the_floor,
    )


def _stop(rng: np.random.Generator, palette: Palette, floor_y: float, flip: int) -> Body:
    """A block at the far side, which a ball may run against."""
    stop, x = palette.body(pick(rng, ("cube", "crate")), tenths(rng, 8, 10), 0.0, floor_y), tenths(rng, 104, 114)
    return replace(stop, x=x if flip > 0 else WORLD_SIZE - x)


def domino(rng: np.random.Generator, backdrop: Backdrop) -> Plan | None:
    """A row of dominoes, the first of which turns about the corner of its foot, as after a push at its top."""
    palette, floor, side = Palette(rng), backdrop.floor_y, int(pick(rng, (-1, 1)))
    count, size = int(rng.integers(4, 7)), tenths(rng, 11.5, 13.5)
    apart, half = tenths(rng, 0.95 * size, 1.2 * size), DOMINO_HALF * size
    length = (count - 1) * apart + 2 * (size + half)
    if length > WORLD_SIZE - 2 * MARGIN_PX:
        return None
    first = tenths(rng, MARGIN_PX + half, WORLD_SIZE - MARGIN_PX - length + half)
    places = [first + k * apart for k in range(count)]
    row = [palette.body("domino", size, x if side > 0 else WORLD_SIZE - x, floor) for x in places]
    lead, moving = row[0], tuple(body.id for body in row)
    ends = sorted((lead.x - side * 5, lead.x + side * length))
    start = State(backdrop=backdrop, bodies=palette.with_bystanders(row, floor, (ends[0], ends[1])))
    push = _about([lead], (lead.x + side * half, floor), side * tenths(rng, 2.2, 2.8))

    def all_fell(end: State) -> bool:
        fallen = [body for body in end.bodies if body.id in moving]
        return all(side * body.angle > 0.5 and abs(body.span[3] - floor) < 1 for body in fallen)

    return Plan(
        start=start,
        loose=start,
        release=Release(moving=moving, starts=push, friction=0.45, elasticity=0.0),
        slots={"a": f"{lead.colour} domino"},
        subject=lead.id,
        duration_s=2.2,
        leans=True,
        accept=all_fell,
    )
