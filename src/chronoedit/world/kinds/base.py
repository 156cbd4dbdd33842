"""What a kind of thing is: its outline, how it is painted, and what people call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..drawing import Light, Paint
from ..geometry import Polygon

if TYPE_CHECKING:
    from ..state import Body


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One entry of KIND_TABLE. Outlines and paints are in the body's own frame: its centre at (0, 0), lengths in units
    of `size`, upright, y pointing down; an upright body stands on y = 1.

    `outline` is what physics and the id-mask take for the body; physics takes a hollow one for its hull. `paint` draws
    it, `front` what of it lies before other bodies of its layer (the front of a glass). `group` names kinds that one
    might take for each other. A `see_through` kind hides what is behind it only where it is painted; one that is not
    `solid` may overlap others. `shadow` is the strength of its shadow, `edge` that of the dark line around what is
    painted opaque, `turn_deg` the largest turn that looks like another angle.
    """

    nouns: tuple[str, ...]
    outline: Callable[[Body], Polygon]
    paint: Callable[[Body, Light], list[Paint]]
    front: Callable[[Body, Light], list[Paint]] | None = None
    group: str = ""
    rolls: bool = False
    see_through: bool = False
    solid: bool = True
    shadow: float = 1.0
    edge: float = 1.0
    turn_deg: int = 180

    @property
    def noun(self) -> str:
        return self.nouns[0]


def same(polygon: Polygon) -> Callable[[Body], Polygon]:
    """The outline of a kind whose bodies differ in size alone."""
    return lambda _body: polygon
