"""Table with a robot arm that hangs from the ceiling: pick up, place on, push, hold still."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..language import say
from ..physics import between
from ..state import FINGER_WIDTH, WORLD_SIZE, Arm, Body, State, grip_width, wrist_height
from .base import MARGIN_PX, MOST, Scene, pick, sample_backdrop, sample_row

LIFTED_Y = 50.0
PUSH_PX = 22.0
CLOSED_OPENING = 3.0
RETREAT_Y = 16.0
OPEN_EXTRA = 4.0


@dataclass
class Table(Scene):
    """A row of bodies under the arm; `goal` is the subject as the arm leaves it."""

    family: ClassVar[str] = "table"
    edits: ClassVar[tuple[str, ...]] = ("pick_up", "place", "push", "hold_still")
    start: State
    edit: str
    prompt: str
    subject: int | None
    goal: Body | None
    side: int = 0
    checks: tuple[str, ...] = ()

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Table | None:
        backdrop = sample_backdrop(rng)
        bodies = sample_row(rng, int(rng.integers(2, MOST + 1)), backdrop.floor_y, gap_px=11.0)
        if bodies is None:
            return None
        arm = Arm(x=_round(rng.uniform(18, 110)), y=_round(rng.uniform(13, 26)), opening=_round(rng.uniform(9, 13)))
        start = State(backdrop=backdrop, bodies=tuple(bodies), arm=arm)
        return {"pick_up": cls._pick_up, "place": cls._place, "push": cls._push, "hold_still": cls._hold}[edit](
            rng, start
        )

    @classmethod
    def _pick_up(cls, rng: np.random.Generator, start: State) -> Table:
        body = pick(rng, start.bodies)
        return cls(
            start,
            "pick_up",
            say(rng, "pick_up", {"a": body.name}),
            body.id,
            replace(body, y=LIFTED_Y),
            checks=("gripped",),
        )

    @classmethod
    def _place(cls, rng: np.random.Generator, start: State) -> Table | None:
        bases = [body for body in start.bodies if body.kind == "cube"]
        if not bases:
            return None
        base = pick(rng, bases)
        body = pick(rng, list(start.others(base.id)))
        goal = replace(body, x=base.x, y=base.y - base.size - body.size)
        return cls(
            start, "place", say(rng, "place", {"a": body.name, "b": base.name}), body.id, goal, checks=("supported",)
        )

    @classmethod
    def _push(cls, rng: np.random.Generator, start: State) -> Table | None:
        body, side = pick(rng, start.bodies), int(pick(rng, (-1, 1)))
        goal = replace(body, x=body.x + side * PUSH_PX)
        if not MARGIN_PX <= goal.x - goal.size <= goal.x + goal.size <= WORLD_SIZE - MARGIN_PX:
            return None
        tool = 2 * (CLOSED_OPENING + FINGER_WIDTH) + 2
        swept = (min(body.x - body.size, goal.x - goal.size), max(body.x + body.size, goal.x + goal.size))
        low, high = (swept[0] - tool, swept[1] + 3) if side > 0 else (swept[0] - 3, swept[1] + tool)
        if (
            low < 0
            or high > WORLD_SIZE
            or any(low < o.x + o.size and o.x - o.size < high for o in start.others(body.id))
        ):
            return None
        prompt = say(rng, "push", {"a": body.name, "side": "right" if side > 0 else "left"})
        return cls(start, "push", prompt, body.id, goal, side, checks=("supported", "touched"))

    @classmethod
    def _hold(cls, rng: np.random.Generator, start: State) -> Table:
        return cls(start, "hold_still", say(rng, "hold_still"), None, None)

    def state(self, t: float) -> State:
        if self.edit == "hold_still" or t <= 0:
            return self.start
        assert self.subject is not None and self.goal is not None and self.start.arm is not None
        body = self.start.body(self.subject)
        assert body is not None
        motion = {"pick_up": _lift, "place": _carry, "push": _shove}[self.edit]
        arm, moved = motion(self.start.arm, body, self.goal, t)
        return replace(self.start.with_body(moved), arm=arm)


def _round(value: float) -> float:
    return float(np.round(value, 1))


def _reach(arm: Arm, body: Body, t: float, times: tuple[float, float, float, float]) -> Arm:
    """Above the body, down to it, and close: the move over, the descent and the grip end at the three later times."""
    t0, over, down, closed = times
    wide = grip_width(body) + OPEN_EXTRA
    opening = between(arm.opening, wide, t, t0, over) if t < down else between(wide, grip_width(body), t, down, closed)
    return Arm(
        x=between(arm.x, body.x, t, t0, over), y=between(arm.y, wrist_height(body), t, over, down), opening=opening
    )


def _lift(arm: Arm, body: Body, goal: Body, t: float) -> tuple[Arm, Body]:
    held = replace(body, y=between(body.y, goal.y, t, 0.56, 1.0))
    reach = _reach(arm, body, t, (0.0, 0.28, 0.48, 0.56))
    return (replace(reach, y=wrist_height(held)) if t > 0.56 else reach), held


def _carry(arm: Arm, body: Body, goal: Body, t: float) -> tuple[Arm, Body]:
    """Pick up, carry high over the others, set down, open, and draw back."""
    high = min(LIFTED_Y, goal.y - 4)
    y = between(body.y, high, t, 0.36, 0.5) if t < 0.66 else between(high, goal.y, t, 0.66, 0.78)
    held = replace(body, x=between(body.x, goal.x, t, 0.5, 0.66), y=y)
    if t <= 0.36:
        return _reach(arm, body, t, (0.0, 0.18, 0.31, 0.36)), body
    grip = Arm(x=held.x, y=wrist_height(held), opening=grip_width(body))
    if t <= 0.78:
        return grip, held
    opening = between(grip.opening, grip.opening + OPEN_EXTRA, t, 0.78, 0.84)
    return replace(grip, opening=opening, y=between(grip.y, RETREAT_Y, t, 0.84, 1.0)), goal


def _shove(arm: Arm, body: Body, goal: Body, t: float) -> tuple[Arm, Body]:
    """Close beside the body, go down, and push; the finger's outer face touches it."""
    side = 1 if goal.x > body.x else -1
    reach = CLOSED_OPENING + FINGER_WIDTH + (0.8 * body.size if body.kind == "cone" else body.size)
    x0 = body.x - side * (reach + 1.5)
    moved = replace(body, x=between(body.x, goal.x, t, 0.56, 1.0))
    x = between(arm.x, x0, t, 0.0, 0.28) if t < 0.5 else between(x0, body.x - side * reach, t, 0.5, 0.56)
    if t > 0.56:
        x = moved.x - side * reach
    down = wrist_height(body)
    return Arm(
        x=x, y=between(arm.y, down, t, 0.28, 0.5), opening=between(arm.opening, CLOSED_OPENING, t, 0.0, 0.28)
    ), moved
