"""How the robot arm takes hold of a thing, carries it from stop to stop, lets go and draws back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from ..geometry import Point
from ..physics import between
from ..state import Arm, Body, grip_width, wrist_height

OPEN_EXTRA = 4.0
RETREAT_Y = 16.0
GRIP_PX, PAUSE_PX = 6.0, 5.0  # closing and opening take as long as a move of so many px, and so does every stop

Stop = tuple[float, float, float]  # time, x, y


@dataclass(frozen=True, kw_only=True)
class Grasp:
    """What an arm does with a thing, times in [0, 1].

    The arm is above the thing at `over`, around it at `down`, and has closed at the first stop; it is at rest at every
    stop, lets go at the last one until `open`, and then draws back. All three are 0 when it holds the thing from the
    start; `open` is 1 when it never lets go.
    """

    body: Body
    stops: tuple[Stop, ...]
    over: float
    down: float
    open: float

    def body_at(self, t: float) -> Body:
        """Where the thing is at time t."""
        for (t0, x0, y0), (t1, x1, y1) in pairwise(self.stops):
            if t < t1:
                return replace(self.body, x=between(x0, x1, t, t0, t1), y=between(y0, y1, t, t0, t1))
        return replace(self.body, x=self.stops[-1][1], y=self.stops[-1][2])

    def arm_at(self, arm: Arm, t: float) -> Arm:
        """Where an arm that starts as `arm` is at time t."""
        if t < self.stops[0][0]:
            return self._reach(arm, t)
        body, loose = self.body_at(t), self.stops[-1][0]
        held = Arm(x=body.x, y=wrist_height(body), opening=grip_width(body))
        if t <= loose or self.open >= 1:
            return held
        opening = between(held.opening, held.opening + OPEN_EXTRA, t, loose, self.open)
        return replace(held, opening=opening, y=between(held.y, min(held.y, RETREAT_Y), t, self.open, 1.0))

    def _reach(self, arm: Arm, t: float) -> Arm:
        """Above the thing, down to it, and close."""
        held = grip_width(self.body)
        opening = between(arm.opening, held + OPEN_EXTRA, t, 0.0, self.over)
        if t > self.down:
            opening = between(held + OPEN_EXTRA, held, t, self.down, self.stops[0][0])
        return Arm(
            x=between(arm.x, self.body.x, t, 0.0, self.over),
            y=between(arm.y, wrist_height(self.body), t, self.over, self.down),
            opening=opening,
        )


def grasp(arm: Arm, body: Body, points: Sequence[Point], *, held: bool = False, lets_go: bool = True) -> Grasp:
    """A grasp that carries a body through the points (its centres), each part as long as its way is far.

    `held`: the arm holds the body from the start.
    """
    way = [(body.x, body.y), *points]
    reach = [] if held else [abs(arm.x - body.x), abs(arm.y - wrist_height(body)), GRIP_PX]
    carry = [math.dist(a, b) for a, b in pairwise(way)]
    last = wrist_height(replace(body, x=way[-1][0], y=way[-1][1]))
    leave = [GRIP_PX, abs(last - RETREAT_Y)] if lets_go else []
    lengths = [length + PAUSE_PX for length in (*reach, *carry, *leave)]
    times = [0.0, *(each / sum(lengths) for each in accumulate(lengths))]
    if not lets_go:
        times[-1] = 1.0
    stops = tuple((t, x, y) for t, (x, y) in zip(times[len(reach) :], way, strict=False))
    over, down = (0.0, 0.0) if held else (times[1], times[2])
    return Grasp(body=body, stops=stops, over=over, down=down, open=times[-2] if lets_go else 1.0)
