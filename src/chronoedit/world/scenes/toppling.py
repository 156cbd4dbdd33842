"""Things that lose their balance: a support is taken away, a stack topples, a ball rolls, dominoes fall.

Some scenes have a gravity of their own, which the instruction tells: it is data of the backdrop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from ..language import say
from ..physics import Motion, ease, let_go
from ..state import WORLD_SIZE, Backdrop, Body, State
from .base import FRAMES, Scene, sample_backdrop
from .toppling_gravity import release_sideways, release_weightless
from .toppling_plots import domino, remove_support, roll, topple
from .toppling_stage import Plan

STILL_PX_S, EDGE_PX = 2.0, 1.5
SQUARE_RAD = 0.06

PLOTS: dict[str, Callable[[np.random.Generator, Backdrop], Plan | None]] = {
    "remove_support": remove_support,
    "topple": topple,
    "roll": roll,
    "domino": domino,
    "release_weightless": release_weightless,
    "release_sideways": release_sideways,
}


@dataclass
class Toppling(Scene):
    """A scene at rest but for what `plan` lets go; all of it is at rest again at the end."""

    family: ClassVar[str] = "toppling"
    edits: ClassVar[tuple[str, ...]] = tuple(PLOTS)
    plan: Plan
    edit: str
    prompt: str
    subject: int
    checks: tuple[str, ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Toppling | None:
        backdrop = sample_backdrop(rng)
        plan = PLOTS[edit](rng, backdrop)
        if plan is None:
            return None
        scene = cls(plan, edit, say(rng, edit, plan.slots), plan.subject, plan.checks)
        return scene if scene._comes_to_rest() else None

    @cached_property
    def motion(self) -> Motion:
        """From the instant in which things are let go."""
        plan = self.plan
        return let_go(plan.loose, plan.release, frames=FRAMES - plan.fade_frames, duration_s=plan.duration_s)

    def state(self, t: float) -> State:
        frame, plan = round(t * (FRAMES - 1)), self.plan
        if frame <= 0:
            return plan.start
        if frame < plan.fade_frames:
            return _faded(plan, frame / plan.fade_frames)
        state = self.motion.states[frame - plan.fade_frames]
        for body_id in plan.release.pulled:
            body = state.body(body_id)
            if body is not None and (body.span[0] > WORLD_SIZE or body.span[2] < 0):
                state = state.without(body_id)
        if plan.grasp is not None and plan.start.arm is not None:
            state = replace(state, arm=plan.grasp.arm_at(plan.start.arm, t))
        return state

    def _comes_to_rest(self) -> bool:
        """Nothing moves at the end, nothing has left the picture, nothing stands on an edge but what may lean."""
        end = self.state(1.0)
        moved = [body for body in end.bodies if body.id in self.plan.release.moving]
        still = max(self.motion.speeds[-2:]) < STILL_PX_S
        margin = -0.5 if self.plan.release.walls else EDGE_PX
        inside = all(_inside(body, margin) for body in moved)
        return still and inside and all(self.plan.leans or _square(body) for body in moved) and self.plan.accept(end)


def _faded(plan: Plan, share: float) -> State:
    """What is taken away, on its way out."""
    state = plan.start
    for body in plan.start.bodies:
        if plan.loose.body(body.id) is None:
            state = state.with_body(replace(body, alpha=1 - ease(share)))
    return state


def _inside(body: Body, margin_px: float) -> bool:
    left, top, right, _ = body.span
    return min(left, top, WORLD_SIZE - right) >= margin_px


def _square(body: Body) -> bool:
    """Flat on one of its sides; a ball has none."""
    off = body.angle % (np.pi / 2)
    return body.look.rolls or min(off, np.pi / 2 - off) < SQUARE_RAD
