"""Chains of three edits on one picture: in which scene they can be said, and in which words.

Every edit of a chain is one that training has: its phrasing, and its kind and colour, are not held out. The truth of
a chain is not simulated: a scene knows the end of one edit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from chronoedit.world import FIRST_EVALUATION_SEED, Item, sample_item
from chronoedit.world.grammar import corrected
from chronoedit.world.kinds.portrait_wear import HATS
from chronoedit.world.palette import COLOURS
from chronoedit.world.phrases.portrait import PLACES
from chronoedit.world.splits import IN_DISTRIBUTION, is_held_out_combination, phrasings


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Three edits: the scene is an item of `family` with the first, `edit`; `words` are all three, or None.

    `rule` says in words what the second and the third are, and when there are none.
    """

    family: str
    edit: str
    words: Callable[[Item], list[str] | None]
    rule: str


def first_scene(chain: Chain) -> tuple[Item, list[str]]:
    """The first evaluation item, in distribution, in which all three edits can be said; and their words."""
    for seed in count(FIRST_EVALUATION_SEED):
        item = sample_item(seed, family=chain.family, edit=chain.edit, split=IN_DISTRIBUTION)
        words = chain.words(item)
        if words is not None:
            return item, words
    raise AssertionError("seeds do not end")


def _say(edit: str, **slots: str) -> str:
    """The first phrasing of an edit that training has."""
    return corrected(phrasings(edit, held_out=False)[0].format(**slots))


def _push_recolour_pick_up(item: Item) -> list[str] | None:
    others = sorted(item.start.others(item.subject or 0), key=lambda body: body.x)
    if len(others) < 2:
        return None
    painted, lifted = others[0], others[-1]
    taken = {body.colour for body in item.start.bodies}
    free = [c for c in COLOURS if c not in taken and not is_held_out_combination(painted.kind, c, "recolour")]
    if not free or is_held_out_combination(lifted.kind, lifted.colour, "pick_up"):
        return None
    return [item.prompt, _say("recolour", a=painted.name, colour=free[0]), _say("pick_up", a=lifted.name)]


def _glasses_hat_background(item: Item) -> list[str] | None:
    face, worn = item.start.bodies[0], item.start.bodies[1:]
    wanted = [(kind, c) for kind in HATS for c in COLOURS if c != face.colour]
    free = [each for each in wanted if not is_held_out_combination(*each, "add_hat")]
    places = [place for place in PLACES if place != item.start.backdrop.place]
    if worn or not free:
        return None
    (hat, colour), noun = free[item.seed % len(free)], face.look.noun
    words = _say("add_hat", a=f"{colour} {HATS[hat].noun}", b=noun)
    return [item.prompt, words, _say("change_background", place=PLACES[places[0]][0])]


CHAINS: dict[str, Chain] = {
    "table": Chain(
        family="table",
        edit="push",
        words=_push_recolour_pick_up,
        rule="something is pushed; then the leftmost of the other things takes the first colour that is free; then "
        "the rightmost of them is picked up (in training nothing is recoloured beside an arm)",
    ),
    "portrait": Chain(
        family="portrait",
        edit="add_glasses",
        words=_glasses_hat_background,
        rule="a bare head gets sunglasses; then a hat, chosen by the seed; then the first other background",
    ),
}
