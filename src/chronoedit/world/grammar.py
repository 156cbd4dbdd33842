"""Sentences around the phrasings: what things are called, how one asks politely, and what is said first.

A phrasing says what is to happen ("pick up the {a}"); the grammar chooses how its things are told apart (by colour,
kind, size or place), where its adverb stands, and how the request is framed. Every reference means one body alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .language import Said
from .state import Body, State

THING_NOUNS = ("object", "thing")
NO_THINGS = frozenset({"person", "pedestrian", "cat", "dog", "rabbit", "fox", "bear"})  # kinds that are nobody's thing
# by how many bodies of the noun there are: what they are called from left to right, and from small to large
SIDES: dict[int, tuple[tuple[str, ...], ...]] = {
    2: (("left", "left-hand"), ("right", "right-hand")),
    3: (("leftmost", "left"), ("middle",), ("rightmost", "right")),
}
SIZES: dict[int, tuple[tuple[str, ...], ...]] = {
    2: (("smaller", "small"), ("larger", "bigger")),
    3: (("smallest",), (), ("largest", "biggest")),
}
APART_PX = 6.0  # so far apart are left and right
APART_RATIO = 1.2  # and small and large
RELATIONS = {"to the left of": -1, "to the right of": 1}

POLITE = ("please {}", "{}, please", "kindly {}")
FRAMES: dict[str, tuple[str, ...]] = {
    "order": (
        *POLITE,
        "now {}",
        "can you {}",
        "could you {}",
        "could you please {}",
        "would you {}",
        "I want you to {}",
        "I would like you to {}",
        "you should {}",
        "let us {}",
    ),
    "let": (*POLITE, "now {}", "can you {}", "could you {}", "would you {}", "I want you to {}"),
    "refusal": POLITE[:2],
    "statement": ("now {}", "next, {}", "please make it so that {}", "I want a picture in which {}", "show how {}"),
    "wish": ("now {}", "next, {}", "I think that {}"),
    "fragment": ("{}, please",),
    "whole": (),
}
PLAIN_SHARE, WRITTEN_SHARE, FRONTED_SHARE, POINTED_SHARE = 0.45, 0.4, 0.35, 0.08
_QUESTIONS = ("can ", "could ", "would ")
_SUBJECTS = ("the", "a", "an", "there", "someone", "nothing", "everything")
_FRAGMENTS = ("no change", "nothing to do", "the {b} without ")
_TAIL = re.compile(r"^(?P<rest>.+) (?P<tail>(?<=\{a\} )\{place\}|with the robot arm|with the gripper|with a knife)$")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou]|SUV\b)")


def mood(template: str) -> str:
    """Which of FRAMES fit a phrasing: an order, a statement, a wish (it "should"), or what takes few of them."""
    first = template.split()[0]
    if first in ("please", "now", "instead") or re.search("[;:,]", template):
        return "whole"
    if template.startswith(_FRAGMENTS):
        return "fragment"
    if first in _SUBJECTS or first.startswith("{"):
        return "wish" if " should " in template else "statement"
    if template.startswith(("do not ", "never ")) or " you " in template:
        return "refusal"
    return "let" if first in ("let", "have", "make") else "order"


def spoken_forms(template: str) -> Iterator[str]:
    """All orders of a phrasing, in all the frames that it may stand in."""
    for order in orders(template):
        yield order
        yield from (frame.format(order) for frame in FRAMES[mood(template)])


def orders(template: str) -> tuple[str, ...]:
    """The orders in which the words of a phrasing can stand: as it is, and with its adverb first."""
    match = _TAIL.match(template)
    fronts = match is not None and mood(template) in ("order", "let")
    return (template, f"{match['tail']}, {match['rest']}") if fronts and match else (template,)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A noun, and at most one thing that tells its body apart from others that it would fit.

    `relation` is one of RELATIONS, `anchor` the name of the body that it is said of.
    """

    noun: str
    colour: str = ""
    size: str = ""
    side: str = ""
    relation: str = ""
    anchor: str = ""

    @property
    def text(self) -> str:
        before = " ".join(word for word in (self.side, self.size, self.colour, self.noun) if word)
        return f"{before} {self.relation} the {self.anchor}" if self.relation else before

    def meant(self, state: State) -> list[Body]:
        """The bodies that the words fit."""
        bodies = [body for body in state.bodies if self.noun in THING_NOUNS or _fits(self.noun, body)]
        bodies = [body for body in bodies if not self.colour or body.colour == self.colour]
        if self.side:
            bodies = _ranked(bodies, self.side, SIDES, lambda body: body.x)
        if self.size:
            bodies = _ranked(bodies, self.size, SIZES, lambda body: body.size)
        if self.relation:
            anchors = [body for body in state.bodies if body.name == self.anchor]
            way = RELATIONS[self.relation]
            bodies = [b for b in bodies if len(anchors) == 1 and b != anchors[0] and way * (b.x - anchors[0].x) > 0]
        return bodies


def _fits(noun: str, body: Body) -> bool:
    """Whether the body can be called so: a soup bowl is a bowl too."""
    return any(each == noun or each.endswith(f" {noun}") for each in body.look.nouns)


def _ranked(
    bodies: Sequence[Body], word: str, words: Mapping[int, tuple[tuple[str, ...], ...]], key: Callable[[Body], float]
) -> list[Body]:
    by_rank = words.get(len(bodies), ())
    return [body for body, called in zip(sorted(bodies, key=key), by_rank, strict=bool(by_rank)) if word in called]


def references(state: State, body: Body, *, at_end: bool = False) -> list[Reference]:
    """All that single the body out and can be seen; those with a clause after the noun only `at_end`."""
    found = [Reference(noun=noun, colour=colour) for noun in body.look.nouns for colour in {"": 0, body.colour: 0}]
    if body.colour and body.look.solid and body.kind not in NO_THINGS:
        found += [Reference(noun=noun, colour=body.colour) for noun in THING_NOUNS]
    for noun in body.look.nouns:
        alike = [other for other in state.bodies if _fits(noun, other)]
        found += [Reference(noun=noun, side=word) for word in _words_of(body, alike, SIDES, _are_apart)]
        found += [Reference(noun=noun, size=word) for word in _words_of(body, alike, SIZES, _differ)]
        if at_end and len(alike) > 1:
            found += _related(state, body, noun)
    return [each for each in found if each.meant(state) == [body]]


def _words_of(
    body: Body,
    alike: Sequence[Body],
    words: Mapping[int, tuple[tuple[str, ...], ...]],
    clear: Callable[[Sequence[Body]], bool],
) -> list[str]:
    if len(alike) not in words or not clear(alike):
        return []
    return [word for rank in words[len(alike)] for word in rank]


def _are_apart(bodies: Sequence[Body]) -> bool:
    xs = sorted(body.x for body in bodies)
    return all(b - a >= APART_PX for a, b in zip(xs, xs[1:], strict=False))


def _differ(bodies: Sequence[Body]) -> bool:
    sizes = sorted(body.size for body in bodies)
    one_kind = len({body.kind for body in bodies}) == 1
    return one_kind and all(b >= APART_RATIO * a for a, b in zip(sizes, sizes[1:], strict=False))


def _related(state: State, body: Body, noun: str) -> list[Reference]:
    return [
        Reference(noun=noun, relation=relation, anchor=other.name)
        for other in state.others(body.id)
        for relation, way in RELATIONS.items()
        if other.look.solid and not _fits(noun, other) and way * (body.x - other.x) >= APART_PX
    ]


def refer(rng: np.random.Generator, state: State, body: Body, *, at_end: bool = False) -> str | None:
    """What to call a body: half the time by its colour, else by one of all the ways; None when none is its own."""
    ways = references(state, body, at_end=at_end)
    if not ways:
        return None
    plain = [way for way in ways if way.colour and way.noun in body.look.nouns]
    options = plain if plain and rng.uniform() < 0.5 else ways
    return options[int(rng.integers(len(options)))].text


def meant_by(text: str, state: State) -> Body | None:
    """The one body that goes by a plain name, its noun with its colour or without."""
    colour, _, noun = text.partition(" ")
    found = [
        body
        for body in state.bodies
        if _fits(text, body) or (colour and colour == body.colour and noun and _fits(noun, body))
    ]
    return found[0] if len(found) == 1 else None


def speak(rng: np.random.Generator, said: Said, state: State, templates: Sequence[str]) -> Said:
    """Say what `said` says again: with one of the `templates`, other names for its bodies, and a frame around it."""
    template = templates[int(rng.integers(len(templates)))]
    options = orders(template)
    order = options[int(len(options) > 1 and rng.uniform() < FRONTED_SHARE)]
    filled = _filled(rng, order, said.slots, state)
    return Said(_written(rng, _framed(rng, filled, mood(template), order != template)), template, said.slots)


def _filled(rng: np.random.Generator, template: str, slots: Mapping[str, str], state: State) -> str:
    """The words with every slot filled; what goes by a plain name after "the" may be called otherwise."""

    def put(match: re.Match[str]) -> str:
        article, value = match["article"] or "", slots[match["slot"]]
        at_end = match.end() == len(template)
        inner = re.match(r"^(?P<head>.*\b)?the (?P<name>.+)$", value) if not article else None
        if article == "the " or inner:
            head, name = (inner["head"] or "", inner["name"]) if inner else ("", value)
            return head + _called(rng, state, name, at_end=at_end)
        if article == "a " and rng.uniform() < POINTED_SHARE:
            article = "one "
        return article + value

    return re.sub(r"(?P<article>\b(?:the|a) )?\{(?P<slot>\w+)\}", put, template)


def _called(rng: np.random.Generator, state: State, name: str, *, at_end: bool) -> str:
    body = meant_by(name, state)
    reference = None if body is None else refer(rng, state, body, at_end=at_end)
    if reference is None:
        return f"the {name}"
    return f"{'that' if rng.uniform() < POINTED_SHARE else 'the'} {reference}"


def _framed(rng: np.random.Generator, words: str, how: str, fronted: bool) -> str:
    """In a frame; an adverb that stands first stays before it."""
    frames = FRAMES[how]
    if not frames or rng.uniform() < PLAIN_SHARE:
        return words
    frame = frames[int(rng.integers(len(frames)))]
    if fronted:
        adverb, _, rest = words.partition(", ")
        return f"{adverb}, {frame.format(rest)}"
    return frame.format(words)


def corrected(words: str) -> str:
    """The words with "an" before a vowel."""
    return _ARTICLE.sub(r"\1n ", words)


def _written(rng: np.random.Generator, words: str) -> str:
    """With its articles right, and sometimes as a written sentence: a capital and a full stop or a question mark."""
    words = corrected(words)
    if rng.uniform() >= WRITTEN_SHARE:
        return words
    asks = any(part.startswith(_QUESTIONS) for part in words.split(", "))
    return f"{words[0].upper()}{words[1:]}{'?' if asks else '.'}"
