"""Faces and what they wear, as one table, and where on a face glasses and hats sit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .base import Kind, same
from .portrait_animals import ANIMALS, animal, bust_outline
from .portrait_features import on_head
from .portrait_people import BROW, EYES, person, person_outline
from .portrait_wear import GLASSES, HATS, LENS_X

if TYPE_CHECKING:
    from ..state import Body

PORTRAIT: dict[str, Kind] = {
    **{
        name: Kind(
            nouns=(name,),
            outline=same(bust_outline(spec.bust)),
            paint=animal,
            group="faces",
            shadow=0.0,
            edge=0.6,
            turn_deg=0,
        )
        for name, spec in ANIMALS.items()
    },
    "person": Kind(
        nouns=("person",), outline=same(person_outline()), paint=person, group="faces", shadow=0.0, edge=0.6, turn_deg=0
    ),
    **GLASSES,
    **HATS,
}


def eyes_of(face: Body) -> tuple[float, float]:
    """The right eye of an upright face, in its frame."""
    return ANIMALS[face.kind].eyes if face.kind in ANIMALS else EYES


def brow_of(face: Body) -> tuple[float, float]:
    """The line on which a hat sits on an upright face: its y and half its width, in the frame of the face."""
    return ANIMALS[face.kind].brow if face.kind in ANIMALS else BROW


def worn(thing: Body, face: Body) -> Body:
    """The glasses or the hat where they sit on a face: over the eyes, or on the brow; as tilted as the head."""
    dx, y = eyes_of(face)
    size = dx * face.size / LENS_X
    if thing.kind not in GLASSES:
        line, half = brow_of(face)
        size = half * face.size
        y = line - 0.84 * half
    host_x, host_y = on_head(face, (0.0, y))
    return replace(
        thing, x=face.x + face.size * host_x, y=face.y + face.size * host_y, size=size, angle=face.detail("tilt", 0.0)
    ).with_details(host=float(face.id), host_x=host_x, host_y=host_y)
