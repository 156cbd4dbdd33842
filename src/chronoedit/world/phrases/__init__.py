"""Phrasings of the drawn families, a module each: twelve or more for every edit, all with the same slots."""

from __future__ import annotations

from .kitchen import KITCHEN
from .portrait import PORTRAIT
from .resizing import RESIZING
from .street import STREET
from .tools import TOOLS
from .toppling import TOPPLING

FAMILY_PHRASES: dict[str, tuple[str, ...]] = {**TOOLS, **TOPPLING, **RESIZING, **KITCHEN, **STREET, **PORTRAIT}
