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


CHECKS: dict[str, Check] = {"supported": supported, "gripped": gripped, "touched": touched}


def overlap_radii(state: State) -> float:
    """Deepest overlap of two bodies, or of a body and the floor, in radii of the smaller; 0 when there is none."""
    depths = [-gap_px(a, b) / min(a.size, b.size) for a, b in combinations(state.bodies, 2)]
    depths += [(max(y for _, y in body.outline()) - state.backdrop.floor_y) / body.size for body in state.bodies]
    return max(0.0, *depths) if depths else 0.0
