"""What a run logs, as TensorBoard reads it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from chronoedit.errors import MissingExtraError


class Board:
    """Writes the numbers of each record by its step; `tensorboard --logdir FOLDER` shows them.

    Raises MissingExtraError without tensorboard.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError('logging needs tensorboard: pip install "chronoedit[lora]"') from error
        self._writer = SummaryWriter(str(folder))

    def write(self, record: dict[str, Any]) -> None:
        """Add one record; `step` is its place on the axis, what is no number is left out."""
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
