"""Motion: eased paths for what the arm carries, and rigid bodies under gravity (pymunk) for what falls."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pymunk

from .state import WORLD_SIZE, Body, State

GRAVITY_PX_S2 = 320.0
STEPS_PER_FRAME = 40


def ease(t: float) -> float:
    """Minimum-jerk progress 0 → 1 for t in [0, 1], at rest at both ends (Flash and Hogan 1985)."""
    t = min(max(t, 0.0), 1.0)
    return t**3 * (10 - 15 * t + 6 * t**2)


def between(start: float, end: float, t: float, t0: float, t1: float) -> float:
    """Eased value at t of a move from `start` to `end` that lasts from t0 to t1."""
    return start + (end - start) * ease((t - t0) / (t1 - t0))


def simulate(state: State, moving: tuple[int, ...], *, frames: int, duration_s: float) -> list[State]:
    """Let the bodies `moving` fall; the others stand where they are.

    Returns `frames` states, equally spaced in time; the first is `state` itself. Deterministic.
    """
    space = pymunk.Space(threaded=False)
    space.gravity = (0, GRAVITY_PX_S2)
    space.collision_slop = 0.05
    _add_floor(space, state.backdrop.floor_y)
    handles = {body.id: _add_body(space, body, dynamic=body.id in moving) for body in state.bodies}
    dt = duration_s / (frames - 1) / STEPS_PER_FRAME
    states = [state]
    for _ in range(frames - 1):
        for _ in range(STEPS_PER_FRAME):
            space.step(dt)
        states.append(_read(state, handles, moving))
    return states


def _read(state: State, handles: dict[int, pymunk.Body], moving: tuple[int, ...]) -> State:
    for body_id in moving:
        body, handle = state.body(body_id), handles[body_id]
        assert body is not None
        state = state.with_body(replace(body, x=handle.position.x, y=handle.position.y, angle=handle.angle))
    return state


def _add_floor(space: pymunk.Space, floor_y: float) -> None:
    corners = [
        (-WORLD_SIZE, floor_y),
        (2 * WORLD_SIZE, floor_y),
        (2 * WORLD_SIZE, floor_y + 60),
        (-WORLD_SIZE, floor_y + 60),
    ]
    floor = pymunk.Poly(space.static_body, corners)
    floor.friction, floor.elasticity = 0.9, 0.3
    space.add(floor)


def _add_body(space: pymunk.Space, body: Body, *, dynamic: bool) -> pymunk.Body:
    handle = pymunk.Body(body_type=pymunk.Body.DYNAMIC if dynamic else pymunk.Body.STATIC)
    # pymunk turns a body about its position, which is taken for the centre of mass: for a cone that is close enough
    # while it falls upright, and its moment is computed from the true outline
    handle.position, handle.angle = (body.x, body.y), body.angle
    local = [(x - body.x, y - body.y) for x, y in replace(body, angle=0.0).outline()]
    shape: pymunk.Shape = pymunk.Circle(handle, body.size) if body.kind == "ball" else pymunk.Poly(handle, local)
    shape.friction, shape.elasticity, shape.density = 0.9, 0.3, 0.01
    space.add(handle, shape)
    return handle


def gap_px(a: Body, b: Body) -> float:
    """Signed gap between two bodies in px: negative when they overlap (separating axes of their outlines).

    A star counts as no less than what its points span.
    """
    pa, pb = np.asarray(a.outline()), np.asarray(b.outline())
    best = -math.inf
    for polygon in (pa, pb):
        edges = np.roll(polygon, -1, axis=0) - polygon
        normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        for normal in normals:
            qa, qb = pa @ normal, pb @ normal
            best = max(best, float(qb.min() - qa.max()), float(qa.min() - qb.max()))
    return best


def resting_gap_px(body: Body, state: State) -> float:
    """Distance in px from the lowest point of `body` down to the floor, or to the top of what it stands on."""
    bottom = max(y for _, y in body.outline())
    tops = [state.backdrop.floor_y]
    for other in state.others(body.id):
        outline = other.outline()
        left, right = min(x for x, _ in outline), max(x for x, _ in outline)
        if left <= body.x <= right and other.y > body.y:
            tops.append(min(y for _, y in outline))
    return min(tops) - bottom
