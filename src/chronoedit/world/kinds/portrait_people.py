"""People, head and shoulders: hair, a face, and a shirt in their own colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..drawing import Light, Paint
from ..geometry import Point, Polygon, arc, clip, ellipse, rounded, scaled, smooth, stroke
from ..palette import RGB, lit, mixed
from .portrait_animals import both, whole
from .portrait_features import DARK, IRISES, inner_line, neckwear, tilted
from .street_people import HAIRS, skin_of

if TYPE_CHECKING:
    from ..state import Body

EYES: Point = (0.175, -0.19)
EYE = 0.085
BROW: Point = (-0.47, 0.46)
_HEAD = ((0.0, -0.74), (0.3, -0.67), (0.43, -0.38), (0.41, -0.06), (0.27, 0.18), (0.0, 0.29))
CUTS = ("short", "curly", "bob", "long", "bun", "side")


def person_outline() -> Polygon:
    """The shoulders of a person, which end at y = 1."""
    right = [(0.0, 0.36), (0.2, 0.4), (0.5, 0.5), (0.7, 0.66), (0.78, 0.86), (0.8, 1.0)]
    return [*right, *[(-x, y) for x, y in right[:0:-1]]]


def person(body: Body, light: Light) -> list[Paint]:
    """Shoulders in a shirt, neck, hair and face; the head may be tilted."""
    skin, hair = skin_of(body), HAIRS[body.detail("hair", "brown")]
    face = whole(_HEAD)
    ears = [
        Paint(ellipse(side * 0.43, -0.16, 0.08, 0.11), lit(skin, -0.1 if side == light.side else -0.3))
        for side in (-1, 1)
    ]
    cut = body.detail("cut", "short")
    head = [
        *_back_hair(cut, hair),
        *ears,
        *inner_line(face, lit(skin, -0.7)),
        Paint(face, lit(skin, -0.2)),
        Paint(scaled(face, 0.9, (0.5 * light.x, -0.4)), skin),
        Paint(scaled(face, 0.45, (0.6 * light.x, -0.5)), lit(skin, 0.12), 0.8),
        *_features(body, skin, hair, light),
        *_front_hair(cut, hair, light),
    ]
    neck = [
        Paint(rounded(-0.16, 0.1, 0.16, 0.52, 0.1), lit(skin, -0.22)),
        Paint(ellipse(0, 0.22, 0.16, 0.12), lit(skin, -0.4), 0.7),
    ]
    back = tilted(body, head[: len(_back_hair(cut, hair))])
    return [
        *back,
        *_shirt(body, light),
        *neck,
        *_neckline(body),
        *neckwear(body, 0.46, light),
        *tilted(body, head[len(back) :]),
    ]


def _shirt(body: Body, light: Light) -> list[Paint]:
    rgb, shape = body.albedo, person_outline()
    paints = [
        Paint(shape, rgb),
        Paint(clip(shape, (light.side, 0.0), -0.34), lit(rgb, -0.26)),
        Paint(clip(shape, (-light.side, 0.0), -0.52), lit(rgb, 0.16)),
    ]
    if body.detail("mark", "plain") == "tabby":
        paints += [
            Paint(clip(clip(shape, (0.0, 1.0), y + 0.1), (0.0, -1.0), -y), lit(rgb, 0.45), 0.9) for y in (0.6, 0.82)
        ]
    folds = [[(0.5, 1.0), (0.47, 0.82), (0.52, 0.7)], [(-0.5, 1.0), (-0.47, 0.82), (-0.52, 0.7)]]
    return [*paints, *(Paint(stroke(fold, 0.045, 0.03), lit(rgb, -0.4), 0.6) for fold in folds)]


def _neckline(body: Body) -> list[Paint]:
    """The shirt's collar: two points, or a round edge."""
    rgb = body.albedo
    if body.detail("mark", "plain") == "blaze":
        return [Paint(side, lit(rgb, 0.5)) for side in both([(0.0, 0.6), (0.17, 0.34), (0.26, 0.42), (0.16, 0.64)])]
    ring = [*arc(0, 0.38, 0.21, 0.17, 0, 180, 13), *arc(0, 0.38, 0.27, 0.24, 180, 0, 13)]
    return [Paint(ring, lit(rgb, -0.2))]


def _features(body: Body, skin: RGB, hair: RGB, light: Light) -> list[Paint]:
    mood, (dx, y) = body.detail("mood", "open"), EYES
    paints = [Paint(ellipse(side * 0.25, -0.02, 0.085, 0.06), (236, 110, 100), 0.3) for side in (-1, 1)]
    for side in (-1, 1):
        x = side * dx
        brow = arc(x, y - 0.06, 0.11, 0.1, 215, 325, 7)
        paints.append(Paint(stroke(brow, 0.04, 0.025), mixed(lit(hair, -0.25), DARK, 0.2), 0.95))
        if mood == "happy" or (mood == "wink" and side == 1):
            paints.append(Paint(stroke(arc(x, y + 0.04, 0.085, 0.075, 195, 345, 9), 0.034), DARK))
            continue
        gaze = 0.02 * body.detail("gaze", 0.0)
        iris = IRISES[body.detail("iris", "brown")]
        paints += [
            Paint(ellipse(x, y, 0.098, 0.078), DARK),
            Paint(ellipse(x, y + 0.008, 0.09, 0.066), (252, 250, 246)),
            Paint(ellipse(x + gaze, y + 0.004, 0.058, 0.064), iris),
            Paint(ellipse(x + gaze, y + 0.004, 0.034, 0.04), (24, 20, 28)),
            Paint(ellipse(x + gaze + 0.02 * light.side, y - 0.022, 0.026, corners=10), (255, 255, 255), 0.9),
        ]
    nose = [
        (0.02 * -light.side, -0.12),
        (0.045 * -light.side, -0.01),
        (0.035 * -light.side, 0.02),
        (0.05 * light.side, 0.025),
    ]
    return [*paints, Paint(stroke(nose, 0.038), lit(skin, -0.28)), *_lips(body, skin)]


def _lips(body: Body, skin: RGB) -> list[Paint]:
    if body.detail("mouth", "smile") == "open":
        laugh = [*arc(0, 0.09, 0.13, 0.11, 0, 180, 13)]
        return [
            Paint(laugh, (128, 44, 52)),
            Paint(clip(laugh, (0.0, 1.0), 0.125), (255, 252, 246)),
            Paint(clip(laugh, (0.0, -1.0), -0.165), (224, 110, 112)),
        ]
    smile = arc(0, 0.05, 0.13, 0.09, 20, 160, 11)
    return [Paint(stroke(smile, 0.042), mixed((176, 70, 70), skin, 0.15))]


def _back_hair(cut: str, hair: RGB) -> list[Paint]:
    shade = lit(hair, -0.28)
    if cut == "long":
        return [
            Paint(
                smooth(
                    [
                        (0.0, -0.84),
                        (0.46, -0.66),
                        (0.58, -0.2),
                        (0.62, 0.3),
                        (0.56, 0.66),
                        (-0.56, 0.66),
                        (-0.62, 0.3),
                        (-0.58, -0.2),
                        (-0.46, -0.66),
                    ],
                    4,
                ),
                shade,
            )
        ]
    if cut == "bob":
        return [
            Paint(
                smooth(
                    [
                        (0.0, -0.84),
                        (0.46, -0.68),
                        (0.58, -0.24),
                        (0.56, 0.14),
                        (0.4, 0.24),
                        (-0.4, 0.24),
                        (-0.56, 0.14),
                        (-0.58, -0.24),
                        (-0.46, -0.68),
                    ],
                    4,
                ),
                shade,
            )
        ]
    if cut == "bun":
        return [Paint(ellipse(0, -0.9, 0.2, 0.18), shade), Paint(ellipse(0, -0.4, 0.48, 0.44), shade)]
    if cut == "curly":
        puffs = ((0.0, -0.74), (0.26, -0.7), (0.44, -0.52), (0.5, -0.28), (-0.26, -0.7), (-0.44, -0.52), (-0.5, -0.28))
        return [Paint(ellipse(x, y, 0.2, 0.19), shade) for x, y in puffs]
    return []


def _front_hair(cut: str, hair: RGB, light: Light) -> list[Paint]:
    """The fringe: hair that lies on the forehead."""
    crown = arc(0, -0.3, 0.465, 0.52, 180, 360, 17)
    fringes: dict[str, list[Point]] = {
        "short": [(0.42, -0.4), (0.3, -0.5), (0.1, -0.46), (-0.1, -0.52), (-0.3, -0.46), (-0.42, -0.38)],
        "side": [(0.43, -0.34), (0.34, -0.5), (0.1, -0.56), (-0.14, -0.46), (-0.36, -0.32), (-0.44, -0.24)],
        "bob": [(0.42, -0.2), (0.39, -0.4), (0.2, -0.37), (0.0, -0.39), (-0.2, -0.37), (-0.39, -0.4), (-0.42, -0.2)],
        "long": [(0.44, -0.1), (0.4, -0.34), (0.22, -0.5), (0.02, -0.6), (-0.22, -0.5), (-0.4, -0.34), (-0.44, -0.1)],
        "bun": [(0.43, -0.24), (0.36, -0.44), (0.14, -0.56), (-0.14, -0.56), (-0.36, -0.44), (-0.43, -0.24)],
    }
    if cut == "curly":
        puffs = ((-0.34, -0.56), (-0.14, -0.66), (0.1, -0.68), (0.32, -0.58), (-0.2, -0.52), (0.18, -0.54))
        return [Paint(ellipse(x, y, 0.17, 0.15), lit(hair, 0.08 * (k % 3) - 0.06)) for k, (x, y) in enumerate(puffs)]
    shape = [*crown, *fringes[cut]]
    shine = stroke(arc(0.06 * light.side, -0.32, 0.34, 0.4, 250, 330 if light.side > 0 else 290, 9), 0.05, 0.02)
    if light.side < 0:
        shine = [(-x, y) for x, y in stroke(arc(0.06, -0.32, 0.34, 0.4, 250, 330, 9), 0.05, 0.02)]
    return [Paint(shape, hair), Paint(shine, lit(hair, 0.4), 0.7)]
