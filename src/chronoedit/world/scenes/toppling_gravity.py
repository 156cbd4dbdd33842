"""Things that are released where gravity is not what it is on earth: none at all, or to a side, or upwards.

The instruction tells it, and it is data of the backdrop: `gravity_x` and `gravity_y` in px/s².
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..language import named
from ..physics import GRAVITY_PX_S2, Release
from ..state import Arm, Backdrop, Body, State, grip_width, wrist_height
from .base import pick, sample_row
from .grasp import grasp
from .toppling_stage import Plan, tenths

WAYS = {"to the left": (-1.0, 0.0), "to the right": (1.0, 0.0), "upwards": (0.0, -1.0)}


def _above_the_floor(
    rng: np.random.Generator, backdrop: Backdrop, gravity: tuple[float, float], heights: tuple[float, float]
) -> tuple[State, Body] | None:
    """A row of which one body is in the air, its centre between two heights; the others are fixed to the floor."""
    bodies = sample_row(rng, int(rng.integers(2, 4)), backdrop.floor_y, gap_px=5.0)
    if bodies is None:
        return None
    k = int(rng.integers(len(bodies)))
    bodies[k] = replace(bodies[k], y=tenths(rng, *heights))
    details = (("gravity_x", gravity[0]), ("gravity_y", gravity[1]))
    return State(backdrop=replace(backdrop, details=details), bodies=tuple(bodies)), bodies[k]


def release_weightless(rng: np.random.Generator, backdrop: Backdrop) -> Plan | None:
    """The arm lets go of a body, and it stays where it is."""
    found = _above_the_floor(rng, backdrop, (0.0, 0.0), (48, 56))
    if found is None:
        return None
    state, body = found
    arm = Arm(x=body.x, y=wrist_height(body), opening=grip_width(body))
    start = replace(state, arm=arm)
    return Plan(
        start=start,
        loose=start,
        release=Release(moving=(body.id,), gravity=(0.0, 0.0)),
        slots={"a": named(rng, start, body)},
        subject=body.id,
        checks=(),
        grasp=grasp(arm, body, [], held=True),
    )


def release_sideways(rng: np.random.Generator, backdrop: Backdrop) -> Plan | None:
    """A body on a rope falls to the left, to the right or up, and comes to rest at the edge of the picture."""
    way = pick(rng, list(WAYS))
    gravity = (WAYS[way][0] * GRAVITY_PX_S2, WAYS[way][1] * GRAVITY_PX_S2)
    found = _above_the_floor(rng, backdrop, gravity, (42, 54) if way == "upwards" else (30, 52))
    if found is None:
        return None
    loose, body = found
    start = replace(loose, ropes=(body.id,))
    return Plan(
        start=start,
        loose=loose,
        release=Release(moving=(body.id,), gravity=gravity, walls=True, rolling_px_s2=80.0, elasticity=0.2),
        slots={"a": named(rng, start, body), "way": way},
        subject=body.id,
        checks=(),
        duration_s=1.3,
        leans=body.kind in ("cup", "cone"),
    )
