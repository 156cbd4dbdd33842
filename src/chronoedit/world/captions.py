"""Long instructions, in the style of the training captions: what the user wants, how it comes about, and what stays.

All of it is read off the scene: which bodies move, come, go or stay, and where they are. A caption has MIN_WORDS to
MAX_WORDS words; sentences that can be left out fill it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .checks import gripped
from .grammar import corrected, mood
from .phrases.ways import FILLERS, WAYS
from .splits import phrasings
from .state import WORLD_SIZE, Body, State

if TYPE_CHECKING:
    from .item import Item

OPENING = "The user wants to"
MIN_WORDS, MAX_WORDS = 80, 100
TIMES = tuple(k / 12 for k in range(1, 12))
MOVED_PX, TOUCHING_PX, RESIZED, TURNED_RAD = 2.5, 1.5, 1.06, 0.15

SIDES = ("on the left", "in the middle", "on the right")

PLURALS = ("glasses", "shades", "spectacles")  # endings of the names of single things that are many in words

Namer = Callable[[Iterable[Body]], list[str]]


@dataclass(frozen=True)
class _Facts:
    """What becomes of each body, by id: read off the start, the end and what lies between."""

    item: Item

    @cached_property
    def between(self) -> list[State]:
        return [self.item.state(t) for t in TIMES]

    @cached_property
    def subject(self) -> tuple[Body | None, Body | None]:
        """The subject at the start and at the end."""
        if self.item.subject is None:
            return None, None
        return self.item.start.body(self.item.subject), self.item.end.body(self.item.subject)

    def _others(self, state: State) -> list[Body]:
        return [body for body in state.bodies if body.id != self.item.subject]

    @cached_property
    def still(self) -> list[Body]:
        """Those that are the same in every frame."""
        states = (*self.between, self.item.end)
        return [b for b in self._others(self.item.start) if all(state.body(b.id) == b for state in states)]

    @cached_property
    def back(self) -> list[Body]:
        """Those that end as they began, but are not still."""
        same = [b for b in self._others(self.item.start) if self.item.end.body(b.id) == b]
        return [body for body in same if body not in self.still]

    @cached_property
    def changed(self) -> list[tuple[Body, Body]]:
        pairs = ((body, self.item.end.body(body.id)) for body in self._others(self.item.start))
        return [(before, after) for before, after in pairs if after is not None and before != after]

    @cached_property
    def gone(self) -> list[Body]:
        return [body for body in self._others(self.item.start) if self.item.end.body(body.id) is None]

    @cached_property
    def come(self) -> list[Body]:
        return [body for body in self._others(self.item.end) if self.item.start.body(body.id) is None]

    @property
    def backdrop_stays(self) -> bool:
        return all(s.backdrop == self.item.start.backdrop for s in (*self.between, self.item.end))

    @property
    def arm_moves(self) -> bool:
        return any(state.arm != self.item.start.arm for state in (*self.between, self.item.end))


def long_prompt(item: Item) -> str:
    """The caption of an item; the same for the same item.

    Raises ValueError where the scene has so many things that they cannot be named in MAX_WORDS words.
    """
    rng = np.random.default_rng((item.seed, 20_251_129))
    facts = _Facts(item)
    for named in (_names, _nouns):
        needed = [_wanted(rng, item), *_way(facts), *_what_else(facts, named), *_stays(facts, named)]
        if _words(needed) <= MAX_WORDS:
            break
    if _words(needed) > MAX_WORDS:
        raise ValueError(f"the caption of seed {item.seed} has {_words(needed)} words; name fewer things in it")
    spare = [*_places(facts), *_ends(facts), *_frame_of(facts), *(FILLERS[k] for k in rng.permutation(len(FILLERS)))]
    return " ".join(_filled_up(needed, spare))


def _words(sentences: Iterable[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)


def _filled_up(needed: Sequence[str], spare: Sequence[str]) -> list[str]:
    """The needed sentences, with as many of the others as are wanted, in order: until there are MIN_WORDS."""
    sentences = list(needed)
    for sentence in spare:
        if _words(sentences) < MIN_WORDS and _words((*sentences, sentence)) <= MAX_WORDS:
            sentences.append(sentence)
    return sentences


def _wanted(rng: np.random.Generator, item: Item) -> str:
    """What the user wants to do: the item's own phrasing, or one that is an order where that is none."""
    said = item.words
    template = said.template
    if mood(template) not in ("order", "let"):
        ordering = [each for each in phrasings(item.edit, held_out=False) if mood(each) in ("order", "let")]
        if not ordering:
            return corrected(f"{OPENING} see this: {template.format_map(said.slots)}.")
        template = ordering[int(rng.integers(len(ordering)))]
    return corrected(f"{OPENING} {template.format_map(said.slots)}.")


def _way(facts: _Facts) -> list[str]:
    """How the subject comes to be as it is at the end."""
    item = facts.item
    before, after = facts.subject
    if item.edit in WAYS:
        return [corrected(WAYS[item.edit].format_map(item.words.slots))]
    lead = ["The robot arm does the work."] if facts.arm_moves else []
    if before is None and after is None:
        return [*lead, "Nothing is to change."]
    if before is None or after is None:
        body = before or after
        assert body is not None
        what = f"{_are([body.name])} not there any more" if after is None else f"{_are([body.name])} there"
        return [*lead, f"At the end, the {body.name} {what}."]
    if before == after:
        return [*lead, f"The {before.name} itself does not change."]
    return [*lead, f"The {before.name} {_changes(before, after)}."]


def _changes(before: Body, after: Body) -> str:
    """What is different of a body, in words."""
    said = []
    if after.kind != before.kind or (after.colour == "") != (before.colour == ""):
        said.append(corrected(f"turns into a {after.name}"))
    elif after.colour != before.colour:
        said.append(f"turns from {before.colour} to {after.colour}")
    dx, dy = after.x - before.x, after.y + after.size - before.y - before.size
    ways = [word for word, far in (("right", dx), ("left", -dx), ("down", dy), ("up", -dy)) if far > MOVED_PX]
    if ways:
        said.append("moves " + " and ".join(f"to the {way}" if way in ("left", "right") else way for way in ways))
    if after.size > RESIZED * before.size or after.size * RESIZED < before.size:
        said.append("becomes larger" if after.size > before.size else "becomes smaller")
    if abs(after.angle - before.angle) > TURNED_RAD:
        said.append("is turned")
    return _listed(said) if said else "changes its look where it is"


def _what_else(facts: _Facts, named: Namer) -> list[str]:
    """What else changes, comes or goes, and what is moved and brought back."""
    sentences = []
    for bodies, one, many in (
        ([before for before, _ in facts.changed], "changes with it", "change with it"),
        (facts.back, "ends where it was", "end where they were"),
    ):
        names = named(bodies)
        if names:
            sentences.append(f"The {_listed(names, 'the ')} {many if _are(names) == 'are' else one}.")
    before, after = facts.subject
    known = {body.name for body in (before, after) if body is not None}
    for bodies, what in ((facts.gone, "gone"), (facts.come, "there")):
        names = [name for name in named(bodies) if name not in known]
        if names:
            sentences.append(f"At the end, the {_listed(names, 'the ')} {_are(names)} {what}.")
    return sentences


def _stays(facts: _Facts, named: Namer) -> list[str]:
    names = named(facts.still)
    if not names:
        return []
    return [f"The {_listed(names, 'the ')} {'stay' if _are(names) == 'are' else 'stays'} exactly as before."]


def _are(names: Sequence[str]) -> str:
    """ "is" or "are" after the names."""
    return "are" if len(names) > 1 or names[0].endswith(PLURALS) else "is"


def _places(facts: _Facts) -> list[str]:
    before, _ = facts.subject
    return (
        []
        if before is None
        else [f"In the first frame, the {before.name} {_are([before.name])} {_side(before)} of the picture."]
    )


def _ends(facts: _Facts) -> list[str]:
    before, after = facts.subject
    if after is None:
        return [] if before is None else [f"In the last frame, the {before.name} cannot be seen any more."]
    rest, further = _rest(facts.item.end, after), ""
    if before is not None and abs(after.x - before.x) > MOVED_PX:
        further = f", further to the {'right' if after.x > before.x else 'left'} than before"
    return [f"In the last frame, the {after.name} {_are([after.name])} {_side(after)} of the picture{rest}{further}."]


def _rest(state: State, body: Body) -> str:
    """On what the body rests, or that it hangs in the air; nothing where that cannot be told."""
    left, _, right, bottom = body.span
    if not body.look.solid or abs(bottom - body.ground_y(state.backdrop)) < TOUCHING_PX:
        return ""
    for other in state.others(body.id):
        other_left, top, other_right, _ = other.span
        if other.look.solid and abs(top - bottom) < TOUCHING_PX and other_left < (left + right) / 2 < other_right:
            return f", on the {other.name}"
    held = body.id in state.ropes or (state.arm is not None and gripped(state, body) < 0.3)
    return ", above the ground" if held else ""


def _frame_of(facts: _Facts) -> list[str]:
    light = facts.item.start.backdrop.light
    sentences = ["The background and the light do not change."] if facts.backdrop_stays else []
    if abs(light) > 0.03 and facts.backdrop_stays:
        sentences.append(f"The light comes from the {'left' if light < 0 else 'right'}, as before.")
    return sentences


def _side(body: Body) -> str:
    return SIDES[min(max(int(3 * body.x / WORLD_SIZE), 0), 2)]


def _names(bodies: Iterable[Body]) -> list[str]:
    return list(dict.fromkeys(body.name for body in bodies))


def _nouns(bodies: Iterable[Body]) -> list[str]:
    return list(dict.fromkeys(body.look.noun for body in bodies))


def _listed(words: Sequence[str], article: str = "") -> str:
    """ "a, b and c"; every word but the first gets the article."""
    later = [f"{article}{word}" for word in words[1:]]
    return words[0] + ("".join(f", {word}" for word in later[:-1]) + f" and {later[-1]}" if later else "")
