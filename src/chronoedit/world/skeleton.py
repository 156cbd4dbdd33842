"""A scene in one file: a beacon between other things, which is switched on.

It works as it is. Change one thing at a time, and look:
    chronoedit world sample --scenes beacon.py --family beacon --count 8 -o out/beacon
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from chronoedit.world.drawing import Light, Paint, bands, column, sphere
from chronoedit.world.geometry import ellipse
from chronoedit.world.kinds import Kind, same
from chronoedit.world.language import named, say
from chronoedit.world.palette import mixed
from chronoedit.world.physics import tween
from chronoedit.world.scenes.base import Scene, sample_backdrop, sample_row
from chronoedit.world.state import Body, State

SIZE_PX = 14.0  # half the height, in a world of 128 x 128 px
DARK, BRIGHT = (70, 72, 82), (255, 226, 120)


def paint(body: Body, light: Light) -> list[Paint]:
    """Polygons in the body's own frame, the hindmost first: (0, 0) is its centre, y points down, it stands on y = 1."""
    lamp = mixed(DARK, BRIGHT, body.detail("on", 0.0))  # what the edit changes of a body is a detail, with its default
    return [
        *bands(ellipse(0, 0.86, 0.6, 0.14), body.albedo, light),
        *column(((-0.3, -0.2), (0.3, -0.2)), ((-0.4, 0.86), (0.4, 0.86)), body.albedo, light),
        *sphere(0, -0.5, 0.5, lamp, light),
    ]


# By name: what people call it, the outline that physics takes it for, and how it is painted.
KINDS = {
    "beacon": Kind(
        nouns=("beacon",),
        outline=same([(-0.5, -0.5), (-0.25, -1.0), (0.25, -1.0), (0.5, -0.5), (0.6, 1.0), (-0.6, 1.0)]),
        paint=paint,
    )
}
# Twelve or more for each edit, with the same slots: the words are what a model learns from.
PHRASES = {
    "switch_on_beacon": (
        "switch on the {a}",
        "switch the {a} on",
        "turn on the {a}",
        "turn the {a} on",
        "light the {a}",
        "light up the {a}",
        "make the {a} shine",
        "make the {a} glow",
        "let the {a} light up",
        "bring the {a} to light",
        "the {a} is switched on",
        "someone turns the {a} on",
    )
}
# How the edit comes about, for long instructions, with slots of its phrasings.
WAYS = {
    "switch_on_beacon": "The lamp on top of the {a}, dark before, grows brighter and brighter.",
}


@dataclass
class BeaconScene(Scene):
    """Three things in a row, one of them a beacon."""

    family: ClassVar[str] = "beacon"
    edits: ClassVar[tuple[str, ...]] = ("switch_on_beacon",)
    start: State
    edit: str
    prompt: str
    subject: int  # the id of the body that the edit is about
    checks: tuple[str, ...] = ("supported",)  # names of CHECKS that must hold in the edited picture

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> BeaconScene | None:
        """Draw everything from `rng`; None means that there was no room, and another draw is made."""
        backdrop = sample_backdrop(rng)
        bodies = sample_row(rng, 3, backdrop.floor_y, gap_px=8.0)
        if bodies is None:
            return None
        k = int(rng.integers(3))
        bodies[k] = replace(bodies[k], kind="beacon", size=SIZE_PX, y=backdrop.floor_y - SIZE_PX)
        start = State(backdrop=backdrop, bodies=tuple(bodies))
        words = say(rng, edit, {"a": named(rng, start, bodies[k])})
        return cls(start, edit, words, bodies[k].id)

    def state(self, t: float) -> State:
        """The scene at time t: the input at 0, the result at 1, and what leads from one to the other."""
        if t <= 0:
            return self.start
        body = self.start.body(self.subject)
        assert body is not None
        return self.start.with_body(tween(body.with_details(on=0.0), body.with_details(on=1.0), t))
