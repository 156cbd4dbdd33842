"""State → picture and id-mask: its place, soft shadows, and every body in paints, under light from one side.

Pillow draws three times as large and the picture is box-averaged; ids are drawn as they are: 0 backdrop, ropes and
shadows, 1 the robot arm, from 2 the bodies.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from .backdrops import backdrop_picture, light_up
from .drawing import Canvas, Light, Paint, column, glow, silhouette
from .geometry import Polygon, box, ellipse, rounded
from .palette import RGB, SHADE, lit
from .state import ARM_ID, FINGER_LENGTH, FINGER_WIDTH, WORLD_SIZE, Arm, Body, State

SUPERSAMPLING = 3
EDGE_PX = 0.9
STEEL: RGB = (136, 148, 166)
DARK_STEEL: RGB = (74, 82, 98)
ROPE: RGB = (150, 116, 78)


def light_of(state: State) -> Light:
    """From above, at the side that the backdrop says."""
    side = 1.0 if state.backdrop.light >= 0 else -1.0
    return Light(x=0.62 * side, y=-0.785)


def render(state: State, size: int = WORLD_SIZE) -> np.ndarray:
    """Draw a state: the picture, uint8 size size 3."""
    picture = backdrop_picture(state.backdrop, size * SUPERSAMPLING).copy()
    canvas, light = Canvas(picture, size * SUPERSAMPLING / WORLD_SIZE), light_of(state)
    for body in state.bodies:
        canvas.lay(ground_shadow(body, state, light))
    for body_id in state.ropes:
        canvas.lay(_rope(state, body_id))
    for layer in sorted({0, *(body.layer for body in state.bodies)}):
        bodies = [body for body in state.bodies if body.layer == layer]
        for body in bodies:
            canvas.lay(contact_shadow(body, state))
            draw_body(canvas, body, light)
        for body in bodies:
            if body.look.front is not None:
                canvas.lay(_faded(body.look.front(body, light.turned(body.angle)), body.alpha), _frame(body))
        if layer == 0 and state.arm is not None:
            canvas.lay(arm_paints(state.arm, light))
    small = picture.reduce(SUPERSAMPLING)
    light_up(small, state.backdrop.light)
    return np.asarray(small)


def draw_body(canvas: Canvas, body: Body, light: Light) -> None:
    """Lay a body's paints, with a thin dark edge; a half transparent one is drawn whole, then let through."""
    before = canvas.picture.copy() if body.alpha < 1 else None
    paints = body.look.paint(body, light.turned(body.angle))
    if body.look.edge:
        for paint in paints:
            if paint.alpha >= 1:
                canvas.edge(body.placed(list(paint.polygon)), lit(paint.rgb, -0.7), EDGE_PX, body.look.edge)
    canvas.lay(paints, _frame(body))
    if before is not None:
        canvas.picture.paste(Image.blend(before, canvas.picture, max(0.0, body.alpha)))


def solid_polygons(body: Body) -> list[Polygon]:
    """What hides other things, in world px: the outline, and what is painted beyond it."""
    light = Light(x=0.0, y=-1.0)
    paints = body.look.paint(body, light)
    polygons = [body.placed(polygon) for polygon in silhouette(paints)]
    return polygons if body.look.see_through else [body.outline(), *polygons]


def id_mask(state: State, size: int = WORLD_SIZE) -> np.ndarray:
    """Which thing each pixel shows, in the order in which they are drawn: int16, size size."""
    scale = size / WORLD_SIZE
    canvas = Image.new("I", (size, size), 0)
    draw = ImageDraw.Draw(canvas)

    def fill(polygon: Polygon, thing_id: int) -> None:
        draw.polygon([(x * scale - 0.5, y * scale - 0.5) for x, y in polygon], fill=thing_id)

    for layer in sorted({0, *(body.layer for body in state.bodies)}):
        bodies = [body for body in state.bodies if body.layer == layer and body.alpha > 0.5]
        for body in bodies:
            for polygon in solid_polygons(body):
                fill(polygon, body.id)
        for body in bodies:
            if body.look.front is not None:
                for polygon in silhouette(body.look.front(body, Light(x=0.0, y=-1.0))):
                    fill(body.placed(polygon), body.id)
        if layer == 0 and state.arm is not None:
            for paint in arm_paints(state.arm, Light(x=0.0, y=-1.0)):
                if paint.alpha >= 0.5:
                    fill(list(paint.polygon), ARM_ID)
    return np.asarray(canvas).astype(np.int16)


def ground_shadow(body: Body, state: State, light: Light) -> list[Paint]:
    """On the floor, away from the light; fainter and wider the higher the body is."""
    if body.look.shadow <= 0:
        return []
    left, _, right, bottom = body.span
    height = max(0.0, body.ground_y(state.backdrop) - bottom)
    half, fade = (right - left) / 2, math.exp(-height / 45)
    x = (left + right) / 2 - light.x * (0.35 * half + 0.12 * height)
    strength = body.look.shadow * body.alpha * (0.14 + 0.42 * fade)
    return glow(
        x, body.ground_y(state.backdrop) - 0.4, half * (1.28 + 0.25 * (1 - fade)), 1.6 + 0.12 * half, SHADE, strength
    )


def contact_shadow(body: Body, state: State) -> list[Paint]:
    """A dark line where the body stands on another."""
    if body.look.shadow <= 0:
        return []
    left, _, right, bottom = body.span
    for other in state.others(body.id):
        low, top, high, _ = other.span
        if abs(top - bottom) < 1.5 and low < right and left < high and other.look.shadow > 0:
            x0, x1 = max(left, low), min(right, high)
            return [
                Paint(box(x0, top, x1, top + 1.1), SHADE, 0.4 * body.alpha),
                Paint(box(x0, top, x1, top + 2.2), SHADE, 0.2 * body.alpha),
            ]
    return []


def _frame(body: Body) -> tuple[float, float, float, float]:
    return body.size * math.cos(body.angle), body.size * math.sin(body.angle), body.x, body.y


def _faded(paints: list[Paint], alpha: float) -> list[Paint]:
    return paints if alpha >= 1 else [paint._replace(alpha=paint.alpha * alpha) for paint in paints]


def _rope(state: State, body_id: int) -> list[Paint]:
    body = state.body(body_id)
    assert body is not None
    x, top = body.x, body.span[1]
    end = max(top, 0.0) + 1.0
    twists = [
        Paint([(x - 0.8, y + 1.4), (x + 0.8, y), (x + 0.8, y + 0.9), (x - 0.8, y + 2.3)], lit(ROPE, -0.45), 0.8)
        for y in np.arange(0.0, end - 2, 3.2)
    ]
    knot = ellipse(x, end - 0.6, 1.7, 1.3, 12)
    return [
        Paint(box(x - 0.9, 0, x + 0.9, end), ROPE),
        *twists,
        Paint(knot, lit(ROPE, -0.35)),
        Paint(ellipse(x - 0.3, end - 1, 0.9, 0.6, 10), lit(ROPE, 0.2)),
    ]


def arm_paints(arm: Arm, light: Light) -> list[Paint]:
    """The gantry arm: a column with rings, a wrist, and two fingers with pads."""
    x, y, outer = arm.x, arm.y, arm.opening + FINGER_WIDTH
    paints = column(((x - 2.5, 0), (x + 2.5, 0)), ((x - 2.5, y), (x + 2.5, y)), STEEL, light)
    for ring in np.arange(y - 10, 0, -13.0):
        paints += column(((x - 3, ring), (x + 3, ring)), ((x - 3, ring + 1.6), (x + 3, ring + 1.6)), DARK_STEEL, light)
    for side in (-1, 1):
        x0, x1 = sorted((x + side * arm.opening, x + side * outer))
        paints += [Paint(box(x0, y, x1, y + FINGER_LENGTH), DARK_STEEL)]
        paints += [Paint(box(x0 + 0.5, y + 1, x0 + 1.1, y + FINGER_LENGTH - 1), lit(DARK_STEEL, 0.3), 0.8)]
        pad = x + side * arm.opening
        paints += [Paint(box(min(pad, pad + side), y + 8, max(pad, pad + side), y + FINGER_LENGTH - 0.6), (46, 48, 58))]
    wrist = rounded(x - outer, y - 3, x + outer, y + 1.5, 1.6)
    paints += [
        Paint(wrist, DARK_STEEL),
        Paint(box(x - outer + 1.4, y - 2.4, x + outer - 1.4, y - 1.5), lit(DARK_STEEL, 0.4), 0.9),
    ]
    hub = ellipse(x, y - 1, 3.3, 3.3, 18)
    return [
        *paints,
        Paint(hub, lit(STEEL, -0.3)),
        Paint(ellipse(x, y - 1.3, 2.4, 2.3, 16), lit(STEEL, 0.15)),
        Paint(ellipse(x, y - 1, 1.1, 1.1, 10), (236, 150, 60)),
    ]
