"""The place of a scene as a picture, and the light that lies over all of it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from .drawing import Canvas
from .palette import RGB, SHADE, SUNLIT
from .places import BACKDROPS
from .state import WORLD_SIZE, Backdrop


@lru_cache(maxsize=16)
def backdrop_picture(backdrop: Backdrop, size_px: int) -> Image.Image:
    """The place of a backdrop, RGB size_px × size_px; to be copied before it is drawn on.

    Raises ValueError for an unknown place.
    """
    if backdrop.place not in BACKDROPS:
        raise ValueError(f"unknown place {backdrop.place!r}; choose one of {', '.join(BACKDROPS)}")
    picture = Image.new("RGB", (size_px, size_px), backdrop.wall)
    Canvas(picture, size_px / WORLD_SIZE).lay(BACKDROPS[backdrop.place](backdrop))
    return picture


def light_up(picture: Image.Image, light: float) -> None:
    """Make a picture brighter towards the light, darker away from it and in the corners."""
    for rgb, mask in _light_masks(light, picture.size[0]):
        picture.paste(rgb, (0, 0), mask)


@lru_cache(maxsize=16)
def _light_masks(light: float, size_px: int) -> tuple[tuple[RGB, Image.Image], ...]:
    """What is laid over a picture, in which colour, and how thickly at each pixel."""
    x, y = (np.indices((17, 17)) / 16.0)[::-1]
    away = np.hypot(x - (0.92 if light >= 0 else 0.08), y - 0.1)
    strength = 0.5 + 4 * abs(light)
    covers = ((SUNLIT, 0.3 * strength * (0.75 - away)), (SHADE, 0.26 * strength * (away - 0.62)))
    return tuple(
        (
            rgb,
            Image.fromarray(np.clip(255 * cover, 0, 255).astype(np.uint8)).resize(
                (size_px, size_px), Image.Resampling.BILINEAR
            ),
        )
        for rgb, cover in covers
    )
