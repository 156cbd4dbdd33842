"""The kinds of things by name. A group of kinds is a module with a table, and a line here."""

from __future__ import annotations

from .base import Kind, same
from .blocks import BLOCKS
from .free import FREE
from .kitchen import KITCHEN
from .portrait import PORTRAIT
from .shafts import SHAFTS
from .solids import SOLIDS
from .street import STREET
from .tools import TOOLS

KIND_TABLE: dict[str, Kind] = {**SOLIDS, **FREE, **TOOLS, **SHAFTS, **BLOCKS, **KITCHEN, **STREET, **PORTRAIT}

__all__ = ["KIND_TABLE", "Kind", "kind_of", "same"]


def kind_of(name: str) -> Kind:
    """The entry of a kind.

    Raises ValueError for an unknown name.
    """
    if name not in KIND_TABLE:
        raise ValueError(f"unknown kind {name!r}; choose one of {', '.join(KIND_TABLE)}")
    return KIND_TABLE[name]
