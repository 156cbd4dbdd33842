"""State → picture and id-mask.

Pillow draws three times as large and the picture is box-averaged; ids are drawn as they are: 0 backdrop and ropes,
1 the robot arm, from 2 the bodies. A shaded scene is an illustration (see `illustrate`), any other is drawn flat, each
thing in one colour.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .illustrate import draw_ids, illustrate
from .state import ARM_ID, FINGER_LENGTH, FINGER_WIDTH, WORLD_SIZE, Arm, Backdrop, Body, State

SUPERSAMPLING = 3
ARM_DARK = (70, 76, 88)
ARM_LIGHT = (122, 130, 144)
ROPE = (92, 74, 58)

Polygon = list[tuple[float, float]]
Shape = tuple[Polygon, tuple[float, ...]]


def render(state: State, size: int = WORLD_SIZE) -> np.ndarray:
    """Draw a state: the picture, uint8 size size 3."""
    if state.backdrop.shaded:
        return illustrate(state, size)
    scale = size * SUPERSAMPLING / WORLD_SIZE
    canvas = Image.fromarray(_backdrop(state.backdrop, size * SUPERSAMPLING))
    for body_id in state.ropes:
        _draw(canvas, _rope(state, body_id), scale)
    for body in state.bodies:
        _draw_body(canvas, body, scale)
    if state.arm is not None:
        for shape in _arm(state.arm):
            _draw(canvas, shape, scale)
    return np.asarray(canvas.reduce(SUPERSAMPLING))


def id_mask(state: State, size: int = WORLD_SIZE) -> np.ndarray:
    """Which thing each pixel shows: int16, size size."""
    scale = size / WORLD_SIZE
    canvas = Image.new("I", (size, size), 0)
    draw = ImageDraw.Draw(canvas)
    if state.backdrop.shaded:
        draw_ids(draw, state, scale)
        return np.asarray(canvas).astype(np.int16)
    for body in state.bodies:
        if body.alpha > 0.5:
            draw.polygon(_scaled(body.outline(), scale), fill=body.id)
    if state.arm is not None:
        for polygon, _ in _arm(state.arm):
            draw.polygon(_scaled(polygon, scale), fill=ARM_ID)
    return np.asarray(canvas).astype(np.int16)


def _scaled(polygon: Polygon, scale: float) -> Polygon:
    # Pillow's pixel centres lie at integers, the world's at halves
    return [(x * scale - 0.5, y * scale - 0.5) for x, y in polygon]


def _draw(canvas: Image.Image, shape: Shape, scale: float) -> None:
    polygon, colour = shape
    ImageDraw.Draw(canvas).polygon(_scaled(polygon, scale), fill=tuple(round(c) for c in colour))


def _draw_body(canvas: Image.Image, body: Body, scale: float) -> None:
    if body.alpha >= 1:
        _draw(canvas, (body.outline(), body.albedo), scale)
        return
    cover = Image.new("L", canvas.size, 0)
    ImageDraw.Draw(cover).polygon(_scaled(body.outline(), scale), fill=round(255 * body.alpha))
    canvas.paste(body.albedo, (0, 0), cover)


def _box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _arm(arm: Arm) -> list[Shape]:
    outer = arm.opening + FINGER_WIDTH
    return [
        (_box(arm.x - 2.5, 0, arm.x + 2.5, arm.y), ARM_LIGHT),
        (_box(arm.x - outer, arm.y, arm.x - arm.opening, arm.y + FINGER_LENGTH), ARM_DARK),
        (_box(arm.x + arm.opening, arm.y, arm.x + outer, arm.y + FINGER_LENGTH), ARM_DARK),
        (_box(arm.x - outer, arm.y - 3, arm.x + outer, arm.y + 1.5), ARM_DARK),
    ]


def _rope(state: State, body_id: int) -> Shape:
    body = state.body(body_id)
    assert body is not None
    return _box(body.x - 0.8, 0, body.x + 0.8, body.y), ROPE


def _backdrop(backdrop: Backdrop, size: int) -> np.ndarray:
    """The wall under light that falls off sideways, the floor below it: uint8 size size 3."""
    lit = 1 + backdrop.light * ((np.arange(size) + 0.5) / size - 0.5)

    def row(colour: tuple[float, ...], shade: float = 1.0) -> np.ndarray:
        return np.clip(np.asarray(colour) * shade * lit[:, None] + 0.5, 0, 255).astype(np.uint8)

    picture = np.empty((size, size, 3), dtype=np.uint8)
    picture[:] = row(backdrop.wall)
    for polygon, colour in _decoration(backdrop):
        (x0, y0), (x1, y1) = polygon[0], polygon[2]
        top, bottom, left, right = (max(0, round(v * size / WORLD_SIZE)) for v in (y0, y1, x0, x1))
        picture[top:bottom, left:right] = row(colour)[left:right]
    floor = round(backdrop.floor_y * size / WORLD_SIZE)
    picture[floor:] = row(backdrop.floor)
    picture[floor : floor + max(1, round(2 * size / WORLD_SIZE))] = row(backdrop.floor, 0.86)
    return picture


def _decoration(backdrop: Backdrop) -> list[Shape]:
    wall = np.asarray(backdrop.wall, dtype=float)
    lighter, darker = tuple(np.minimum(wall * 1.07, 255)), tuple(wall * 0.88)
    x = backdrop.decoration_x
    if backdrop.decoration == "window":
        return [
            (_box(x - 15, 12, x + 15, 46), darker),
            (_box(x - 12, 15, x - 1, 43), lighter),
            (_box(x + 1, 15, x + 12, 43), lighter),
        ]
    if backdrop.decoration == "picture":
        return [(_box(x - 13, 18, x + 13, 38), darker), (_box(x - 10, 21, x + 10, 35), lighter)]
    if backdrop.decoration == "shelf":
        return [(_box(x - 22, 40, x + 22, 44), darker)]
    return []
