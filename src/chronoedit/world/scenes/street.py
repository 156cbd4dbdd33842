"""Street: a traffic light changes, a pedestrian walks onto the crosswalk, a car is replaced, or drives to the line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..kinds.street import LAMP_Y
from ..kinds.street_cars import coachwork
from ..kinds.street_people import CYCLE
from ..language import say
from ..physics import ease, tween
from ..places.street import stop_line_x
from ..state import Body, State
from .base import Scene, pick
from .street_stage import Stage, half_length, middle_of_crosswalk, of_another_look, sample_stage, walker_size

Motion = Callable[[float], State]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What one edit does: the start, the state at each time, whom it is about, and what the instruction names."""

    start: State
    state: Motion
    subject: int
    slots: Mapping[str, str]
    checks: tuple[str, ...] = ("on_ground",)


@dataclass
class Street(Scene):
    """A street, and one thing that happens in it."""

    family: ClassVar[str] = "street"
    edits: ClassVar[tuple[str, ...]] = ("set_light", "cross", "replace_car", "drive_to_line")
    plot: Plot
    edit: str
    prompt: str
    subject: int | None
    checks: tuple[str, ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Street | None:
        stage = sample_stage(rng, edit)
        plot = None if stage is None else PLOTS[edit](rng, stage)
        if plot is None:
            return None
        return cls(plot, edit, say(rng, edit, plot.slots), plot.subject, plot.checks)

    @property
    def start(self) -> State:
        return self.plot.start

    def state(self, t: float) -> State:
        return self.plot.start if t <= 0 else self.plot.state(min(t, 1.0))


def _set_light(rng: np.random.Generator, stage: Stage) -> Plot | None:
    """The lamp that is lit goes out, and another one lights up; from green to red by way of yellow."""
    lamps = {lamp.colour: lamp for lamp in stage.lamps}
    lit = next(colour for colour, lamp in lamps.items() if lamp.detail("on", 0.0) > 0)
    wanted = pick(rng, [colour for colour in LAMP_Y if colour != lit])
    order = [lit, "yellow", wanted] if (lit, wanted) == ("green", "red") else [lit, wanted]

    def state(t: float) -> State:
        now = stage.state
        for colour, lamp in lamps.items():
            on = sum(_lit(t, k, len(order)) for k, each in enumerate(order) if each == colour)
            now = now.with_body(lamp.with_details(on=float(on)))
        return now

    return Plot(
        start=stage.state, state=state, subject=lamps[wanted].id, slots={"colour": wanted}, checks=("attached",)
    )


def _lit(t: float, turn: int, turns: int) -> float:
    """How bright the lamp of a turn is at t; one goes out while the next lights up."""
    width = 0.3 if turns > 2 else 0.5
    changes = [(k + 1) / turns for k in range(turns - 1)]

    def done(k: int) -> float:
        return ease((t - changes[k] + width / 2) / width)

    return (done(turn - 1) if turn > 0 else 1.0) - (done(turn) if turn < turns - 1 else 0.0)


def _cross(rng: np.random.Generator, stage: Stage) -> Plot | None:
    """A pedestrian comes from a pavement to the middle of the crosswalk."""
    walker = stage.walkers[0] if stage.walkers else None
    if walker is None:
        return None
    x, ground = middle_of_crosswalk(stage.state.backdrop)
    size = walker_size(walker, ground, stage.state.backdrop)
    end = replace(walker, x=x, y=ground - size, size=size).with_details(ground_y=ground)
    way = math.hypot(x - walker.x, ground - walker.ground_y(stage.state.backdrop))
    # whole pairs of steps, so that it stands at the end as at the start
    cycles = max(1, round(way / (CYCLE * walker.size)))

    def state(t: float) -> State:
        share = ease(t)
        stride = min(1.0, ease(t / 0.16)) * ease((1 - t) / 0.16)
        walking = tween(walker, end, t).with_details(phase=float(cycles * share % 1.0), stride=float(stride))
        return stage.state.with_body(walking if t < 1 else end)

    return Plot(start=stage.state, state=state, subject=walker.id, slots={"a": stage.called(rng, walker)})


def _replace_car(rng: np.random.Generator, stage: Stage) -> Plot | None:
    """A car turns into one of another model and colour, on its wheels."""
    before = stage.cars[0] if stage.cars else None
    after = None if before is None else of_another_look(rng, stage, before)
    if before is None or after is None:
        return None
    models = before.kind, after.kind

    def state(t: float) -> State:
        if t >= 1:
            return stage.state.with_body(after)
        now = tween(before, after, t)
        share = ease(t)
        look = before if share < 0.5 else after
        into, share = (models[1], share) if look is before else (models[0], 1 - share)
        return stage.state.with_body(
            replace(now, kind=look.kind, colour=look.colour).with_details(into=into, share=float(share))
        )

    return Plot(
        start=stage.state,
        state=state,
        subject=after.id,
        slots={"a": stage.called(rng, before), "b": f"{after.colour} {pick(rng, after.look.nouns)}"},
    )


def _drive_to_line(rng: np.random.Generator, stage: Stage) -> Plot | None:
    """A car rolls ahead until its nose is at the line."""
    car = stage.cars[0] if stage.cars else None
    if car is None:
        return None
    backdrop = stage.state.backdrop
    side = backdrop.detail("side", 1.0)
    line = stop_line_x(backdrop.detail("crossing", 64.0), side)
    way = line - side * (half_length(car) + 0.6) - car.x
    turned = side * way / (car.size * wheel_of(car))

    def state(t: float) -> State:
        gone = ease(t)
        return stage.state.with_body(
            replace(car, x=float(np.round(car.x + way * gone, 3))).with_details(roll=float(turned * gone))
        )

    return Plot(start=stage.state, state=state, subject=car.id, slots={"a": stage.called(rng, car)})


def wheel_of(car: Body) -> float:
    """Radius of a car's wheels in units of its size."""
    return coachwork(car).wheel


PLOTS: dict[str, Callable[[np.random.Generator, Stage], Plot | None]] = {
    "set_light": _set_light,
    "cross": _cross,
    "replace_car": _replace_car,
    "drive_to_line": _drive_to_line,
}
