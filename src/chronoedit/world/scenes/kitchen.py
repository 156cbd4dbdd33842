"""Kitchen: pour, slice in half, open and close a jar, season a soup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..language import say
from ..measures import AreaMeasure
from ..state import Backdrop, State
from .base import Scene
from .kitchen_jar import sample_close, sample_open
from .kitchen_pour import sample_pour
from .kitchen_season import sample_season
from .kitchen_slice import sample_slice
from .kitchen_stage import Plot, sample_kitchen

PLOTS: dict[str, Callable[[np.random.Generator, Backdrop], Plot | None]] = {
    "pour": sample_pour,
    "slice": sample_slice,
    "open_jar": sample_open,
    "close_jar": sample_close,
    "season": sample_season,
}


@dataclass
class Kitchen(Scene):
    """One kitchen and what happens in it; every edit has its own plot."""

    family: ClassVar[str] = "kitchen"
    edits: ClassVar[tuple[str, ...]] = tuple(PLOTS)
    plot: Plot
    edit: str
    prompt: str
    subject: int | None
    checks: tuple[str, ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Kitchen | None:
        plot = PLOTS[edit](rng, sample_kitchen(rng))
        if plot is None:
            return None
        return cls(plot, edit, say(rng, edit, plot.slots), plot.subject, plot.checks)

    @property
    def start(self) -> State:
        return self.plot.start

    def state(self, t: float) -> State:
        return self.plot.start if t <= 0 else self.plot.state(min(t, 1.0))

    def measures(self) -> tuple[AreaMeasure, ...]:
        return self.plot.measures()
