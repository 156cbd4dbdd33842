"""Progress on stderr: a bar for each stage of an edit, where that is a terminal; lines of a training's log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from chronoedit.request import Progress

WORDS = {
    "load": "load the model",
    "encode": "read picture and prompt",
    "denoise": "denoise",
    "trajectory": "show the reasoning",
    "decode": "decode",
}


class StageBars:
    """A context whose `update` is an edit's progress callback: a bar appears when its stage begins."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description:<23}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> StageBars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, progress: Progress) -> None:
        """Show how far a stage is; a stage that starts again (the next edit of a chain) gets a new bar."""
        task = self._tasks.get(progress.stage)
        if task is None or (progress.done == 0 and self._bars.tasks[task].finished):
            task = self._bars.add_task(WORDS.get(progress.stage, progress.stage), total=progress.total)
            self._tasks[progress.stage] = task
        self._bars.update(task, completed=progress.done, total=progress.total)


def print_record(record: Mapping[str, Any]) -> None:
    """One line of a training's log, to stderr."""
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items()), file=sys.stderr)
