"""The baseline that knows what is edited but not how: the subject, put where such edits end on average.

Where that is, the scenes of training seeds say. An editor whose motion follows the scene must do better.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from chronoedit.world import Item, sample_item
from chronoedit.world.render import render

TRAINING_ITEMS = 16


def teleported(item: Item) -> np.ndarray:
    """The input with its subject moved to the mean end of such edits: uint8 size size 3.

    It is a copy of the input where there is no subject, where that is only to be added, and where such edits take it
    away.
    """
    body = None if item.subject is None else item.start.body(item.subject)
    end = None if body is None else mean_end(item.family, item.edit)
    if body is None or end is None:
        return item.input
    return render(item.start.with_body(replace(body, x=end[0], y=end[1])), item.size)


@cache
def mean_end(family: str, edit: str) -> tuple[float, float] | None:
    """Mean centre, in world px, of the subject after this edit in 16 training scenes; None where it is in none."""
    items = [sample_item(seed, family=family, edit=edit) for seed in range(TRAINING_ITEMS)]
    ends = [item.end.body(item.subject) for item in items if item.subject is not None]
    places = [(body.x, body.y) for body in ends if body is not None]
    if not places:
        return None
    x, y = np.mean(places, axis=0)
    return float(x), float(y)
