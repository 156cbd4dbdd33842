"""What training never sees: combinations, phrasings and counts that are held out, and the splits that test them.

An item is of a held-out split when that thing alone is unseen in it. Training draws in distribution only; the
benchmark takes the splits in turn, see `split_of_seed`. Another split is a line in HELD_OUT.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

from .grammar import mood, spoken_forms
from .language import PHRASES

if TYPE_CHECKING:
    from .item import Item

IN_DISTRIBUTION = "in distribution"
COMBINATION = "held-out combination"
PHRASING = "held-out phrasing"
COUNT = "held-out count"
HARD = "hard"
BY_TURNS = "all"  # no split of its own: each seed draws from the one whose turn it is

COMBINATION_SHARE, PHRASING_SHARE = 0.1, 0.15
SALT = 962  # with it, every edit has combinations that are held out, and none has many
# what these change has so few colours that each one is needed to learn the edit, or they are about nothing
ALL_COMBINATIONS: frozenset[str] = frozenset({"set_light", "hold_still", "nothing"})
# scenes with so many things, or more, are held out from the training of an edit; the others have too few counts
HELD_OUT_COUNTS: dict[str, int] = {
    **dict.fromkeys(("pick_up", "place", "hold_still", "release", "recolour", "remove", "nothing"), 4),
    **dict.fromkeys(("put_down", "remove_support", "set_light", "cross", "replace_car", "drive_to_line"), 4),
    **dict.fromkeys(("pour", "slice", "open_jar", "close_jar", "season"), 5),
    "domino": 6,
}
# training knows one gravity
HARD_EDITS: frozenset[str] = frozenset({"release_weightless", "release_sideways"})


def combination_of(item: Item) -> tuple[str, str, str] | None:
    """Kind, colour and edit of the subject, as the edit leaves it; None when the edit is about nothing."""
    if item.subject is None:
        return None
    body = item.end.body(item.subject) or item.start.body(item.subject)
    assert body is not None
    return body.detail("of", body.kind), body.colour, item.edit


def is_held_out_combination(kind: str, colour: str, edit: str) -> bool:
    """Whether no training item does this edit to a thing of this kind and colour."""
    return (
        bool(colour) and edit not in ALL_COMBINATIONS and _share(f"{SALT} {kind} {colour} {edit}") < COMBINATION_SHARE
    )


@cache
def held_out_phrasings(edit: str) -> frozenset[str]:
    """The phrasings of an edit that no training item uses: those whose hash is low, one at least.

    One that stands within another phrasing, or has a frame of its own, is not among them: training would see its words.
    """
    free = [each for each in PHRASES[edit] if mood(each) != "whole" and not _stands_within(each, PHRASES[edit])]
    low = [each for each in free if _share(f"{edit}: {each}") < PHRASING_SHARE]
    return frozenset(low or sorted(free, key=lambda each: _share(f"{edit}: {each}"))[:1])


def phrasings(edit: str, *, held_out: bool) -> tuple[str, ...]:
    """The phrasings of an edit that are held out, or those that are not."""
    kept = held_out_phrasings(edit)
    return tuple(each for each in PHRASES[edit] if (each in kept) == held_out)


def count_of(item: Item) -> int:
    """How many things there are at the start; what lies in others or on them as a part does not count."""
    return sum(body.look.solid for body in item.start.bodies)


def _has_new_combination(item: Item) -> bool:
    combination = combination_of(item)
    return combination is not None and is_held_out_combination(*combination)


def _has_new_phrasing(item: Item) -> bool:
    return item.words.template in held_out_phrasings(item.edit)


def _has_new_count(item: Item) -> bool:
    return item.edit in HELD_OUT_COUNTS and count_of(item) >= HELD_OUT_COUNTS[item.edit]


HELD_OUT: dict[str, Callable[[Item], bool]] = {
    COMBINATION: _has_new_combination,
    PHRASING: _has_new_phrasing,
    COUNT: _has_new_count,
    HARD: lambda item: item.edit in HARD_EDITS,
}
SPLITS = (IN_DISTRIBUTION, *HELD_OUT)
FLAGS: dict[str, str] = {split.replace(" ", "-"): split for split in (BY_TURNS, *SPLITS)}
"""The splits by the names that they have on a command line."""

# seeds of the benchmark take these in turn: of 600 items 250 are in distribution, 50 hard, and 100 of each other split
_TURN = (IN_DISTRIBUTION, COMBINATION, IN_DISTRIBUTION, PHRASING, IN_DISTRIBUTION, COUNT)
BENCHMARK = (*_TURN, HARD, *_TURN[1:])


def unseen_in(item: Item) -> tuple[str, ...]:
    """The splits whose held-out thing is in the item; () for one that training may have."""
    return tuple(split for split, has in HELD_OUT.items() if has(item))


def split_of(item: Item) -> str | None:
    """The split of an item; None when more than one thing is unseen in it, so that it tells nothing of either."""
    unseen = unseen_in(item)
    return IN_DISTRIBUTION if not unseen else unseen[0] if len(unseen) == 1 else None


def split_of_seed(seed: int, first_evaluation_seed: int) -> str:
    """The split that a seed draws from: training seeds in distribution, the benchmark's by turns."""
    if seed < first_evaluation_seed:
        return IN_DISTRIBUTION
    return BENCHMARK[(seed - first_evaluation_seed) % len(BENCHMARK)]


def can_have(edit: str, split: str) -> bool:
    """Whether an edit has scenes of a split."""
    if edit in HARD_EDITS or split == HARD:
        return edit in HARD_EDITS and split == HARD
    return (split != COMBINATION or edit not in ALL_COMBINATIONS) and (split != COUNT or edit in HELD_OUT_COUNTS)


def _share(text: str) -> float:
    """A number in [0, 1) that is the text's own, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48


def _stands_within(template: str, others: Iterable[str]) -> bool:
    words = r"\b" + re.sub(r"\\{\w+\\}", ".+", re.escape(template)) + r"\b"
    pattern = re.compile(words)
    return any(pattern.search(form) for each in others if each != template for form in spoken_forms(each))
