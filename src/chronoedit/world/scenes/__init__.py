"""The scene families by name. A new one is a class with the attributes and methods of `Scene`, and a line in SCENES."""

from __future__ import annotations

from .any_object import AnyObject
from .base import FRAMES, Scene
from .falling import Falling
from .star import Star
from .table import Table

SCENES: dict[str, type[Scene]] = {"table": Table, "falling": Falling, "any": AnyObject, "star": Star}

__all__ = ["FRAMES", "SCENES", "Scene"]
