"""Edit images by imagining the short video that leads to the edit.

The names below are imported on first use, so that `import chronoedit` costs nothing (no torch).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chronoedit.editing.editor import Editor
    from chronoedit.editing.loading import load
    from chronoedit.request import EditRequest, EditResult

__version__ = "0.1.0"
__all__ = ["EditRequest", "EditResult", "Editor", "__version__", "load"]

_HOMES = {
    "EditRequest": "chronoedit.request",
    "EditResult": "chronoedit.request",
    "Editor": "chronoedit.editing.editor",
    "load": "chronoedit.editing.loading",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'chronoedit' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
