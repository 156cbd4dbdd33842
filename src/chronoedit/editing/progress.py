"""What an edit tells while it runs, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from chronoedit.errors import EditCancelled
from chronoedit.request import EditRequest, Progress


class Reporter:
    """Hands progress to the callbacks of the edits of one batch, each callback once.

    Calling it raises EditCancelled when a callback returns False; the whole batch stops then.
    """

    def __init__(self, requests: Sequence[EditRequest]) -> None:
        self._callbacks: list[Callable[[Progress], bool | None]] = []
        for request in requests:
            if request.progress is not None and request.progress not in self._callbacks:
                self._callbacks.append(request.progress)

    def __call__(self, stage: str, done: int, total: int) -> None:
        progress = Progress(stage, done, total)
        answers = [callback(progress) for callback in self._callbacks]
        if any(answer is False for answer in answers):
            raise EditCancelled(f"the edit was cancelled in the stage {stage!r} ({done} of {total} done)")


class Stopwatch:
    """Seconds by stage, the work queued on the device included; `seconds()` adds "total".

    `current` is the stage under way, or the last.
    """

    def __init__(self, device: torch.device) -> None:
        self.current = "load"
        self._device = device
        self._stages: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        self.current = name
        start = time.perf_counter()
        yield
        self._wait()
        self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - start

    def seconds(self) -> dict[str, float]:
        """Every stage so far, and "total" since the stopwatch was made."""
        return {**self._stages, "total": time.perf_counter() - self._start}

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
