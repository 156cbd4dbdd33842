"""`chronoedit data clips`: training clips out of long videos."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import Progress

from chronoedit.apps.options import Switch, option


@dataclass(frozen=True, kw_only=True)
class CutClips:
    """Cut videos to clips of 29 frames from a camera at rest, whose last frame is an edit of the first.

    Writes videos/, metadata.csv (without captions), sheet.png and clips.jsonl, and says why the other spans were
    rejected. A job that was stopped goes on where it was; more videos add to a finished one. Exit code 1 when a video
    could not be read.
    """

    videos: tyro.conf.Positional[tuple[Path, ...]]
    """Videos, and folders of them."""

    output: Annotated[Path, option("the set's folder", shown="DIR", short="o")]
    seconds: Annotated[float, option("from a clip's first frame to its last", shown="S")] = 2.0
    min_change: Annotated[float, option("share of the picture that must differ at the end", shown="0-1")] = 0.01
    max_change: Annotated[float, option("share that may differ at any time", shown="0-1")] = 0.5
    max_blur: Annotated[float, option("of first and last frame; 0 is sharp, 1 lets all through", shown="0-1")] = 0.55
    max_per_shot: Annotated[int, option("clips from one shot", shown="N")] = 8
    short_side_px: Annotated[int, option("larger frames are scaled down to it", shown="PX")] = 720
    json: Annotated[Switch, option("print one JSON object")] = False

    def run(self) -> int:
        """Cut them; 1 when a video could not be read."""
        from chronoedit.data.clips import ClipSettings, cut_clips, reasons
        from chronoedit.data.footage import find_footage
        from chronoedit.data.spans import Limits
        from chronoedit.media import check_writable

        limits = Limits(min_change=self.min_change, max_change=self.max_change, max_blur=self.max_blur)
        settings = ClipSettings(
            seconds=self.seconds, limits=limits, max_per_shot=self.max_per_shot, short_side_px=self.short_side_px
        )
        check_writable(self.output / "metadata.csv")
        if not self.videos:
            raise ValueError("no video was given; name videos, or folders of them")
        videos = find_footage(list(self.videos), without=self.output)
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("cutting", total=None)
            found = cut_clips(
                videos,
                self.output,
                settings,
                lambda video, done_s, total_s: bar.update(
                    task, description=video.name, completed=done_s, total=total_s or None
                ),
            )
        if self.json:
            print(json.dumps({**asdict(found), "rejected": dict(found.rejected)}))
            return int(bool(found.failed))
        print(f"{self.output}: {found.clips} clips of 29 frames from {found.videos} videos, {found.seconds:.0f} s")
        print(f"  spans rejected: {found.rejected.total()}")
        for line in reasons(found.rejected):
            print(f"  {line}")
        for message in found.failed.values():
            print(f"  not read: {message}")
        if found.clips:
            print(f"  look at {self.output / 'sheet.png'}; captions: chronoedit label {self.output}")
        return int(bool(found.failed))


COMMANDS: dict[str, type[Any]] = {"data clips": CutClips}
