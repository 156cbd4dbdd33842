"""The street: a traffic light, its lamps, and the table of all that drives and walks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..drawing import Light, Paint, column, glow
from ..geometry import ellipse, rounded
from ..palette import RGB, lit, mixed
from .base import Kind, same
from .street_cars import CARS
from .street_people import PEOPLE

if TYPE_CHECKING:
    from ..state import Body

LAMP_Y = {"red": -0.75, "yellow": -0.295, "green": 0.16}  # in the frame of the traffic light
LAMP_RADIUS = 0.205
LAMP_RGB: dict[str, RGB] = {"red": (236, 44, 40), "yellow": (252, 200, 36), "green": (34, 196, 98)}
HOUSING = rounded(-0.29, -1.0, 0.29, 0.44, 0.12)


def _post(body: Body, light: Light) -> list[Paint]:
    """A housing on a post; each lamp is a body of its own."""
    rgb = body.albedo
    iron = lit(rgb, -0.1)
    near = (-0.29, -0.23) if light.side < 0 else (0.23, 0.29)
    return [
        *column(((-0.075, 0.4), (0.075, 0.4)), ((-0.075, 1.0), (0.075, 1.0)), iron, light),
        *column(((-0.15, 0.9), (0.15, 0.9)), ((-0.16, 1.0), (0.16, 1.0)), iron, light),
        Paint(HOUSING, rgb),
        Paint(rounded(near[0], -0.9, near[1], 0.34, 0.03), lit(rgb, 0.2)),
    ]


ARROW = [(0.0, -0.86), (0.8, 0.04), (0.38, 0.04), (0.38, 0.78), (-0.38, 0.78), (-0.38, 0.04), (-0.8, 0.04)]


def _glass(body: Body) -> RGB:
    """The colour of a lamp: dark, or as bright as its detail `on` says, up to 1."""
    dark, bright = mixed(body.albedo, (26, 26, 34), 0.55), mixed(body.albedo, (255, 255, 236), 0.06)
    return mixed(dark, bright, body.detail("on", 0.0))


def _lamp(body: Body, _light: Light) -> list[Paint]:
    """Glass that is dark, or bright with a halo."""
    rgb, glass, on = body.albedo, _glass(body), body.detail("on", 0.0)
    return [
        *(glow(0, 0, 1.4, 1.4, rgb, 0.14 * on) if on > 0 else []),
        Paint(ellipse(0, 0, 1.0), lit(glass, -0.2 * (1 - on))),
        Paint(ellipse(0, 0.05, 0.84), glass),
        Paint(ellipse(0, 0.08, 0.5), mixed(glass, (255, 255, 236), 0.08 + 0.2 * on)),
        Paint(ellipse(-0.34, -0.36, 0.24, 0.17, 12), (255, 255, 255), 0.2 + 0.2 * on),
    ]


def _arrow(body: Body, _light: Light) -> list[Paint]:
    """Black glass with an arrow, which is dark or bright."""
    on = body.detail("on", 0.0)
    return [
        Paint(ellipse(0, 0, 1.0), (34, 34, 42)),
        Paint(ARROW, lit(_glass(body), 0.1 + 0.15 * on)),
    ]


SIGNALS: dict[str, Kind] = {
    "traffic_light": Kind(
        nouns=("traffic light",),
        outline=same(
            [(-0.29, -1), (0.29, -1), (0.29, 0.44), (0.08, 0.5), (0.08, 1), (-0.08, 1), (-0.08, 0.5), (-0.29, 0.44)]
        ),
        paint=_post,
        turn_deg=30,
        shadow=0.6,
        edge=0.5,
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
