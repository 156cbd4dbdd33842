"""Cars from the side: one way of drawing for all models, so that one can turn into another."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ..drawing import Light, Paint
from ..geometry import Point, Polygon, below, box, clip, ellipse, rounded, scaled
from ..palette import RGB, lit, mixed
from .base import Kind

if TYPE_CHECKING:
    from ..state import Body

RUBBER: RGB = (40, 40, 46)
PLASTIC: RGB = (58, 60, 68)
RIM: RGB = (178, 184, 194)
PANE: RGB = (92, 128, 152)


@dataclass(frozen=True, kw_only=True)
class Coachwork:
    """The shape of a model that faces right, as numbers that can be mixed with another's one by one.

    `shell` has 14 corners from the foot of the tail over the roof to the nose and back, `glass` six from the rear foot;
    `pillars` are (x, width) of what divides the glass; `doors` are lines; `wheels` are the rear and the front hub's x.
    """

    shell: tuple[Point, ...]
    glass: tuple[Point, ...]
    pillars: tuple[Point, ...]
    doors: tuple[float, ...]
    wheels: tuple[float, float]
    wheel: float
    nose: Point
    tail: Point
    head: Point


MODELS: dict[str, Coachwork] = {
    "sedan": Coachwork(
        shell=(
            *((-2.3, 0.58), (-2.36, 0.1), (-2.26, -0.24), (-1.58, -0.32), (-1.02, -0.9), (-0.5, -1.0), (0.32, -1.0)),
            *((0.66, -0.86), (1.16, -0.28), (2.06, -0.14), (2.34, 0.12), (2.38, 0.5), (2.26, 0.7), (-2.16, 0.7)),
        ),
        glass=((-1.36, -0.3), (-0.92, -0.8), (-0.4, -0.87), (0.32, -0.87), (0.92, -0.3), (0.0, -0.3)),
        pillars=((-0.98, 0.1), (-0.22, 0.1), (0.6, 0.0), (0.6, 0.0)),
        doors=(-0.98, -0.22, 0.8),
        wheels=(-1.42, 1.46),
        wheel=0.45,
        nose=(2.22, 0.14),
        tail=(-2.26, 0.02),
        head=(0.12, -0.55),
    ),
    "suv": Coachwork(
        shell=(
            *((-2.06, 0.52), (-2.13, 0.05), (-2.1, -0.3), (-2.02, -0.56), (-1.82, -0.93), (-1.4, -1.0), (0.22, -1.0)),
            *((0.56, -0.9), (1.04, -0.38), (1.92, -0.28), (2.12, -0.04), (2.15, 0.4), (2.04, 0.6), (-1.94, 0.6)),
        ),
        glass=((-1.86, -0.38), (-1.68, -0.82), (-0.5, -0.88), (0.28, -0.88), (0.8, -0.38), (0.0, -0.38)),
        pillars=((-1.16, 0.13), (-0.26, 0.1), (0.5, 0.0), (0.5, 0.0)),
        doors=(-1.16, -0.26, 0.72),
        wheels=(-1.24, 1.3),
        wheel=0.5,
        nose=(2.0, -0.06),
        tail=(-2.04, -0.14),
        head=(0.06, -0.6),
    ),
    "van": Coachwork(
        shell=(
            *((-1.86, 0.58), (-1.92, 0.0), (-1.92, -0.5), (-1.9, -0.8), (-1.8, -0.97), (-0.6, -1.0), (0.52, -1.0)),
            *((0.84, -0.92), (1.34, -0.36), (1.74, -0.2), (1.9, 0.06), (1.93, 0.5), (1.84, 0.7), (-1.78, 0.7)),
        ),
        glass=((-1.74, -0.34), (-1.72, -0.78), (-0.5, -0.84), (0.56, -0.84), (1.12, -0.34), (0.0, -0.34)),
        pillars=((-1.12, 0.13), (-0.34, 0.13), (0.36, 0.13), (0.36, 0.0)),
        doors=(-1.12, -0.34, 0.36),
        wheels=(-1.16, 1.16),
        wheel=0.38,
        nose=(1.78, 0.1),
        tail=(-1.86, 0.05),
        head=(0.66, -0.55),
    ),
    "pickup": Coachwork(
        shell=(
            *((-2.36, 0.5), (-2.4, 0.1), (-2.4, -0.26), (-0.82, -0.26), (-0.76, -0.88), (-0.6, -1.0), (0.18, -1.0)),
            *((0.46, -0.9), (0.94, -0.34), (1.96, -0.26), (2.2, -0.02), (2.25, 0.42), (2.15, 0.62), (-2.26, 0.62)),
        ),
        glass=((-0.6, -0.36), (-0.55, -0.83), (-0.2, -0.87), (0.2, -0.87), (0.72, -0.36), (0.0, -0.36)),
        pillars=((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
        doors=(-0.78, -0.78, 0.66),
        wheels=(-1.5, 1.36),
        wheel=0.5,
        nose=(2.1, -0.04),
        tail=(-2.32, -0.08),
        head=(0.0, -0.58),
    ),
    "bus": Coachwork(
        shell=(
            *((-2.26, 0.68), (-2.3, 0.2), (-2.3, -0.4), (-2.3, -0.84), (-2.16, -1.0), (-0.6, -1.0), (0.6, -1.0)),
            *((1.9, -1.0), (2.2, -0.88), (2.28, -0.4), (2.32, 0.1), (2.32, 0.5), (2.25, 0.76), (-2.2, 0.76)),
        ),
        glass=((-2.12, -0.12), (-2.12, -0.72), (-0.5, -0.72), (2.08, -0.72), (2.17, -0.12), (0.0, -0.12)),
        pillars=((-1.28, 0.09), (-0.44, 0.09), (0.4, 0.09), (1.24, 0.09)),
        doors=(1.3, 1.3, 2.04),
        wheels=(-1.3, 0.86),
        wheel=0.32,
        nose=(2.24, 0.38),
        tail=(-2.26, 0.34),
        head=(1.82, -0.36),
    ),
}


def coachwork(body: Body) -> Coachwork:
    """The shape of a car: its model's, or one `share` of the way to that of its detail `into`."""
    model, share = MODELS[body.kind], body.detail("share", 0.0)
    into = MODELS[body.detail("into", body.kind)]
    if share <= 0 or into is model:
        return model
    parts: dict[str, Any] = {
        each.name: _mid(getattr(model, each.name), getattr(into, each.name), share) for each in fields(model)
    }
    return Coachwork(**parts)


def _mid(a: tuple | float, b: tuple | float, share: float) -> tuple | float:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return tuple(_mid(x, y, share) for x, y in zip(a, b, strict=True))
    assert isinstance(a, float) and isinstance(b, float)
    return a + (b - a) * share


def softened(polygon: Polygon | tuple[Point, ...], radius: float) -> Polygon:
    """The polygon with its corners rounded off, up to `radius` along each edge."""
    corners = list(polygon)
    curve: Polygon = []
    for k, (x, y) in enumerate(corners):
        ends = []
        for px, py in (corners[k - 1], corners[(k + 1) % len(corners)]):
            length = math.hypot(px - x, py - y) or 1.0
            share = min(radius / length, 0.45)
            ends.append((x + share * (px - x), y + share * (py - y)))
        (ax, ay), (bx, by) = ends
        curve += [(ax, ay), ((ax + 2 * x + bx) / 4, (ay + 2 * y + by) / 4), (bx, by)]
    return curve


def mirrored(paints: list[Paint], flip: float) -> list[Paint]:
    """Facing right, or with `flip` below 0 left."""
    return paints if flip >= 0 else [paint._replace(polygon=[(-x, y) for x, y in paint.polygon]) for paint in paints]


def _outline(body: Body) -> Polygon:
    """The shell, and below it down to the road between the wheels."""
    work, flip = coachwork(body), body.detail("flip", 1.0)
    rear, front = work.wheels
    foot = [(front + 0.7 * work.wheel, 1.0), (rear - 0.7 * work.wheel, 1.0)]
    return [(x if flip >= 0 else -x, y) for x, y in (*work.shell, *foot)]


def _car(body: Body, light: Light) -> list[Paint]:
    work, flip = coachwork(body), body.detail("flip", 1.0)
    light = Light(x=light.x * (1 if flip >= 0 else -1), y=light.y)
    rear, front = work.wheels
    under = box(rear, 0.5, front, 0.94)
    paints = [Paint(under, (34, 34, 42)), *_shell(work, body.albedo, light), *_cabin(work, body.albedo)]
    paints += _trim(work, body.albedo)
    for x in work.wheels:
        paints += _wheel(x, 1 - work.wheel, work.wheel, body.detail("roll", 0.0))
    return mirrored(paints, flip)


def _shell(work: Coachwork, rgb: RGB, light: Light) -> list[Paint]:
    """Sheet metal: the roof and the shoulder catch the sky, the flank is darker below and away from light."""
    shell = softened(work.shell, 0.16)
    waist = work.glass[0][1]
    end = max(x for x, _ in shell)
    roof = clip(shell, (0.0, 1.0), -0.86)
    shoulder = clip(below(shell, waist), (0.0, 1.0), waist + 0.16)
    return [
        Paint(shell, rgb),
        Paint(clip(shell, (light.side, 0.0), -0.35 * end), lit(rgb, -0.14)),
        Paint(roof, lit(rgb, 0.28)),
        Paint(shoulder, lit(rgb, 0.34)),
        Paint(below(shell, 0.2), lit(rgb, -0.16)),
        Paint(below(shell, 0.42), lit(rgb, -0.32)),
    ]


def _cabin(work: Coachwork, rgb: RGB) -> list[Paint]:
    """Glass with the sky in it, the driver, and the pillars."""
    glass = softened(work.glass, 0.1)
    top, foot = work.glass[1][1], work.glass[0][1]
    x, y = work.head
    height = foot - top
    paints = [
        Paint(scaled(glass, 1.1, (x * 0.3, (top + foot) / 2)), lit(rgb, -0.5)),
        Paint(glass, PANE),
        Paint(below(glass, top + 0.55 * height), lit(PANE, -0.3)),
    ]
    driver = [
        ellipse(x, y, 0.15, 0.17, 14),
        [(x - 0.24, foot), (x - 0.17, foot - 0.2), (x + 0.15, foot - 0.2), (x + 0.22, foot)],
    ]
    paints += [Paint(each, mixed((66, 56, 60), PANE, 0.35), 0.8) for each in driver]
    slant = [(-0.9, foot), (-0.4, top), (-0.12, top), (-0.62, foot)]
    glint = clip(slant, (-1.0, 0.0), -min(px for px, _ in glass) - 0.34)
    paints.append(Paint(glint, (226, 242, 250), 0.36))
    paints += [
        Paint(box(px - 0.7 * w, top - 0.06, px + 0.7 * w, foot), lit(rgb, -0.2)) for px, w in work.pillars if w > 0.01
    ]
    return paints


def _trim(work: Coachwork, rgb: RGB) -> list[Paint]:
    """Door lines, the sill, lamps, and the arches of the wheels."""
    bottom, waist = work.shell[-1][1], work.glass[0][1]
    tail, nose = work.shell[-1][0], work.shell[-2][0]
    paints = [
        Paint(box(x - 0.045, waist, x + 0.045, bottom - 0.14), lit(rgb, -0.4), 0.6) for x in dict.fromkeys(work.doors)
    ]
    paints += [
        Paint(rounded(tail - 0.1, bottom - 0.13, nose + 0.1, bottom + 0.05, 0.06), PLASTIC),
        Paint(ellipse(work.nose[0], work.nose[1], 0.15, 0.11, 14), (255, 246, 208)),
        Paint(ellipse(work.tail[0], work.tail[1], 0.1, 0.14, 14), (206, 44, 44)),
    ]
    hub = 1 - work.wheel
    arches = [clip(ellipse(x, hub, work.wheel * 1.2), (0.0, 1.0), bottom + 0.03) for x in work.wheels]
    return paints + [Paint(arch, (36, 36, 44)) for arch in arches]


def _wheel(x: float, y: float, r: float, roll: float) -> list[Paint]:
    """A tyre, a rim, and four spokes that show how far it has turned."""
    spokes = []
    for k in range(4):
        turn = roll + math.pi * k / 2
        cos, sin = math.cos(turn), math.sin(turn)
        reach, half = 0.6 * r, 0.15 * r
        spokes.append(
            [
                (x - half * sin, y + half * cos),
                (x + reach * cos - half * sin, y + reach * sin + half * cos),
                (x + reach * cos + half * sin, y + reach * sin - half * cos),
                (x + half * sin, y - half * cos),
            ]
        )
    return [
        Paint(ellipse(x, y, r, corners=36), RUBBER),
        Paint(ellipse(x, y, 0.68 * r), lit(RIM, -0.1)),
        Paint(ellipse(x, y, 0.54 * r), lit(RIM, -0.36)),
        *(Paint(spoke, lit(RIM, 0.15), 0.98) for spoke in spokes),
        Paint(ellipse(x, y, 0.17 * r, corners=12), lit(RIM, 0.3), 0.98),
    ]


NOUNS = {"sedan": "sedan", "suv": "SUV", "van": "van", "pickup": "pickup truck", "bus": "bus"}
CARS: dict[str, Kind] = {
    name: Kind(nouns=(noun,), outline=_outline, paint=_car, group="cars", edge=0.7, turn_deg=30)
    for name, noun in NOUNS.items()
}
