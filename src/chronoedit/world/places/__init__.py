"""Where scenes take place: what stands behind the bodies, and the ground they stand on, as paints in world px.

A place is a function of the backdrop, and a line in BACKDROPS. What it paints comes of the backdrop's fields and
details alone, so that the same backdrop is always the same picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..drawing import Paint
from .kitchen import kitchen
from .outdoors import meadow
from .portrait import PORTRAIT_PLACES
from .room import room
from .street import street

if TYPE_CHECKING:
    from ..state import Backdrop

Place = Callable[["Backdrop"], list[Paint]]
BACKDROPS: dict[str, Place] = {"room": room, "kitchen": kitchen, "meadow": meadow, "street": street, **PORTRAIT_PLACES}
