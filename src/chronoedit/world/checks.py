"""What physics asks of a state, as a table: each entry measures by how many radii of the subject a state misses it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

from .physics import gap_px, resting_gap_px
from .state import FINGER_LENGTH, FINGER_WIDTH, Body, State, grip_width, wrist_height

Check = Callable[[State, Body], float]


def supported(state: State, subject: Body) -> float:
    """Gap between the subject and what it stands on, or how deep it sits in it."""
    return abs(resting_gap_px(subject, state)) / subject.size


def gripped(state: State, subject: Body) -> float:
    """How far the wrist is from where it holds the subject; infinite without an arm."""
    if state.arm is None:
        return math.inf
    return max(abs(state.arm.x - subject.x), abs(state.arm.y - wrist_height(subject))) / subject.size


def touched(state: State, subject: Body) -> float:
    """Gap between the subject's side and the nearer finger's outer face, or how far the tips are too high to touch."""
    if state.arm is None:
        return math.inf
    reach = state.arm.opening + FINGER_WIDTH + grip_width(subject)
    beside = abs(abs(state.arm.x - subject.x) - reach)
    too_high = max(0.0, subject.y - (state.arm.y + FINGER_LENGTH))
    return max(beside, too_high) / subject.size


def on_ground(state: State, subject: Body) -> float:
    """Gap between the subject's foot and the ground that it belongs on (its detail `ground_y`)."""
    return abs(subject.ground_y(state.backdrop) - subject.span[3]) / subject.size


def attached(state: State, subject: Body) -> float:
    """How far the subject is from its place on another body: `host` (an id), at `host_x`, `host_y` in that one's frame.

    Infinite when that body is not there.
    """
    host = state.body(round(subject.detail("host", -1.0)))
    if host is None:
        return math.inf
    ((x, y),) = host.placed([(subject.detail("host_x", 0.0), subject.detail("host_y", 0.0))])
    return math.hypot(subject.x - x, subject.y - y) / subject.size


def inside(state: State, subject: Body) -> float:
    """How far the subject reaches out of the body that holds it (detail `host`) to the sides or below.

    Infinite when that body is not there.
    """
    host = state.body(round(subject.detail("host", -1.0)))
    if host is None:
        return math.inf
    (left, _, right, bottom), (low, _, high, base) = subject.span, host.span
    return max(0.0, low - left, right - high, bottom - base) / subject.size


CHECKS: dict[str, Check] = {
    "supported": supported,
    "gripped": gripped,
    "touched": touched,
    "on_ground": on_ground,
    "attached": attached,
    "inside": inside,
}


def overlap_radii(state: State) -> float:
    """Deepest overlap of two solid bodies on one ground, or of one and its ground, in radii of the smaller; 0 for none.

    Bodies of different layers do not meet.
    """
    solid = [body for body in state.bodies if body.look.solid]
    grounds = {body.id: body.ground_y(state.backdrop) for body in solid}
    depths = [
        -gap_px(a, b) / min(a.size, b.size)
        for a, b in combinations(solid, 2)
        if a.layer == b.layer and grounds[a.id] == grounds[b.id]
    ]
    depths += [(body.span[3] - grounds[body.id]) / body.size for body in solid]
    return max(0.0, *depths) if depths else 0.0
