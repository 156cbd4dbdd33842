"""The first families as the drawn world has them: with one thing more in the row, sometimes."""

from __future__ import annotations

from typing import ClassVar

from .any_object import AnyObject
from .base import Scene
from .falling import Falling
from .table import Table

MOST = 4


class CrowdedTable(Table):
    """Table with a longer row."""

    most: ClassVar[int] = MOST


class CrowdedFalling(Falling):
    """Falling with a longer row."""

    most: ClassVar[int] = MOST


class CrowdedAny(AnyObject):
    """AnyObject with a longer row."""

    most: ClassVar[int] = MOST


CROWDED: dict[str, type[Scene]] = {scene.family: scene for scene in (CrowdedTable, CrowdedFalling, CrowdedAny)}
