"""The flag for files with scenes of one's own, and how processes that share the work get to know them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar

from chronoedit.apps.options import option

if TYPE_CHECKING:
    from chronoedit.world.plugins import SceneFile

SceneFiles = Annotated[tuple[Path, ...], option("files with scenes of your own (see world new)", shown="FILE...")]

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class WithScenes(Generic[Made]):
    """Calls `factory` in a process that does not know the scenes of these files yet."""

    factory: Callable[[], Made]
    files: tuple[SceneFile, ...]

    def __call__(self) -> Made:
        """What the factory makes. Raises ValueError as `register`, and for a file that is another one by now."""
        from chronoedit.world.plugins import register

        for file in self.files:
            if register(file.path).sha256 != file.sha256:
                raise ValueError(f"{file.path} was changed while it was being used; start again")
        return self.factory()
