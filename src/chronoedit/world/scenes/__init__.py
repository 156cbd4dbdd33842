"""The scene families by name. A new one is a class with the attributes and methods of `Scene`, and a line in SCENES."""

from __future__ import annotations

from .any_object import AnyObject
from .base import FRAMES, Scene
from .falling import Falling
from .kitchen import Kitchen
from .portrait import Portrait
from .resizing import Resizing
from .star import Star
from .street import Street
from .table import Table
from .tools import Tools
from .toppling import Toppling

SCENES: dict[str, type[Scene]] = {
    "table": Table,
    "falling": Falling,
    "any": AnyObject,
    "star": Star,
    "tools": Tools,
    "toppling": Toppling,
    "resizing": Resizing,
    "kitchen": Kitchen,
    "street": Street,
    "portrait": Portrait,
}

__all__ = ["FRAMES", "SCENES", "Scene"]
