"""What a scene holds, as data: bodies, the robot arm, ropes and the backdrop.

Lengths are in px of a world 128 px wide and high, y pointing down; angles in radians; colours are uint8 RGB.
A picture of another size is the same world drawn larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

WORLD_SIZE = 128
ARM_ID = 1
FIRST_BODY_ID = 2
FINGER_LENGTH = 20.0
FINGER_WIDTH = 3.0

KINDS = ("ball", "cube", "cone", "cup")  # what scenes are made of; "star" comes of an edit alone
STAR_RADII = (1.6, 0.9)  # of its points and of the corners between them, in half extents: about a cube's area
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (208, 44, 44),
    "orange": (240, 138, 28),
    "yellow": (246, 218, 62),
    "green": (44, 152, 72),
    "blue": (44, 98, 206),
    "purple": (126, 60, 164),
    "pink": (244, 142, 186),
}


@dataclass(frozen=True, kw_only=True)
class Body:
    """One object: `size` is its half extent, so that it rests on a surface at `y + size` when upright."""

    id: int
    kind: str
    colour: str
    albedo: tuple[int, int, int]
    x: float
    y: float
    size: float
    angle: float = 0.0
    alpha: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    def outline(self) -> list[tuple[float, float]]:
        """Corners in world px, clockwise; a ball is a 32-gon, a star has five points and stands on two of them."""
        r = self.size
        local = {
            "ball": [(r * math.cos(k * math.pi / 16), r * math.sin(k * math.pi / 16)) for k in range(32)],
            "cube": [(-r, -r), (r, -r), (r, r), (-r, r)],
            "cone": [(0.0, -r), (r, r), (-r, r)],
            "cup": [(-r, -r), (r, -r), (0.7 * r, r), (-0.7 * r, r)],
            "star": _star(r),
        }[self.kind]
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return [(self.x + cos * px - sin * py, self.y + sin * px + cos * py) for px, py in local]


def _star(r: float) -> list[tuple[float, float]]:
    down = r * (1 - STAR_RADII[0] * math.cos(math.pi / 5))
    radii = [r * STAR_RADII[k % 2] for k in range(10)]
    return [(v * math.sin(k * math.pi / 5), down - v * math.cos(k * math.pi / 5)) for k, v in enumerate(radii)]


def grip_width(body: Body) -> float:
    """Half distance between the fingers that hold `body`."""
    return 0.8 * body.size if body.kind == "cone" else body.size


def wrist_height(body: Body) -> float:
    """y of the wrist that holds `body`: the finger tips end at 0.6 of its half extent below its centre."""
    return body.y + 0.6 * body.size - FINGER_LENGTH


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A gantry arm that hangs from the ceiling: wrist centre (x, y), half `opening` between the inner finger faces."""

    x: float
    y: float
    opening: float


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """Wall, floor and one harmless thing on the wall (`window`, `picture`, `shelf` or none)."""

    wall: tuple[int, int, int]
    floor: tuple[int, int, int]
    floor_y: float
    light: float
    decoration: str
    decoration_x: float


@dataclass(frozen=True, kw_only=True)
class State:
    """A scene at one instant."""

    backdrop: Backdrop
    bodies: tuple[Body, ...]
    arm: Arm | None = None
    ropes: tuple[int, ...] = field(default=())

    def body(self, body_id: int) -> Body | None:
        return next((body for body in self.bodies if body.id == body_id), None)

    def with_body(self, body: Body) -> State:
        """The same state with the body of that id replaced, or added when new."""
        others = [b if b.id != body.id else body for b in self.bodies]
        if all(b.id != body.id for b in self.bodies):
            others.append(body)
        return replace(self, bodies=tuple(others))

    def without(self, body_id: int) -> State:
        return replace(self, bodies=tuple(b for b in self.bodies if b.id != body_id))

    def others(self, body_id: int) -> Iterator[Body]:
        return (body for body in self.bodies if body.id != body_id)

    def to_json(self) -> dict:
        return asdict(self)
