"""What an editor makes of items of the world: ours by requests, any other one by its answer to a case."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from chronoedit.media import encode_image
from chronoedit.request import EditRequest, EditResult, ImageEditor
from chronoedit.world import Item

from .cases import Case
from .editors import CaseEditor, EditFailed, Folder


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What came of one item: the picture, or in `error` why there is none.

    `trajectory` are the frames shown, uint8 T H W 3, the edit last; `measured` is what it took, as JSON data.
    """

    image: Image.Image | None
    trajectory: np.ndarray | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@runtime_checkable
class BatchEditor(Protocol):
    """An editor that takes several requests at once."""

    def edit_batch(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The results in the order of the requests."""


@dataclass(frozen=True)
class External:
    """An editor that is not of this package. It gets the picture, the words and the item's seed, one by one."""

    editor: CaseEditor

    def attempt(self, item: Item) -> Attempt:
        """Its answer, or why it has none."""
        editor = self.editor
        if isinstance(editor, Folder):  # it counts repeats from its first seed, and an item is done once
            editor = replace(editor, first_seed=item.seed)
        case = Case(key=str(item.seed), prompt=str(item.prompt), image=ItemPicture(item), category=item.family)
        began = time.monotonic()
        try:
            image = editor.edit(case, Image.fromarray(item.input), item.seed)
        except EditFailed as error:
            return Attempt(image=None, error=str(error))
        took_s = None if isinstance(editor, Folder) else time.monotonic() - began
        return Attempt(image=image, measured={"time_s": took_s})


@dataclass(frozen=True)
class ItemPicture:
    """The input of an item as the bytes of a PNG."""

    item: Item

    @property
    def name(self) -> str:
        return f"{self.item.seed}.png"

    def read(self) -> bytes:
        return encode_image(Image.fromarray(self.item.input), Path(self.name))


def attempts(editor: ImageEditor, requests: Sequence[EditRequest]) -> list[Attempt]:
    """What an editor of this package makes of its requests, all at once where it can."""
    if isinstance(editor, BatchEditor):
        results = editor.edit_batch(requests)
    else:
        results = [editor.edit(request) for request in requests]
    return [
        Attempt(
            image=result.image,
            trajectory=result.trajectory,
            measured={
                "time_s": result.timings_s.get("total"),
                "passes": None if result.passes is None else list(result.passes),
            },
        )
        for result in results
    ]


def pixels_of(image: Image.Image, item: Item) -> np.ndarray:
    """uint8 size size 3, brought to the item's size where the editor works at its own."""
    image = image.convert("RGB")
    size = (item.size, item.size)
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS))
