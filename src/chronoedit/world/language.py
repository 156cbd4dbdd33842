"""What people say for each edit: a dozen phrasings or more, with the slots that name the objects."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from .phrases import FAMILY_PHRASES
from .state import Body, State

_FIRST_PHRASES: dict[str, tuple[str, ...]] = {
    "pick_up": (
        "pick up the {a} with the robot arm",
        "lift the {a} with the robot arm",
        "use the robot arm to pick up the {a}",
        "make the robot arm grab the {a} and lift it",
        "the robot arm picks up the {a}",
        "grasp the {a} and raise it",
        "let the gripper lift the {a}",
        "pick up the {a}",
        "lift the {a} off the table",
        "have the robot take the {a}",
        "raise the {a} with the gripper",
        "grab the {a} with the robot arm",
    ),
    "place": (
        "place the {a} on the {b}",
        "put the {a} on the {b}",
        "stack the {a} on the {b}",
        "set the {a} on top of the {b}",
        "place the {a} on top of the {b} with the robot arm",
        "use the robot arm to put the {a} on the {b}",
        "move the {a} onto the {b}",
        "the robot arm stacks the {a} on the {b}",
        "let the robot put the {a} onto the {b}",
        "the {a} should stand on the {b}",
        "lay the {a} onto the {b}",
        "have the gripper place the {a} on the {b}",
    ),
    "push": (
        "push the {a} to the {side}",
        "push the {a} {side}",
        "slide the {a} to the {side}",
        "move the {a} to the {side}",
        "use the robot arm to push the {a} to the {side}",
        "the robot arm pushes the {a} {side}",
        "shove the {a} to the {side}",
        "nudge the {a} to the {side} with the gripper",
        "let the robot slide the {a} {side}",
        "make the robot push the {a} to the {side}",
        "shift the {a} {side} with the robot arm",
        "have the gripper push the {a} to the {side}",
    ),
    "hold_still": (
        "hold still",
        "hold the robot arm still",
        "do not move the robot arm",
        "the robot arm waits",
        "keep the robot arm where it is",
        "let the robot wait",
        "the robot does not move",
        "keep still",
        "stay where you are",
        "stop the robot arm",
        "freeze the robot arm",
        "the gripper holds still",
    ),
    "release": (
        "release the {a}",
        "let the {a} fall",
        "drop the {a}",
        "cut the rope of the {a}",
        "let go of the {a}",
        "make the {a} fall",
        "the {a} falls down",
        "untie the {a}",
        "cut the rope that holds the {a}",
        "let the {a} drop to the ground",
        "the rope of the {a} breaks",
        "free the {a} from its rope",
    ),
    "recolour": (
        "make the {a} {colour}",
        "paint the {a} {colour}",
        "turn the {a} {colour}",
        "change the {a} to {colour}",
        "change the colour of the {a} to {colour}",
        "recolour the {a} to {colour}",
        "colour the {a} {colour}",
        "the {a} becomes {colour}",
        "give the {a} a {colour} colour",
        "change the {a} into a {colour} one",
        "dye the {a} {colour}",
        "the {a} should be {colour}",
    ),
    "remove": (
        "remove the {a}",
        "take away the {a}",
        "delete the {a}",
        "erase the {a}",
        "get rid of the {a}",
        "make the {a} disappear",
        "take the {a} out of the picture",
        "the {a} vanishes",
        "remove the {a} from the picture",
        "clear away the {a}",
        "the {a} should be gone",
        "wipe out the {a}",
    ),
    "add": (
        "add a {a} {place}",
        "put a {a} {place}",
        "place a new {a} {place}",
        "draw a {a} {place}",
        "insert a {a} {place}",
        "a {a} appears {place}",
        "there should be a {a} {place}",
        "create a {a} {place}",
        "add another object, a {a}, {place}",
        "show a {a} {place}",
        "make a {a} appear {place}",
        "set a new {a} down {place}",
    ),
    "turn_into_star": (
        "turn the {a} into a star",
        "change the {a} into a star",
        "make the {a} a star",
        "the {a} becomes a star",
        "transform the {a} into a star",
        "make a star out of the {a}",
        "the {a} turns into a star",
        "replace the {a} with a star",
        "let the {a} become a star",
        "reshape the {a} into a star",
        "the {a} should be a star",
        "convert the {a} to a star",
    ),
    "nothing": (
        "change nothing",
        "nothing to do",
        "leave the picture as it is",
        "do not change anything",
        "keep everything as it is",
        "leave everything as it is",
        "do nothing",
        "no change",
        "keep the picture the same",
        "nothing should change",
        "make no edit",
        "the picture stays as it is",
    ),
}


PHRASES: dict[str, tuple[str, ...]] = {**_FIRST_PHRASES, **FAMILY_PHRASES}
_ARTICLE = re.compile(r"\ba (?=[aeiou])")


class Said(str):
    """An instruction that knows the phrasing it was made from, and what was put into its slots."""

    template: str
    slots: Mapping[str, str]

    def __new__(cls, text: str, template: str = "", slots: Mapping[str, str] | None = None) -> Said:
        said = super().__new__(cls, text)
        said.template, said.slots = template, dict(slots or {})
        return said


def say(rng: np.random.Generator, edit: str, slots: Mapping[str, str] | None = None) -> Said:
    """One of the phrasings of `edit` with its slots filled, in lower case and with "an" before a vowel."""
    template = PHRASES[edit][rng.integers(len(PHRASES[edit]))]
    return Said(_ARTICLE.sub("an ", template.format_map(slots or {})), template, slots)


def named(rng: np.random.Generator, state: State, body: Body) -> str:
    """What to call a body so that nobody takes another for it: one of its nouns, with its colour where that is needed.

    The colour is sometimes said where it is not.
    """
    noun = body.look.nouns[int(rng.integers(len(body.look.nouns)))]
    alone = all(other.look.noun != body.look.noun for other in state.others(body.id))
    return f"{body.colour} {noun}".strip() if not alone or rng.uniform() < 0.4 else noun
