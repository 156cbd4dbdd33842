"""Portrait: glasses or a hat are put on or taken off, or the background is another one. The face stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..kinds.portrait import worn
from ..kinds.portrait_animals import ANIMALS
from ..kinds.portrait_features import IRISES
from ..kinds.portrait_people import CUTS
from ..kinds.portrait_wear import HATS
from ..kinds.street_people import HAIRS, SKINS
from ..language import say
from ..palette import RGB
from ..phrases.portrait import PLACES
from ..physics import between, ease
from ..places.portrait import SETTINGS, before_another
from ..state import ALBEDO, FIRST_BODY_ID, WORLD_SIZE, Backdrop, Body, State
from .base import FLOORS, Scene, jitter, pick

FACE, HAT, GLASSES = FIRST_BODY_ID, FIRST_BODY_ID + 1, FIRST_BODY_ID + 2
FURS: dict[str, dict[str, RGB]] = {
    "cat": {
        "orange": (232, 148, 66),
        "grey": (146, 148, 156),
        "black": (66, 62, 72),
        "white": (240, 234, 224),
        "brown": (150, 106, 72),
    },
    "dog": {
        "brown": (158, 106, 64),
        "beige": (224, 186, 134),
        "black": (70, 64, 70),
        "white": (240, 232, 220),
        "grey": (150, 146, 148),
    },
    "rabbit": {"white": (242, 236, 230), "grey": (160, 158, 164), "brown": (168, 124, 88), "beige": (226, 196, 158)},
    "fox": {"orange": (226, 118, 50), "red": (198, 84, 50), "grey": (148, 146, 152)},
    "bear": {"brown": (136, 90, 58), "black": (74, 66, 70), "white": (238, 234, 226), "beige": (206, 166, 120)},
}
SHIRTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise", "white", "navy")
WORN_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise", "black", "white")
WALLS: tuple[RGB, ...] = (
    (206, 196, 182),
    (150, 178, 190),
    (214, 176, 160),
    (164, 184, 150),
    (184, 172, 204),
    (226, 206, 158),
)
STYLES = {"square": "", "round": "round ", "heart": "heart-shaped ", "star": "star-shaped "}
PALE = {"white", "beige"}  # which do not stand out from each other
ABOVE_PX = 3.0  # how far out of the picture things come from


@dataclass
class Portrait(Scene):
    """A face, what it wears before and after, and what is behind it."""

    family: ClassVar[str] = "portrait"
    edits: ClassVar[tuple[str, ...]] = ("add_glasses", "add_hat", "take_off", "change_background")
    start: State
    end: State
    edit: str
    prompt: str
    subject: int | None
    checks: tuple[str, ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, edit: str) -> Portrait | None:
        backdrop = _sample_backdrop(rng)
        face = _sample_face(rng)
        hat, glasses = _sample_hat(rng, face), _sample_glasses(rng, face)
        return EDITS[edit](rng, State(backdrop=backdrop, bodies=(face,)), hat, glasses)

    def state(self, t: float) -> State:
        if t <= 0 or t >= 1:
            return self.start if t <= 0 else self.end
        if self.edit == "change_background":
            details = (*self.start.backdrop.details, ("next", self.end.backdrop.place), ("share", float(ease(t))))
            return replace(self.start, backdrop=replace(self.start.backdrop, details=tuple(sorted(details))))
        on = self.start if self.edit == "take_off" else self.end
        thing = on.body(self.subject or 0)
        assert thing is not None
        return on.with_body(_on_its_way(thing, 1 - t if self.edit == "take_off" else t))


def _on_its_way(thing: Body, t: float) -> Body:
    """Let down from above the picture, swaying a little, until it sits."""
    top = -2.2 * thing.size - ABOVE_PX
    sway = 0.22 * (1 - ease(t)) * (1 if thing.x > WORLD_SIZE / 2 else -1)
    return replace(thing, y=between(top, thing.y, t, 0.0, 1.0), angle=thing.angle + sway)


def _called(rng: np.random.Generator, face: Body) -> str:
    """What to call whose portrait it is, sometimes with the colour of its fur."""
    noun = pick(rng, face.look.nouns)
    return f"{face.colour} {noun}" if face.colour and rng.uniform() < 0.3 else noun


def _glasses_words(rng: np.random.Generator, glasses: Body) -> str:
    """Their colour is left out only where it is black, their shape only where it is the usual one."""
    colour = "" if glasses.colour == "black" and rng.uniform() < 0.75 else f"{glasses.colour} "
    article = pick(rng, ("", "", "a pair of "))
    return f"{article}{colour}{STYLES[glasses.detail('style', 'square')]}sunglasses"


def _add_glasses(rng: np.random.Generator, alone: State, hat: Body, glasses: Body) -> Portrait:
    start = alone.with_body(hat) if rng.uniform() < 0.3 else alone
    return _portrait(rng, "add_glasses", start, start.with_body(glasses), GLASSES, {"a": _glasses_words(rng, glasses)})


def _add_hat(rng: np.random.Generator, alone: State, hat: Body, glasses: Body) -> Portrait:
    start = alone.with_body(glasses) if rng.uniform() < 0.3 else alone
    words = f"{hat.colour} {pick(rng, hat.look.nouns)}"
    return _portrait(rng, "add_hat", start, start.with_body(hat), HAT, {"a": words})


def _take_off(rng: np.random.Generator, alone: State, hat: Body, glasses: Body) -> Portrait:
    gone, other = (hat, glasses) if rng.uniform() < 0.5 else (glasses, hat)
    end = alone.with_body(other) if rng.uniform() < 0.4 else alone
    start = replace(end, bodies=tuple(sorted((*end.bodies, gone), key=lambda body: body.id)))
    nouns = gone.look.nouns if gone is glasses or gone.kind == "crown" else (*gone.look.nouns, "hat")
    return _portrait(rng, "take_off", start, end, gone.id, {"a": pick(rng, nouns)})


def _change_background(rng: np.random.Generator, alone: State, hat: Body, glasses: Body) -> Portrait:
    start = alone
    for thing in (hat, glasses):
        start = start.with_body(thing) if rng.uniform() < 0.3 else start
    into = pick(rng, [name for name in SETTINGS if name != start.backdrop.place])
    end = replace(start, backdrop=before_another(start.backdrop, into))
    return _portrait(rng, "change_background", start, end, FACE, {"place": pick(rng, PLACES[into])})


def _portrait(
    rng: np.random.Generator, edit: str, start: State, end: State, subject: int, slots: Mapping[str, str]
) -> Portrait:
    face = start.body(FACE)
    assert face is not None
    prompt = say(rng, edit, {"b": _called(rng, face), **slots})
    checks = {"take_off": (), "change_background": ("supported",)}.get(edit, ("attached",))
    return Portrait(start, end, edit, prompt, subject, checks)


EDITS: dict[str, Callable[[np.random.Generator, State, Body, Body], Portrait]] = {
    "add_glasses": _add_glasses,
    "add_hat": _add_hat,
    "take_off": _take_off,
    "change_background": _change_background,
}


def _sample_backdrop(rng: np.random.Generator) -> Backdrop:
    return Backdrop(
        wall=jitter(rng, pick(rng, WALLS), 6),
        floor=jitter(rng, pick(rng, FLOORS), 8),
        floor_y=float(WORLD_SIZE),
        light=float(np.round(rng.uniform(-0.12, 0.12), 3)),
        decoration="none",
        decoration_x=float(np.round(rng.uniform(24, 104), 1)),
        place=pick(rng, list(SETTINGS)),
        details=(("row", float(rng.integers(1_000_000))),),
    )


def _sample_face(rng: np.random.Generator) -> Body:
    """An animal, or one time in four a person."""
    kind = "person" if rng.uniform() < 0.25 else pick(rng, list(ANIMALS))
    colour = pick(rng, list(FURS[kind]) if kind in FURS else SHIRTS)
    albedo = FURS[kind][colour] if kind in FURS else ALBEDO[colour]
    size = float(np.round(rng.uniform(49, 54), 1))
    body = Body(
        id=FACE,
        kind=kind,
        colour=colour if kind in FURS else "",
        albedo=jitter(rng, albedo, 5),
        x=float(np.round(rng.uniform(58, 70), 1)),
        y=WORLD_SIZE - size,
        size=size,
    )
    return body.with_details(
        cut=pick(rng, CUTS),
        gaze=float(np.round(rng.uniform(-1, 1), 2)),
        hair=pick(rng, list(HAIRS)),
        iris=pick(rng, list(IRISES)),
        mark=pick(rng, ("plain", "tabby", "blaze", "patch")),
        mood=pick(rng, ("open", "open", "open", "happy", "wink")),
        mouth=pick(rng, ("smile", "open")),
        skin=float(rng.integers(len(SKINS))),
        tilt=float(np.round(rng.uniform(-0.12, 0.12), 3)),
        wear=pick(rng, ("none", "scarf", "bow", "collar") if kind in FURS else ("none", "none", "scarf")),
        wear_colour=pick(rng, [each for each in WORN_COLOURS if each not in (colour, "black")]),
    )


def _sample_hat(rng: np.random.Generator, face: Body) -> Body:
    kind = pick(rng, list(HATS))
    colours = {"crown": ("yellow",), "straw_hat": ("yellow", "beige")}.get(kind, WORN_COLOURS)
    free = [each for each in colours if each != face.colour and not {each, face.colour} <= PALE]
    colour = pick(rng, free or list(colours))
    hat = Body(id=HAT, kind=kind, colour=colour, albedo=jitter(rng, ALBEDO[colour], 6), x=0.0, y=0.0, size=1.0, layer=1)
    return worn(hat, face)


def _sample_glasses(rng: np.random.Generator, face: Body) -> Body:
    """Mostly black ones of the usual shape."""
    free = [each for each in WORN_COLOURS if each != face.colour and not {each, face.colour} <= PALE]
    colour = "black" if "black" in free and rng.uniform() < 0.5 else pick(rng, free)
    style = "square" if rng.uniform() < 0.5 else pick(rng, list(STYLES))
    glasses = Body(
        id=GLASSES,
        kind="sunglasses",
        colour=colour,
        albedo=jitter(rng, ALBEDO[colour], 6),
        x=0.0,
        y=0.0,
        size=1.0,
        layer=2,
    )
    return worn(glasses.with_details(style=style), face)
