"""Motion: eased paths for what the arm carries, and rigid bodies under gravity (pymunk) for what falls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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


def tween(before: Body, after: Body, t: float) -> Body:
    """A body on its way from one look to another at t in [0, 1], eased: place, size, angle, colour, details, points.

    What is no number (kind, colour's name, details in words, another number of points) is already that of `after`.
    """
    share = ease(t)

    def mid(a: float, b: float) -> float:
        return a + (b - a) * share

    r, g, b = (round(mid(x, y)) for x, y in zip(before.albedo, after.albedo, strict=True))
    old = dict(before.details)
    details = tuple(
        (name, mid(first, value) if isinstance(value, float) and isinstance(first, float) else value)
        for name, value in after.details
        for first in [old.get(name, value)]
    )
    points = after.points
    if len(before.points) == len(points):
        points = tuple((mid(ax, bx), mid(ay, by)) for (ax, ay), (bx, by) in zip(before.points, points, strict=True))
    x, y, size = mid(before.x, after.x), mid(before.y, after.y), mid(before.size, after.size)
    angle, alpha = mid(before.angle, after.angle), mid(before.alpha, after.alpha)
    return replace(
        after, albedo=(r, g, b), details=details, points=points, x=x, y=y, size=size, angle=angle, alpha=alpha
    )


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
    shape: pymunk.Shape = pymunk.Circle(handle, body.size) if body.look.rolls else pymunk.Poly(handle, local)
    shape.friction, shape.elasticity, shape.density = 0.9, 0.3, 0.01
    space.add(handle, shape)
    return handle


@dataclass(frozen=True, kw_only=True)
class Release:
    """What lets bodies move: `moving` are free, every other stands where it is.

    `gravity` in px/s²; `starts` are velocities (px/s right, px/s down, rad/s clockwise) of free bodies by id; `pulled`
    are accelerations (px/s² to the right) of bodies that are drawn away without friction. Balls slow down by
    `rolling_px_s2` as they roll. With `walls` nothing leaves the picture.
    """

    moving: tuple[int, ...]
    gravity: tuple[float, float] = (0.0, GRAVITY_PX_S2)
    starts: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    pulled: Mapping[int, float] = field(default_factory=dict)
    rolling_px_s2: float = 0.0
    friction: float = 0.9
    elasticity: float = 0.3
    walls: bool = False


@dataclass(frozen=True, kw_only=True)
class Motion:
    """States equally spaced in time, and at each the energy of all free bodies together (potential and kinetic).

    Masses are areas, so energy is in px⁴/s²; `speeds` are those of the fastest free body, in px/s.
    """

    states: tuple[State, ...]
    energies: tuple[float, ...]
    speeds: tuple[float, ...]


def let_go(state: State, release: Release, *, frames: int, duration_s: float) -> Motion:
    """Let bodies move as `release` says: `frames` states, the first is `state` itself. Deterministic."""
    space = pymunk.Space(threaded=False)
    space.gravity = release.gravity
    space.collision_slop, space.iterations = 0.05, 40
    _add_floor(space, state.backdrop.floor_y)
    if release.walls:
        _add_walls(space)
    handles = {body.id: _handle(space, body, release) for body in state.bodies if body.look.solid}
    dt = duration_s / (frames - 1) / STEPS_PER_FRAME
    seen = [_measured(state, handles, release)]
    for _ in range(frames - 1):
        for _ in range(STEPS_PER_FRAME):
            _drive(handles, state, release, dt)
            space.step(dt)
        seen.append(_measured(_read(state, handles, (*release.moving, *release.pulled)), handles, release))
    states, energies, speeds = zip(*seen, strict=True)
    return Motion(states=(state, *states[1:]), energies=energies, speeds=speeds)


def _handle(space: pymunk.Space, body: Body, release: Release) -> pymunk.Body:
    handle = _add_body(space, body, dynamic=body.id in release.moving)
    for shape in handle.shapes:
        shape.friction, shape.elasticity, shape.density = release.friction, release.elasticity, 1.0
    if body.id in release.pulled:
        handle.body_type = pymunk.Body.KINEMATIC
        for shape in handle.shapes:
            shape.friction = 0.0
    if body.id in release.starts:
        right, down, spin = release.starts[body.id]
        handle.velocity, handle.angular_velocity = (right, down), spin
    return handle


def _drive(handles: Mapping[int, pymunk.Body], state: State, release: Release, dt: float) -> None:
    """What is pulled goes faster; what rolls is slowed down by the ground, which takes energy alone."""
    for body_id, acceleration in release.pulled.items():
        handle = handles[body_id]
        handle.velocity = (handle.velocity.x + acceleration * dt, 0.0)
    if not release.rolling_px_s2:
        return
    for body_id in release.moving:
        body, handle = state.body(body_id), handles[body_id]
        if body is not None and body.look.rolls:
            # a disc that rolls is slowed down by a third of what its rim would be
            loss, spin = 3 * release.rolling_px_s2 / body.size * dt, handle.angular_velocity
            handle.angular_velocity = math.copysign(max(0.0, abs(spin) - loss), spin)


def _measured(state: State, handles: Mapping[int, pymunk.Body], release: Release) -> tuple[State, float, float]:
    energy, fastest = 0.0, 0.0
    for body_id in release.moving:
        handle = handles[body_id]
        centre = handle.local_to_world(handle.center_of_gravity)
        speed = handle.velocity.length
        energy += handle.mass * speed**2 / 2 + handle.moment * handle.angular_velocity**2 / 2
        energy -= handle.mass * (release.gravity[0] * centre.x + release.gravity[1] * centre.y)
        body = state.body(body_id)
        assert body is not None
        fastest = max(fastest, speed, body.size * abs(handle.angular_velocity))
    return state, energy, fastest


def _add_walls(space: pymunk.Space) -> None:
    """Around the picture: left, right and above."""
    far = 60.0
    for x0, y0, x1, y1 in (
        (-far, -far, 0, 2 * WORLD_SIZE),
        (WORLD_SIZE, -far, WORLD_SIZE + far, 2 * WORLD_SIZE),
        (-far, -far, WORLD_SIZE + far, 0),
    ):
        wall = pymunk.Poly(space.static_body, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        wall.friction, wall.elasticity = 0.9, 0.3
        space.add(wall)


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
    tops = [body.ground_y(state.backdrop)]
    for other in state.others(body.id):
        if not other.look.solid:
            continue
        outline = other.outline()
        left, right = min(x for x, _ in outline), max(x for x, _ in outline)
        if left <= body.x <= right and other.y > body.y:
            tops.append(min(y for _, y in outline))
    return min(tops) - bottom
