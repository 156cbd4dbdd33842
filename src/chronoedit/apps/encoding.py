"""What the commands share that encode a training set: the flags of its size, the encoder, a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.progress import Progress

from chronoedit.apps.options import option
from chronoedit.data.records import kind_of

if TYPE_CHECKING:
    from chronoedit.data.encoded import Encoder, Example
    from chronoedit.data.records import Record
    from chronoedit.model.checkpoint import Components


@dataclass(frozen=True, kw_only=True)
class SizeFlags:
    """At which size the set is encoded."""

    height: Annotated[
        int | None, option("px, with --width; default: the model's area, by aspect ratio", shown="PX")
    ] = None
    width: Annotated[int | None, option("px, with --height", shown="PX")] = None
    num_frames: Annotated[
        int, option("2 or 5: pairs; 26 or 29: reasoning clips too, where there are any", shown="N")
    ] = 29

    def check(self) -> None:
        """Raise ValueError for a number of frames that is neither a pair's nor a clip's."""
        if kind_of(self.num_frames) is None:
            raise ValueError(f"--num-frames {self.num_frames}: 2 or 5 are pairs, 26 or 29 reasoning clips")


def make_encoder(components: Components, sizes: SizeFlags, folder: Path) -> Encoder:
    """The encoder of a model at these sizes, its cache in `folder`. Raises ValueError, OutputError."""
    from chronoedit.cache import TensorCache
    from chronoedit.data.encoded import Encoder
    from chronoedit.data.loader import Geometry

    geometry = Geometry(
        height=sizes.height,
        width=sizes.width,
        area=components.settings.target_area,
        clips=kind_of(sizes.num_frames) == "clip",
    )
    return Encoder(components=components, cache=TensorCache(folder), geometry=geometry)


def encode_with_bar(encoder: Encoder, records: Sequence[Record], shown: bool = True) -> list[Example]:
    """Encode what is missing, with a progress bar on a terminal if it is `shown`. Raises DataError."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("encoding")
        return encoder.encode(
            records, lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total)
        )
