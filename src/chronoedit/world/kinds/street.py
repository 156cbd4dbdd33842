"""The street: a traffic light, its lamps, and the table of all that drives and walks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..drawing import Light, Paint, column, glow
from ..geometry import arc, box, ellipse, rounded
from ..palette import RGB, lit, mixed
from .base import Kind, same
from .street_cars import CARS
from .street_people import PEOPLE

if TYPE_CHECKING:
    from ..state import Body

LAMP_Y = {"red": -0.82, "yellow": -0.545, "green": -0.27}  # in the frame of the traffic light
LAMP_RADIUS = 0.125
LAMP_RGB: dict[str, RGB] = {"red": (236, 44, 40), "yellow": (252, 200, 36), "green": (34, 196, 98)}
HOUSING = rounded(-0.2, -1.0, 0.2, -0.09, 0.07)


def _post(body: Body, light: Light) -> list[Paint]:
    """A housing on a post; each lamp is a body of its own."""
    rgb = body.albedo
    iron = lit(rgb, -0.1)
    hoods = [
        Paint(arc(0, y, LAMP_RADIUS + 0.03, LAMP_RADIUS + 0.035, 180, 360, 14), lit(rgb, -0.6)) for y in LAMP_Y.values()
    ]
    board = rounded(-0.232, -1.0, 0.232, -0.058, 0.09)
    return [
        *column(((-0.045, -0.2), (0.045, -0.2)), ((-0.045, 1.0), (0.045, 1.0)), iron, light),
        *column(((-0.085, 0.86), (0.085, 0.86)), ((-0.1, 1.0), (0.1, 1.0)), iron, light),
        Paint(board, (226, 228, 226)),
        Paint(HOUSING, rgb),
        Paint(
            box(-0.185 if light.side < 0 else 0.15, -0.96, -0.15 if light.side < 0 else 0.185, -0.13), lit(rgb, 0.22)
        ),
        *hoods,
    ]


ARROW = [(0.0, -0.82), (0.72, -0.02), (0.3, -0.02), (0.3, 0.8), (-0.3, 0.8), (-0.3, -0.02), (-0.72, -0.02)]


def _glass(body: Body) -> RGB:
    """The colour of a lamp: dark, or as bright as its detail `on` says, up to 1."""
    dark, bright = mixed(body.albedo, (26, 26, 34), 0.6), mixed(body.albedo, (255, 255, 236), 0.06)
    return mixed(dark, bright, body.detail("on", 0.0))


def _lamp(body: Body, _light: Light) -> list[Paint]:
    """Glass that is dark, or bright with a halo."""
    rgb, glass, on = body.albedo, _glass(body), body.detail("on", 0.0)
    return [
        *(glow(0, 0, 1.6, 1.6, rgb, 0.2 * on) if on > 0 else []),
        Paint(ellipse(0, 0, 1.0), lit(glass, -0.2 * (1 - on))),
        Paint(ellipse(0, 0.05, 0.84), glass),
        Paint(ellipse(0, 0.08, 0.5), mixed(glass, (255, 255, 236), 0.08 + 0.2 * on)),
        Paint(ellipse(-0.34, -0.36, 0.2, 0.14, 12), (255, 255, 255), 0.25 + 0.25 * on),
    ]


def _arrow(body: Body, _light: Light) -> list[Paint]:
    """Black glass with an arrow, which is dark or bright."""
    on = body.detail("on", 0.0)
    return [
        Paint(ellipse(0, 0, 1.0), (24, 24, 30)),
        Paint(ARROW, lit(_glass(body), 0.1 + 0.15 * on)),
    ]


SIGNALS: dict[str, Kind] = {
    "traffic_light": Kind(
        nouns=("traffic light",),
        outline=same(
            [(-0.23, -1), (0.23, -1), (0.23, -0.06), (0.06, 0.0), (0.06, 1), (-0.06, 1), (-0.06, 0.0), (-0.23, -0.06)]
        ),
        paint=_post,
        turn_deg=30,
        shadow=0.6,
    ),
    **{
        name: Kind(
            nouns=("lamp",),
            outline=same(ellipse(0, 0, 1.0)),
            paint=paint,
            group="signals",
            solid=False,
            shadow=0.0,
            edge=0.0,
            turn_deg=0,
        )
        for name, paint in (("signal", _lamp), ("arrow_signal", _arrow))
    },
}

STREET: dict[str, Kind] = {**CARS, **PEOPLE, **SIGNALS}
