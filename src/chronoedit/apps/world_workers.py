"""Processes that share a run of `eval world` on the cores of a CPU, each with the model in its own memory."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chronoedit.apps.options import ModelFlags
from chronoedit.apps.session import opened

if TYPE_CHECKING:
    from chronoedit.editing.editor import Editor


@dataclass(frozen=True, kw_only=True)
class InWorker:
    """Opens the model in one of so many workers, with that worker's share of the cores."""

    flags: ModelFlags
    workers: int

    def __call__(self) -> Editor:
        """The editor, which lasts as long as its process. Raises as `opened`."""
        from chronoedit.apps.main import CHATTY

        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.workers))
        return ExitStack().enter_context(opened(self.flags))


def check_workers(workers: int, device: str | None) -> None:
    """Raise ValueError for no worker, and where several would have to share a GPU."""
    if workers < 1:
        raise ValueError(f"--workers {workers} is below 1; give 1 or more")
    if workers == 1 or device == "cpu":
        return
    import torch

    if device is not None or torch.cuda.is_available():
        raise ValueError(
            f"--workers {workers} share the cores of a CPU; give --device cpu, or leave it out and use --batch-size"
        )
