"""What a scene holds, as data: bodies, the robot arm, ropes and the backdrop.

Lengths are in px of a world 128 px wide and high, y pointing down; angles in radians; colours are uint8 RGB.
A picture of another size is the same world drawn larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from .geometry import Point, Polygon, span
from .kinds import Kind, kind_of
from .palette import ALBEDO, COLOURS

__all__ = ["ALBEDO", "ARM_ID", "COLOURS", "KINDS", "WORLD_SIZE", "Arm", "Backdrop", "Body", "State"]

WORLD_SIZE = 128
ARM_ID = 1
FIRST_BODY_ID = 2
FINGER_LENGTH = 20.0
FINGER_WIDTH = 3.0

KINDS = ("ball", "cube", "cone", "cup")  # what the first families are made of

Details = tuple[tuple[str, float | str], ...]


Value = TypeVar("Value", float, str)


@dataclass(frozen=True, kw_only=True)
class Body:
    """One object: `size` is its half extent, so that it rests on a surface at `y + size` when upright.

    `details` is what else its kind draws it by (how full, which lamp is on), by name; `points` the outline of kinds
    that each body has an own one of, in its frame (see `Kind`). Bodies are drawn by `layer`, then in order; the arm
    comes after layer 0.
    """

    id: int
    kind: str
    colour: str
    albedo: tuple[int, int, int]
    x: float
    y: float
    size: float
    angle: float = 0.0
    alpha: float = 1.0
    details: Details = ()
    points: tuple[Point, ...] = ()
    layer: int = 0

    @property
    def name(self) -> str:
        """Colour and noun; a body without a colour is called by its noun alone."""
        return f"{self.colour} {self.look.noun}".strip()

    @property
    def look(self) -> Kind:
        """The entry of its kind in KIND_TABLE."""
        return kind_of(self.kind)

    def detail(self, name: str, default: Value) -> Value:
        """The detail of that name, or the default when the body has none."""
        return _detail(self.details, name, default)

    def with_details(self, **changes: float | str) -> Body:
        """The same body with these details, and the others that it has."""
        return replace(self, details=tuple(sorted({**dict(self.details), **changes}.items())))

    def outline(self) -> Polygon:
        """Corners in world px, clockwise; a ball is a 32-gon, a star has five points and stands on two of them."""
        return self.placed(self.look.outline(self))

    def placed(self, polygon: Polygon) -> Polygon:
        """A polygon of the body's own frame in world px."""
        cos, sin, r = math.cos(self.angle), math.sin(self.angle), self.size
        return [
            (self.x + cos * (r * px) - sin * (r * py), self.y + sin * (r * px) + cos * (r * py)) for px, py in polygon
        ]

    def ground_y(self, backdrop: Backdrop) -> float:
        """Where the ground is for this body: its detail `ground_y`, or the backdrop's floor."""
        return self.detail("ground_y", backdrop.floor_y)

    @property
    def span(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of its outline in world px."""
        return span(self.outline())


def _detail(details: Details, name: str, default: Value) -> Value:
    value = dict(details).get(name, default)
    if isinstance(value, str) != isinstance(default, str):
        raise ValueError(f"detail {name} is {value!r}; give a {type(default).__name__}")
    return value  # type: ignore[return-value]


def grip_width(body: Body) -> float:
    """Half distance between the fingers that hold `body`: its detail `grip` says it in its half extents."""
    return body.detail("grip", 0.8 if body.kind == "cone" else 1.0) * body.size


def wrist_height(body: Body) -> float:
    """y of the wrist that holds `body`: the finger tips end at 0.6 of its half extent below its centre.

    Its detail `grip_y` says where else they end.
    """
    return body.y + body.detail("grip_y", 0.6) * body.size - FINGER_LENGTH


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A gantry arm that hangs from the ceiling: wrist centre (x, y), half `opening` between the inner finger faces."""

    x: float
    y: float
    opening: float


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """Wall, floor and one harmless thing on the wall (`window`, `picture`, `shelf` or none).

    The scene is in the `place` of that name in BACKDROPS, which may have `details` of its own. Light comes from the
    left when `light` is negative.
    """

    wall: tuple[int, int, int]
    floor: tuple[int, int, int]
    floor_y: float
    light: float
    decoration: str
    decoration_x: float
    place: str = "room"
    details: Details = ()

    def detail(self, name: str, default: Value) -> Value:
        """The detail of that name, or the default when the backdrop has none."""
        return _detail(self.details, name, default)


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
        """All fields; of those that most scenes have no use for, only what is not at its default."""
        value = asdict(self)
        value["backdrop"] = _without_defaults(self.backdrop, value["backdrop"], ("place", "details"))
        value["bodies"] = tuple(
            _without_defaults(body, each, ("details", "points", "layer"))
            for body, each in zip(self.bodies, value["bodies"], strict=True)
        )
        return value

    @classmethod
    def from_json(cls, value: dict) -> State:
        """The state that `to_json` wrote.

        Raises TypeError for an unknown key.
        """
        arm = None if value["arm"] is None else Arm(**value["arm"])
        bodies = tuple(Body(**_with_tuples(body)) for body in value["bodies"])
        return cls(
            backdrop=Backdrop(**_with_tuples(value["backdrop"])), bodies=bodies, arm=arm, ropes=tuple(value["ropes"])
        )


def _without_defaults(thing: Body | Backdrop, value: dict, names: tuple[str, ...]) -> dict:
    defaults = {each.name: each.default for each in fields(thing) if each.name in names}
    return {name: item for name, item in value.items() if name not in defaults or item != defaults[name]}


def _with_tuples(value: dict) -> dict[str, Any]:
    """JSON has lists where bodies and backdrops have tuples, of tuples in turn."""
    return {
        name: tuple(tuple(x) if isinstance(x, list) else x for x in item) if isinstance(item, list) else item
        for name, item in value.items()
    }
