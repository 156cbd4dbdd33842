"""Tools on a table under the robot arm: picked up, put down, and installed on a shaft."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..geometry import Point
from ..kinds.shafts import (
    CHUCK_AXIS,
    CHUCK_HALF,
    MOTOR_AXIS,
    MOTOR_FACE,
    MOTOR_TIP,
    SHAFT_BASE,
    SHAFT_TOP,
)
from ..kinds.tools import PLATE_TOP
from ..language import named, say
from ..state import (
    ALBEDO,
    COLOURS,
    FINGER_LENGTH,
    FINGER_WIDTH,
    FIRST_BODY_ID,
    WORLD_SIZE,
    Arm,
    Backdrop,
    Body,
    State,
    grip_width,
    wrist_height,
)
from .base import Scene, jitter, pick, sample_backdrop
from .grasp import OPEN_EXTRA, Grasp, grasp

GAP_PX, MARGIN_PX = 4.0, 3.0
WRIST_TOP_PX = 9.0  # as high as the wrist goes with a thing in hand
CLEARANCE_PX = 4.0

Group = tuple[Body, ...]


@dataclass(frozen=True, kw_only=True)
class Hold:
    """How a kind is drawn and gripped: its sizes in px, half the width between the fingers, where their tips are."""

    sizes: tuple[float, float]
    grip: float = 1.0
    grip_y: float = 0.6
    colours: tuple[str, ...] = tuple(COLOURS)


METALS = ("silver", "brown", "red", "blue", "green", "orange")
HOLDS: dict[str, Hold] = {
    "spoon": Hold(sizes=(8.0, 8.8), grip=0.27, grip_y=-1.7, colours=METALS),
    "fork": Hold(sizes=(8.0, 8.8), grip=0.27, grip_y=-1.7, colours=METALS),
    "screwdriver": Hold(sizes=(8.0, 8.8), grip=0.5, grip_y=-1.5),
    "brush": Hold(sizes=(8.0, 8.8), grip=0.3, grip_y=-1.4, colours=("red", "blue", "green", "brown", "purple")),
    "bottle": Hold(sizes=(9.0, 10.5), grip=0.34, grip_y=-1.3, colours=("green", "blue", "purple", "brown", "red")),
    "coffee_mug": Hold(sizes=(9.0, 10.5), grip=0.9, grip_y=0.3),
    "ball": Hold(sizes=(8.5, 11.0)),
    "cube": Hold(sizes=(8.5, 10.5)),
    "cup": Hold(sizes=(9.0, 11.0)),
    "plate": Hold(sizes=(8.5, 10.0), colours=("white", "turquoise", "navy", "pink", "beige")),
    "sleeve": Hold(sizes=(9.0, 10.0), grip=0.86, grip_y=0.1),
    "chuck": Hold(sizes=(8.5, 9.5), grip=0.42, grip_y=-0.55),
    "shaft": Hold(sizes=(8.5, 9.5), colours=("grey", "silver")),
    "motor": Hold(sizes=(9.0, 10.0), colours=("grey", "navy", "green", "turquoise")),
    "stand": Hold(sizes=(8.5, 9.5), colours=("brown", "beige")),
}
IN_STAND = ("spoon", "fork", "screwdriver", "brush")
STANDING = ("bottle", "coffee_mug")
BYSTANDERS = ("ball", "cube", "cup", "coffee_mug", "bottle")


class _Stock:
    """Bodies with numbers of their own and no colour twice."""

    def __init__(self, rng: np.random.Generator, floor_y: float) -> None:
        self.rng, self.floor_y = rng, floor_y
        self.next, self.used = FIRST_BODY_ID, set[str]()

    def body(self, kind: str) -> Body:
        """A body that stands on the table at x = 0."""
        hold = HOLDS[kind]
        free = [colour for colour in hold.colours if colour not in self.used] or list(set(COLOURS) - self.used)
        colour = pick(self.rng, sorted(free))
        self.used.add(colour)
        size = float(np.round(self.rng.uniform(*hold.sizes), 1))
        self.next += 1
        return Body(
            id=self.next - 1,
            kind=kind,
            colour=colour,
            albedo=jitter(self.rng, ALBEDO[colour], 5),
            x=0.0,
            y=self.floor_y - size,
            size=size,
        ).with_details(grip=hold.grip, grip_y=hold.grip_y)


@dataclass
class Tools(Scene):
    """Things on the table; `grasp` is what the arm does with the subject."""

    family: ClassVar[str] = "tools"
    edits: ClassVar[tuple[str, ...]] = ("pick_up_tool", "put_down", "install")
    start: State
    edit: str
    prompt: str
    subject: int
    grasp: Grasp
    checks: tuple[str, ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Tools | None:
        backdrop = sample_backdrop(rng)
        return _SAMPLERS[edit](rng, backdrop, _Stock(rng, backdrop.floor_y))

    def state(self, t: float) -> State:
        assert self.start.arm is not None
        if t <= 0:
            return self.start
        moved = self.start.with_body(self.grasp.body_at(t))
        return replace(moved, arm=self.grasp.arm_at(self.start.arm, t))


def _free_arm(rng: np.random.Generator) -> Arm:
    x, y, opening = (float(np.round(rng.uniform(*each), 1)) for each in ((18, 110), (12, 22), (7, 12)))
    return Arm(x=x, y=y, opening=opening)


def _stocked_stand(rng: np.random.Generator, stock: _Stock) -> Group:
    """A block with one or two tools in it, heads down; the block first, so that its front hides their feet."""
    stand, count = stock.body("stand"), int(rng.integers(1, 3))
    half = 1.3 if count == 1 else 1.9
    stand = stand.with_details(half=half)
    tools = [stock.body(str(kind)) for kind in rng.permutation(list(IN_STAND))[:count]]
    apart = 1.0 * stand.size
    places = [0.0] if count == 1 else [-apart, apart]
    # a little above the table, in the slot
    return (stand, *(replace(b, x=x, y=b.y - 0.12 * b.size) for b, x in zip(tools, places, strict=True)))


def _row(rng: np.random.Generator, groups: Sequence[Group], taken: Collection[int]) -> list[Body] | None:
    """The groups in any order from left to right; those with the ids `taken` have room for open fingers beside them.

    None when they do not fit.
    """
    order = [groups[int(k)] for k in rng.permutation(len(groups))]
    rooms = [_room(group, taken) for group in order]
    free = WORLD_SIZE - 2 * MARGIN_PX - (len(order) - 1) * GAP_PX - sum(right - left for left, right in rooms)
    if free < 0:
        return None
    spare = np.diff(np.concatenate([[0.0], np.sort(rng.uniform(0, free, len(order)))]))
    edge, placed = MARGIN_PX, []
    for group, (left, right), extra in zip(order, rooms, spare, strict=True):
        dx = float(np.round(edge + extra - left, 1))
        placed += [replace(body, x=body.x + dx) for body in group]
        edge += extra + right - left + GAP_PX
    return sorted(placed, key=lambda body: body.id)


def _room(group: Group, taken: Collection[int]) -> tuple[float, float]:
    spans = [(body.span[0], body.span[2]) for body in group]
    for body in group:
        if body.id in taken:
            reach = grip_width(body) + OPEN_EXTRA + FINGER_WIDTH
            spans.append((body.x - reach, body.x + reach))
    return min(left for left, _ in spans), max(right for _, right in spans)


def _bystanders(rng: np.random.Generator, stock: _Stock, most: int) -> list[Group]:
    return [(stock.body(pick(rng, BYSTANDERS)),) for _ in range(int(rng.integers(most + 1)))]


def _pick_up(rng: np.random.Generator, backdrop: Backdrop, stock: _Stock) -> Tools | None:
    """A tool out of its block, or a bottle or mug from the table."""
    if rng.uniform() < 0.65:
        group = _stocked_stand(rng, stock)
        wanted = group[1].id
    else:
        group = (stock.body(pick(rng, STANDING)),)
        wanted = group[0].id
    bodies = _row(rng, [group, *_bystanders(rng, stock, 2)], (wanted,))
    if bodies is None:
        return None
    start = State(backdrop=backdrop, bodies=tuple(bodies), arm=_free_arm(rng))
    body = start.body(wanted)
    assert body is not None
    assert start.arm is not None
    lifted = body.y - float(np.round(rng.uniform(22, 28), 1))
    lift = grasp(start.arm, body, [(body.x, lifted)], lets_go=False)
    prompt = say(rng, "pick_up_tool", {"a": named(rng, start, body)})
    return Tools(start, "pick_up_tool", prompt, body.id, lift, ("gripped",))


def _put_down(rng: np.random.Generator, backdrop: Backdrop, stock: _Stock) -> Tools | None:
    """What the arm holds goes to a free place on the table, or on a plate."""
    held, on_plate = stock.body(pick(rng, (*STANDING, "ball", "cube", "cup"))), rng.uniform() < 0.5
    groups: list[Group] = [(stock.body("plate"),)] if on_plate else [(held,)]
    bodies = _row(rng, [*groups, *_bystanders(rng, stock, 2)], (held.id,))
    if bodies is None:
        return None
    place = next(body for body in bodies if body.id == groups[0][0].id)
    under = place.y + PLATE_TOP * place.size if on_plate else backdrop.floor_y
    x0 = float(np.round(rng.uniform(24, 104), 1))
    highest = WRIST_TOP_PX + FINGER_LENGTH - held.detail("grip_y", 0.6) * held.size
    raised = replace(held, x=x0, y=float(np.round(max(highest, rng.uniform(34, 42)), 1)))
    goal = replace(held, x=place.x, y=under - held.size)
    others = [body for body in bodies if body.id != held.id]
    if any(other.span[1] - CLEARANCE_PX < raised.span[3] for other in others):
        return None
    arm = Arm(x=x0, y=wrist_height(raised), opening=grip_width(raised))
    start = State(backdrop=backdrop, bodies=(*others, raised), arm=arm)
    lower = grasp(arm, raised, [(goal.x, raised.y), (goal.x, goal.y)], held=True)
    target = named(rng, start, place) if on_plate else "table"
    prompt = say(rng, "put_down", {"a": named(rng, start, raised), "b": target})
    return Tools(start, "put_down", prompt, held.id, lower, ("supported",))


def _install(rng: np.random.Generator, backdrop: Backdrop, stock: _Stock) -> Tools | None:
    return (_on_upright if rng.uniform() < 0.35 else _on_motor)(rng, backdrop, stock)


def _on_upright(rng: np.random.Generator, backdrop: Backdrop, stock: _Stock) -> Tools | None:
    """Over the tip of an upright shaft, and down to its foot."""
    # the far wall of the tool is drawn before the shaft, its near one after
    tool, shaft = stock.body("sleeve"), stock.body("shaft")
    bodies = _row(rng, [(tool,), (shaft,), *_bystanders(rng, stock, 1)], (tool.id,))
    if bodies is None:
        return None
    tool, shaft = bodies[0], bodies[1]
    seat = shaft.y + SHAFT_BASE * shaft.size - tool.size
    high = shaft.y + SHAFT_TOP * shaft.size - CLEARANCE_PX - tool.size
    way = [(tool.x, high), (shaft.x, high), (shaft.x, seat)]
    return _installed(rng, backdrop, bodies, (tool, shaft), way)


def _on_motor(rng: np.random.Generator, backdrop: Backdrop, stock: _Stock) -> Tools | None:
    """To the tip of a motor's shaft, level with it, and along it to the motor."""
    tool, motor = stock.body("chuck"), stock.body("motor")
    flip = float(pick(rng, (-1, 1)))
    tool, motor = tool.with_details(flip=flip), motor.with_details(flip=flip)
    bodies = _row(rng, [(tool,), (motor,), *_bystanders(rng, stock, 1)], (tool.id,))
    if bodies is None:
        return None
    tool, motor = bodies[0], bodies[1]
    half = CHUCK_HALF * tool.size
    seat = motor.x + flip * (MOTOR_FACE * motor.size + half + 0.3)
    ready = motor.x + flip * (MOTOR_TIP * motor.size + half + 2.0)
    if not half + 8 < ready < 120 - half:
        return None
    level = motor.y + MOTOR_AXIS * motor.size - CHUCK_AXIS * tool.size
    high = min(body.span[1] for body in bodies) - CLEARANCE_PX - tool.size
    swept = sorted((ready + flip * (half + 8), seat))
    if any(swept[0] < b.span[2] and b.span[0] < swept[1] for b in bodies[2:]):
        return None
    way = [(tool.x, high), (ready, high), (ready, level), (seat, level)]
    return _installed(rng, backdrop, bodies, (tool, motor), way)


def _installed(
    rng: np.random.Generator, backdrop: Backdrop, bodies: list[Body], pair: tuple[Body, Body], way: Sequence[Point]
) -> Tools:
    """The tool goes the way, whose end is its seat on the host."""
    (tool, host), (x, y) = pair, way[-1]
    tool = tool.with_details(host=float(host.id), host_x=(x - host.x) / host.size, host_y=(y - host.y) / host.size)
    arm = _free_arm(rng)
    start = State(backdrop=backdrop, bodies=(tool, *(b for b in bodies if b.id != tool.id)), arm=arm)
    prompt = say(rng, "install", {"a": named(rng, start, tool), "b": named(rng, start, host)})
    return Tools(start, "install", prompt, tool.id, grasp(arm, tool, way), ("attached",))


_SAMPLERS: dict[str, Callable[[np.random.Generator, Backdrop, _Stock], Tools | None]] = {
    "pick_up_tool": _pick_up,
    "put_down": _put_down,
    "install": _install,
}
