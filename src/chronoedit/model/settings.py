"""What a model's folder says about its own use: steps, guidance, shift, area; published values where it is silent."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from chronoedit.errors import CheckpointError
from chronoedit.model.headers import read_json

SETTINGS_FILE = "chronoedit.json"
SCHEDULER_FILE = "scheduler/scheduler_config.json"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The defaults of one model; those here are of the published 14B checkpoint.

    `target_area` in px², `reasoning_frames` pixel frames T = 4k + 1 of the reasoning video, `max_sequence_length`
    text tokens; `mag_ratios` (sigma, magnitude) pairs of the step cache "mag", see `runtime.stepcache.calibrated`.
    Raises ValueError when a value is out of range.
    """

    name: str
    target_area: int = 720 * 1280
    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    flow_shift: float = 5.0
    reasoning_frames: int = 29
    max_sequence_length: int = 512
    negative_prompt: str = ""
    licence: str = ""
    mag_ratios: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for key in ("name", "negative_prompt", "licence"):
            if not isinstance(getattr(self, key), str):
                raise ValueError(f"{key} is {getattr(self, key)!r}; a text is expected")
        for key, least in (("target_area", 256), ("num_inference_steps", 1), ("max_sequence_length", 1)):
            value = getattr(self, key)
            if type(value) is not int or value < least:
                raise ValueError(f"{key} is {value!r}; a whole number of at least {least} is expected")
        for key, low in (("guidance_scale", 1.0), ("flow_shift", 0.0)):
            value = getattr(self, key)
            if not isinstance(value, int | float) or not math.isfinite(value) or value < low or value == 0:
                raise ValueError(f"{key} is {value!r}; a number of at least {low}, above 0, is expected")
        frames = self.reasoning_frames
        if type(frames) is not int or frames < 9 or frames % 4 != 1:
            raise ValueError(f"reasoning_frames is {frames!r}; 4k + 1 of at least 9 is expected, such as 29")

        object.__setattr__(self, "mag_ratios", _pairs(self.mag_ratios))  # frozen: lists in JSON, tuples here

    def to_json(self) -> dict[str, Any]:
        """All settings, as `chronoedit.json` holds them."""
        return asdict(self)


def read_settings(folder: Path, *, name: str) -> ModelSettings:
    """Settings of a checkpoint's folder: `chronoedit.json`, then the scheduler's shift, then the published values.

    Raises CheckpointError naming the file and the key at fault; an unknown key is an error.
    """
    path = folder / SETTINGS_FILE
    given = read_json(path) if path.is_file() else {}
    unknown = sorted(set(given) - {field.name for field in fields(ModelSettings)})
    if unknown:
        known = ", ".join(field.name for field in fields(ModelSettings))
        raise CheckpointError(f"{path} has unknown settings {', '.join(unknown)}; known are {known}")
    try:
        settings = ModelSettings(**{"name": name, **given})
        shift = None if "flow_shift" in given else _scheduler_shift(folder / SCHEDULER_FILE)
        return settings if shift is None else replace(settings, flow_shift=shift)
    except ValueError as error:
        raise CheckpointError(f"{path if given else folder}: {error}") from error


def _pairs(values: object) -> tuple[tuple[float, float], ...]:
    rows: list[Any] = list(values) if isinstance(values, list | tuple) else [values]
    for row in rows:
        numbers = row if isinstance(row, list | tuple) else [row]
        if len(numbers) != 2 or not all(isinstance(x, int | float) and math.isfinite(x) and x > 0 for x in numbers):
            raise ValueError(f"mag_ratios has {row!r}; pairs of sigma and magnitude are expected, both above 0")
    return tuple((float(sigma), float(magnitude)) for sigma, magnitude in rows)


def _scheduler_shift(path: Path) -> float | None:
    config = read_json(path) if path.is_file() else {}
    return config.get("flow_shift", config.get("shift"))  # UniPC's name, flow-match Euler's name
