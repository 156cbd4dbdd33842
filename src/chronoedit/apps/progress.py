"""Progress on stderr: where that is a terminal, bars of an edit's stages and a view of a training; else its log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from chronoedit.request import Progress

WORDS = {
    "load": "load the model",
    "encode": "read picture and prompt",
    "compile": "compile",
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


FIGURES = {
    "loss": "loss",
    "loss_pairs": "loss of pairs",
    "loss_clips": "loss of clips",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "items_per_s": "items a second",
    "peak_memory_bytes": "peak memory",
}
VALIDATION = "val_"


class TrainingView:
    """A context that shows a training as it runs: on a terminal a bar over its steps and the last figures.

    Elsewhere each record is a line, as `print_record` writes it. `on_step` and `log` are what a training calls.
    """

    def __init__(self, console: Console | None = None, title: str = "training") -> None:
        self._console = console or Console(stderr=True)
        self._bars = Bars(
            TextColumn(title),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            expand=True,
            speed_estimate_period=600,  # a step of a large model takes longer than the usual 30 seconds
        )
        self._task: TaskID | None = None
        self._record: Mapping[str, Any] = {}
        self._before: Mapping[str, Any] = {}
        # stdout is for the result's path alone, and stays as it is
        self._live = Live(console=self._console, redirect_stdout=False, get_renderable=self._view, refresh_per_second=2)

    def __enter__(self) -> TrainingView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_step(self, done: int, total: int) -> None:
        """So many steps are done; the first call may be of a run that goes on, whose speed is not known yet."""
        if self._task is None:
            self._task = self._bars.add_task("", total=total, completed=done)
        self._bars.update(self._task, completed=done, total=total)

    def log(self, record: Mapping[str, Any]) -> None:
        """Show a record of the log."""
        self._before, self._record = self._record, dict(record)
        if not self._console.is_terminal:
            print_record(record)

    def _view(self) -> Group:
        """The figures of the last record, each with the one before it, over the bar."""
        table = Table.grid(padding=(0, 2))
        for name, word in FIGURES.items():
            if name in self._record:
                now, before = (shown_figure(name, each.get(name)) for each in (self._record, self._before))
                table.add_row(Text(word, "dim"), Text(now), Text(f"before {before}" if before else "", "dim"))
        levels = [name for name in self._record if name.startswith(VALIDATION)]
        for name in levels:
            now, before = (shown_figure(name, each.get(name)) for each in (self._record, self._before))
            word = "loss held out, at noise " if name == levels[0] else ""
            label = f"{word}{name.removeprefix(VALIDATION).replace('_', ' ')}"
            table.add_row(
                Text(label, "dim", justify="right"), Text(now), Text(f"before {before}" if before else "", "dim")
            )
        return Group(table, self._bars)


def shown_figure(name: str, value: Any) -> str:
    """A figure of the log as the view shows it; nothing for None."""
    if value is None:
        return ""
    if name.endswith("_bytes"):
        return f"{value / 1e9:.2f} GB"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
