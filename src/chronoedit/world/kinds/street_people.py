"""Those who walk and ride in a street, from the side. Feet are where walking sets them, wheels turn as they roll."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..drawing import Light, Paint
from ..geometry import Point, Polygon, arc, box, clip, ellipse, rounded, stroke
from ..palette import ALBEDO, RGB, lit
from .base import Kind, same
from .street_cars import RUBBER, mirrored

if TYPE_CHECKING:
    from ..state import Body

SKINS: tuple[RGB, ...] = ((248, 214, 184), (230, 184, 146), (186, 132, 94), (126, 84, 62))
HAIRS: dict[str, RGB] = {
    "black": (44, 38, 42),
    "brown": (104, 66, 42),
    "blond": (230, 190, 106),
    "red": (186, 88, 44),
    "grey": (176, 174, 176),
}
CYCLE = 1.24  # how far two steps go, in units of the walker's size
THIGH = SHIN = 0.4
ANKLE = 0.92


def skin_of(body: Body) -> RGB:
    """The skin of a walker or rider, by the number in its detail `skin`."""
    return SKINS[int(body.detail("skin", 0.0)) % len(SKINS)]


def feet(phase: float, stride: float) -> list[Point]:
    """Where the two feet are, in units about the walker: x ahead, y up from the ground.

    A foot that carries moves back as fast as the body goes ahead; the other one swings past it. `stride` in [0, 1] is
    how much of a full step is made.
    """
    places = []
    for k, beside in ((0.0, 0.07), (0.5, -0.07)):
        part = (phase + k) % 1.0
        if part < 0.5:
            x, height = CYCLE * (0.25 - part), 0.0
        else:
            swing = 2 * part - 1
            x, height = CYCLE * (0.5 * swing * swing * (3 - 2 * swing) - 0.25), 0.17 * math.sin(math.pi * swing)
        places.append((stride * x + (1 - stride) * beside, stride * height))
    return places


def _hip(places: list[Point]) -> float:
    """Height of the hip, low enough for both legs to reach."""
    reach = THIGH + SHIN - 0.005
    return max(ANKLE - up - math.sqrt(max(reach**2 - x**2, 0.01)) for x, up in places)


def _knee(hip: Point, ankle: Point) -> Point:
    """Between hip and ankle, bent ahead."""
    (ax, ay), (bx, by) = hip, ankle
    length = math.hypot(bx - ax, by - ay)
    out = math.sqrt(max(THIGH**2 - length**2 / 4, 0.0))
    return (ax + bx) / 2 + out * (by - ay) / length, (ay + by) / 2 - out * (bx - ax) / length


def _leg(hip: Point, foot: Point, rgb: RGB, shoe: RGB, width: float = 0.2) -> list[Paint]:
    x, up = foot
    ankle = (x, ANKLE - up)
    knee = _knee(hip, ankle)
    tilt = 0.5 * up
    sole = [
        (x - 0.1, 1 - up),
        (x - 0.1, 0.86 - up),
        (x + 0.06, 0.86 - up),
        (x + 0.2, 0.93 - up + tilt),
        (x + 0.2, 1 - up + tilt * 0),
    ]
    return [
        Paint(stroke([hip, knee, ankle], width, 0.75 * width), rgb),
        Paint(sole, shoe),
    ]


def _arm(shoulder: Point, turn: float, rgb: RGB, skin: RGB) -> list[Paint]:
    """Hanging, turned ahead by `turn` radians, a little bent."""
    x, y = shoulder
    elbow = (x + 0.27 * math.sin(turn), y + 0.27 * math.cos(turn))
    hand = (elbow[0] + 0.25 * math.sin(turn + 0.3), elbow[1] + 0.25 * math.cos(turn + 0.3))
    return [Paint(ellipse(*hand, 0.075, corners=12), skin), Paint(stroke([shoulder, elbow, hand], 0.17, 0.13), rgb)]


def _head(x: float, y: float, body: Body, light: Light) -> list[Paint]:
    """Facing right, with hair or a hat."""
    skin, hair = skin_of(body), HAIRS[body.detail("hair", "brown")]
    style = body.detail("cut", "short")
    cap = [
        *arc(x - 0.02, y - 0.03, 0.26, 0.27, 170, 335, 14),
        (x + 0.13, y - 0.1),
        (x - 0.06, y - 0.06),
        (x - 0.08, y + 0.1),
    ]
    paints = []
    if style == "long":
        paints.append(
            Paint(
                [
                    (x - 0.26, y - 0.08),
                    (x + 0.0, y - 0.12),
                    (x - 0.04, y + 0.26),
                    (x - 0.14, y + 0.4),
                    (x - 0.3, y + 0.36),
                ],
                lit(hair, -0.2),
            )
        )
    if style == "bun":
        paints.append(Paint(ellipse(x - 0.26, y - 0.16, 0.12, corners=14), lit(hair, -0.15)))
    paints += [
        Paint(ellipse(x + 0.24, y + 0.04, 0.055, 0.05, 10), lit(skin, -0.06)),
        Paint(ellipse(x, y, 0.24, 0.25, 24), skin),
        Paint(clip(ellipse(x, y, 0.24, 0.25, 24), (light.side, 0.0), light.side * x - 0.1), lit(skin, -0.16)),
        Paint(ellipse(x + 0.12, y, 0.045, 0.06, 10), (40, 34, 40), 0.95),
        Paint(ellipse(x + 0.08, y + 0.11, 0.06, 0.045, 10), (236, 120, 110), 0.4),
        *([Paint(cap, hair)] if style != "beanie" else []),
    ]
    if style == "beanie":
        paints += [
            Paint([*arc(x, y - 0.04, 0.27, 0.28, 180, 360, 14)], lit(body.albedo, -0.1)),
            Paint(rounded(x - 0.28, y - 0.13, x + 0.28, y - 0.02, 0.05), lit(body.albedo, 0.25)),
        ]
    return paints


def _pedestrian(body: Body, light: Light) -> list[Paint]:
    """A walker who faces right, or left with `flip` below 0; `phase` counts pairs of steps."""
    flip, phase, stride = body.detail("flip", 1.0), body.detail("phase", 0.0), body.detail("stride", 0.0)
    light = Light(x=light.x * (1 if flip >= 0 else -1), y=light.y)
    rgb, skin, style = body.albedo, skin_of(body), body.detail("style", "jacket")
    trousers = ALBEDO[body.detail("trousers", "navy")]
    legs = skin if style == "dress" else trousers
    shoe = lit(ALBEDO[body.detail("shoes", "brown")], -0.2)
    places = feet(phase, stride)
    hip = _hip(places)
    sway = 0.55 * stride * math.cos(2 * math.pi * phase)
    top = hip - 0.58
    width = 0.15 if style == "dress" else 0.2
    paints = [
        *_arm((0.0, top + 0.08), sway, lit(rgb, -0.38), lit(skin, -0.2)),
        *_leg((-0.02, hip), places[1], lit(legs, -0.3), lit(shoe, -0.2), width),
        *_leg((0.02, hip), places[0], legs, shoe, width),
        Paint(box(-0.07, top - 0.1, 0.08, top + 0.05), lit(skin, -0.2)),
        *_torso(top, hip, style, rgb, light, stride),
        *_head(0.03, top - 0.23, body, light),
        *_arm((0.0, top + 0.1), -sway, lit(rgb, -0.12), skin),
    ]
    if body.detail("bag", 0.0) > 0:
        pack = rounded(-0.42, top + 0.03, -0.16, top + 0.46, 0.09)
        paints = [
            Paint(pack, ALBEDO[body.detail("shoes", "brown")]),
            Paint(box(-0.42, top + 0.18, -0.18, top + 0.26), (60, 44, 40), 0.5),
            *paints,
        ]
    return mirrored(paints, flip)


def _torso(top: float, hip: float, style: str, rgb: RGB, light: Light, stride: float) -> list[Paint]:
    hem, flare = {"jacket": (hip + 0.1, 0.2), "coat": (hip + 0.34, 0.27), "dress": (hip + 0.36, 0.36)}[style]
    flare += 0.05 * stride
    shape = [
        (-0.14, top),
        (0.13, top),
        (0.21, top + 0.12),
        (0.2, hip - 0.14),
        (flare, hem),
        (-flare, hem),
        (-0.2, hip - 0.14),
        (-0.21, top + 0.12),
    ]
    away = clip(shape, (light.side, 0.0), -0.07)
    near = clip(shape, (-light.side, 0.0), -0.12)
    paints = [Paint(shape, rgb), Paint(away, lit(rgb, -0.28)), Paint(near, lit(rgb, 0.18))]
    if style == "jacket":
        paints.append(Paint(box(-0.2, hem - 0.07, 0.2, hem), lit(rgb, -0.4)))
    else:
        paints.append(Paint(box(-0.2, hip - 0.17, 0.2, hip - 0.1), lit(rgb, -0.5)))
    return paints


HUBS = (-0.74, 0.74)
TYRE = 0.46
CRANK: Point = (-0.08, 0.54)


def _cyclist(body: Body, light: Light) -> list[Paint]:
    """A rider on a bicycle, both in the colour of the bicycle; faces right, or left with `flip` below 0."""
    flip, roll = body.detail("flip", 1.0), body.detail("roll", 0.0)
    light = Light(x=light.x * (1 if flip >= 0 else -1), y=light.y)
    rgb, skin = body.albedo, skin_of(body)
    trousers = ALBEDO[body.detail("trousers", "navy")]
    hub = 1 - TYRE
    seat, stem, hip, shoulder, grip = (-0.3, 0.06), (0.52, 0.0), (-0.3, -0.08), (0.14, -0.5), (0.56, -0.16)
    pedals = [
        (CRANK[0] + 0.16 * math.cos(0.4 * roll + k), CRANK[1] + 0.16 * math.sin(0.4 * roll + k))
        for k in (0.9, 0.9 + math.pi)
    ]
    paints = []
    for x in HUBS:
        paints += _tyre(x, hub, roll)
    paints += _shank(hip, pedals[1], lit(trousers, -0.3))
    tubes = [[(HUBS[0], hub), CRANK, seat, (HUBS[0], hub)], [seat, stem, CRANK], [grip, stem, (HUBS[1], hub)]]
    paints += [Paint(stroke(tube, 0.13), rgb) for tube in tubes]
    paints.append(Paint(rounded(-0.48, -0.02, -0.14, 0.07, 0.04), (52, 44, 44)))
    paints += _shank(hip, pedals[0], trousers)
    back = [(-0.44, -0.08), (-0.16, 0.04), (0.26, -0.42), (0.2, -0.6), (0.02, -0.58)]
    x, y = 0.3, -0.74
    return mirrored(
        [
            *paints,
            Paint(back, rgb),
            Paint([(-0.44, -0.08), (-0.1, -0.3), (0.2, -0.6), (0.02, -0.58)], lit(rgb, 0.2)),
            Paint(ellipse(x, y, 0.19, 0.2, 20), skin),
            Paint(ellipse(x + 0.1, y + 0.02, 0.04, 0.055, 10), (40, 34, 40), 0.95),
            Paint(arc(x - 0.02, y - 0.03, 0.24, 0.23, 175, 355, 14), rgb),
            Paint(arc(x - 0.02, y - 0.1, 0.16, 0.13, 180, 360, 10), lit(rgb, 0.35)),
            Paint(stroke([shoulder, (0.36, -0.24), grip], 0.14, 0.11), lit(rgb, -0.16)),
            Paint(ellipse(*grip, 0.07, corners=10), skin),
        ],
        flip,
    )


def _tyre(x: float, y: float, roll: float) -> list[Paint]:
    rings = [ellipse(x, y, TYRE, corners=36), ellipse(x, y, TYRE - 0.13, corners=30)]
    ring = [*rings[0], rings[0][0], rings[1][0], *rings[1][::-1]]
    spokes = [roll + math.pi * k / 3 for k in range(3)]
    lines = [
        [(x - 0.4 * math.cos(a), y - 0.4 * math.sin(a)), (x + 0.4 * math.cos(a), y + 0.4 * math.sin(a))] for a in spokes
    ]
    return [*(Paint(stroke(line, 0.09), (206, 208, 214), 0.8) for line in lines), Paint(ring, RUBBER, 0.99)]


def _shank(hip: Point, pedal: Point, rgb: RGB) -> list[Paint]:
    length = math.hypot(pedal[0] - hip[0], pedal[1] - hip[1])
    half = 0.45
    out = math.sqrt(max(half**2 - length**2 / 4, 0.0))
    knee = (
        (hip[0] + pedal[0]) / 2 + out * (pedal[1] - hip[1]) / length,
        (hip[1] + pedal[1]) / 2 - out * (pedal[0] - hip[0]) / length,
    )
    x, y = pedal
    return [
        Paint(stroke([hip, knee, pedal], 0.19, 0.13), rgb),
        Paint(rounded(x - 0.08, y - 0.04, x + 0.18, y + 0.06, 0.04), (70, 50, 44)),
    ]


def _frame_of(half: float) -> Polygon:
    return [(-half, -1.0), (half, -1.0), (half, 1.0), (-half, 1.0)]


PEOPLE: dict[str, Kind] = {
    "pedestrian": Kind(
        nouns=("pedestrian",), outline=same(_frame_of(0.34)), paint=_pedestrian, see_through=True, edge=0.7, turn_deg=45
    ),
    "bicycle": Kind(
        nouns=("bicycle", "bike"), outline=same(_frame_of(1.2)), paint=_cyclist, see_through=True, edge=0.7, turn_deg=45
    ),
}
