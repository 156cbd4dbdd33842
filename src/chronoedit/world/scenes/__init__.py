"""The scene families by name. A new one is a class with the attributes and methods of `Scene`, and a line in SCENES.

A line in MIX besides makes seeds draw it by themselves.
"""

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

MIX: dict[str, float] = {
    "table": 0.45,
    "falling": 0.2,
    "any": 0.35,
    "street": 0.25,
    "portrait": 0.25,
    "kitchen": 0.25,
    "tools": 0.25,
    "toppling": 0.25,
    "resizing": 0.1,
}
"""How often a seed draws each family, relative to the others."""

__all__ = ["FRAMES", "MIX", "SCENES", "Scene"]
