"""Resizing: one body becomes larger or smaller where it stands; everything else stays as it is to the pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..language import named, say
from ..physics import gap_px, tween
from ..state import WORLD_SIZE, Body, State
from .base import Scene, pick, sample_backdrop, sample_row

GAP_PX, EDGE_PX = 3.0, 3.0
BIGGER, SMALLER = (1.45, 1.7), (0.52, 0.64)
FACTORS = {"half": 0.5, "twice": 2.0, "one and a half times": 1.5}
SMALLEST_PX = 5.5


@dataclass
class Resizing(Scene):
    """Objects in a row; `after` is the subject as large as it becomes, on the same ground."""

    family: ClassVar[str] = "resizing"
    edits: ClassVar[tuple[str, ...]] = ("enlarge", "shrink", "resize")
    start: State
    edit: str
    prompt: str
    subject: int
    after: Body
    checks: tuple[str, ...] = ("on_ground",)

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Resizing | None:
        backdrop = sample_backdrop(rng)
        bodies = sample_row(rng, int(rng.integers(2, 4)), backdrop.floor_y, gap_px=5.0)
        if bodies is None:
            return None
        start, how = State(backdrop=backdrop, bodies=tuple(bodies)), pick(rng, list(FACTORS))
        body = pick(rng, bodies)
        factor = {
            "enlarge": float(np.round(rng.uniform(*BIGGER), 2)),
            "shrink": float(np.round(rng.uniform(*SMALLER), 2)),
            "resize": FACTORS[how],
        }[edit]
        after = resized(body, factor)
        slots = {"a": named(rng, start, body), "how": how}
        scene = cls(start, edit, say(rng, edit, slots), body.id, after)
        return scene if scene._has_room() else None

    def state(self, t: float) -> State:
        if t <= 0:
            return self.start
        before = self.start.body(self.subject)
        assert before is not None
        return self.start.with_body(tween(before, self.after, t))

    def _has_room(self) -> bool:
        """As large as it becomes it neither leaves the picture nor reaches its neighbours, and can still be seen."""
        left, _, right, _ = self.after.span
        apart = all(gap_px(self.after, other) >= GAP_PX for other in self.start.others(self.subject))
        return left >= EDGE_PX and right <= WORLD_SIZE - EDGE_PX and apart and self.after.size >= SMALLEST_PX


def resized(body: Body, factor: float) -> Body:
    """The body `factor` times as large, its foot where it was."""
    size = body.size * factor
    return replace(body, size=size, y=body.y + body.size - size)
