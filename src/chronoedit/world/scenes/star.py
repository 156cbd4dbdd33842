"""An edit that the embedded model was not trained on: a body becomes a star. For teaching it with a LoRA.

No seed draws this family by itself. Some subjects are held out from training, see `held_out`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..language import say
from ..physics import ease, gap_px
from ..state import WORLD_SIZE, State
from .base import WALLS, Scene, pick, sample_backdrop, sample_row

EDGE_PX, GAP_PX = 2.0, 4.0  # left free beside a star
SMALLEST = 0.35  # of its size: as small as the body becomes before a star grows from it
HELD_OUT_KINDS = ("cone",)
HELD_OUT_COLOURS = ("green", "purple")
HELD_OUT_WALLS = ((206, 220, 232), (214, 228, 212))


@dataclass
class Star(Scene):
    """Objects in a row; the subject shrinks where it stands, and a star of its colour and size grows in its place."""

    family: ClassVar[str] = "star"
    edits: ClassVar[tuple[str, ...]] = ("turn_into_star",)
    start: State
    edit: str
    prompt: str
    subject: int | None
    checks: tuple[str, ...] = ("supported",)

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Star | None:
        backdrop = sample_backdrop(rng)
        bodies = sample_row(rng, int(rng.integers(2, 4)), backdrop.floor_y, gap_px=8.0)
        if bodies is None:
            return None
        body = pick(rng, bodies)
        start = State(backdrop=backdrop, bodies=tuple(bodies))
        scene = cls(start, edit, say(rng, edit, {"a": body.name}), body.id)
        return scene if scene._has_room() else None

    def state(self, t: float) -> State:
        if t <= 0:
            return self.start
        assert self.subject is not None
        body = self.start.body(self.subject)
        assert body is not None
        size = body.size * (1 - (1 - SMALLEST) * ease(1 - abs(2 * t - 1)))
        kind = body.kind if t < 0.5 else "star"
        return self.start.with_body(replace(body, kind=kind, size=size, y=body.y + body.size - size))

    def _has_room(self) -> bool:
        """The star is wider than what it comes from: it must neither leave the picture nor reach its neighbours."""
        end = self.state(1.0)
        star = end.body(self.subject or 0)
        assert star is not None
        inside = all(EDGE_PX <= x <= WORLD_SIZE - EDGE_PX for x, _ in star.outline())
        return inside and all(gap_px(star, other) >= GAP_PX for other in end.others(star.id))


def held_out(scene: Scene) -> tuple[str, ...]:
    """What of a star scene no training set may have: its subject's "kind" or "colour", its "backdrop"; () for none.

    Raises ValueError for a scene of another family.
    """
    if not isinstance(scene, Star) or scene.subject is None:
        raise ValueError(f"a {scene.family} scene has nothing held out; give one of the family star")
    body = scene.start.body(scene.subject)
    assert body is not None
    wall = min(WALLS, key=lambda each: sum(abs(a - b) for a, b in zip(each, scene.start.backdrop.wall, strict=True)))
    found = {
        "kind": body.kind in HELD_OUT_KINDS,
        "colour": body.colour in HELD_OUT_COLOURS,
        "backdrop": wall in HELD_OUT_WALLS,
    }
    return tuple(name for name, out in found.items() if out)
