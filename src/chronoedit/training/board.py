"""What a run logs, as TensorBoard reads it, and a tracker by name beside it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from PIL import Image

from chronoedit.cache import content_key
from chronoedit.errors import MissingExtraError

PROJECT = "chronoedit"


class Tracker(Protocol):
    """Numbers and pictures by their step, in one run of a project."""

    def log(self, values: dict[str, Any], step: int) -> None: ...

    def picture(self, image: Image.Image) -> Any: ...

    def finish(self) -> None: ...


class Board:
    """Writes the numbers and pictures of a run by their step; `tensorboard --logdir FOLDER` shows them.

    `report_to` names one of `TRACKERS` that gets the same, in a run of the name of the folder above, with `config` as
    its settings. The same folder goes on with the same run. Raises MissingExtraError without tensorboard or the
    tracker's package, ValueError for an unknown name.
    """

    def __init__(self, folder: Path, report_to: str | None = None, config: Mapping[str, Any] | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError('logging needs tensorboard: pip install "chronoedit[lora]"') from error
        start = None if report_to is None else tracker_named(report_to)
        run = folder.resolve().parent
        # as JSON and back: paths, tuples and dataclasses are not everyone's settings
        settings = json.loads(json.dumps(dict(config or {}), default=str))
        self._tracker = None if start is None else start(run, settings)
        self._writer = SummaryWriter(str(folder))

    def write(self, record: dict[str, Any]) -> None:
        """Add one record; `step` is its place on the axis, what is no number is left out."""
        numbers = {
            name: value
            for name, value in record.items()
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()
        if self._tracker is not None:
            self._tracker.log(numbers, record["step"])

    def show(self, name: str, image: Image.Image, step: int) -> None:
        """Add a picture, such as a sheet of sample edits."""
        self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._writer.flush()
        if self._tracker is not None:
            self._tracker.log({name: self._tracker.picture(image)}, step)

    def close(self) -> None:
        """Write what is left, and end the tracker's run."""
        self._writer.close()
        if self._tracker is not None:
            self._tracker.finish()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Wandb:
    """Weights & Biases; with WANDB_MODE=offline nothing leaves the machine."""

    def __init__(self, run: Path, config: dict[str, Any]) -> None:
        self._module = _package("wandb")
        run.mkdir(parents=True, exist_ok=True)
        name = content_key("run", str(run))[:16]
        self._run = self._module.init(
            project=PROJECT, name=run.name, id=name, resume="allow", dir=str(run), config=config, allow_val_change=True
        )

    def log(self, values: dict[str, Any], step: int) -> None:
        self._run.log(values, step=step)

    def picture(self, image: Image.Image) -> Any:
        return self._module.Image(image)

    def finish(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio, which keeps runs on this machine and shows them with `trackio show`."""

    def __init__(self, run: Path, config: dict[str, Any]) -> None:
        self._module = _package("trackio")
        with redirect_stdout(sys.stderr):  # it speaks, and stdout is the result's
            self._module.init(project=PROJECT, name=run.name, config=config, resume="allow", embed=False)

    def log(self, values: dict[str, Any], step: int) -> None:
        self._module.log(values, step=step)

    def picture(self, image: Image.Image) -> Any:
        return self._module.Image(image)

    def finish(self) -> None:
        with redirect_stdout(sys.stderr):
            self._module.finish()


TRACKERS: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {"wandb": Wandb, "trackio": Trackio}


def tracker_named(name: str) -> Callable[[Path, dict[str, Any]], Tracker]:
    """The tracker of this name. Raises ValueError, listing the choices, when there is none."""
    if name not in TRACKERS:
        raise ValueError(f"there is no tracker {name!r}; choose from {', '.join(TRACKERS)}")
    return TRACKERS[name]


def check_tracker(name: str | None) -> None:
    """Raise ValueError for an unknown tracker and MissingExtraError for one that is not installed, before any work."""
    if name is not None:
        tracker_named(name)
        _package(name)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"reporting to {name} needs its package: pip install {name}") from error
