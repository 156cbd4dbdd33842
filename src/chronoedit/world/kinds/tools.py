"""What the robot arm handles: cutlery and tools that stand in a block, a bottle, a plate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..drawing import Light, Paint, column
from ..geometry import Polygon, arc, box, ellipse, rounded, stroke
from ..palette import RGB, lit
from .base import Kind, same

if TYPE_CHECKING:
    from ..state import Body

STEEL: RGB = (176, 186, 200)
DARK: RGB = (58, 62, 74)
TOOL_TOP = -2.7  # of what stands in a block, in its half extents
HANDLE = 0.27  # half as wide

PLATE_TOP, BOTTLE_TOP, STAND_TOP = 0.3, -2.2, 0.15

_BOWL = ellipse(0, 0.2, 0.66, 0.8)
SPOON: Polygon = [
    (0.22, -0.5),
    *arc(0, 0.2, 0.66, 0.8, -65, 245, 22),
    (-0.22, -0.5),
    *arc(0, TOOL_TOP + 0.2, HANDLE, 0.2, 180, 360, 9),
]
_TINES = ((-0.62, -0.36), (-0.13, 0.13), (0.36, 0.62))
FORK: Polygon = [(HANDLE, TOOL_TOP), (0.22, -0.75), (0.62, -0.4), (0.62, 1), (-0.62, 1), (-0.62, -0.4), (-0.22, -0.75)]
FORK += [(-HANDLE, TOOL_TOP)]
SCREWDRIVER: Polygon = [(0.5, TOOL_TOP), (0.46, -0.75), (0.17, -0.6), (0.17, 1), (-0.17, 1), (-0.17, -0.6)]
SCREWDRIVER += [(-0.46, -0.75), (-0.5, TOOL_TOP)]
BRUSH: Polygon = [(0.12, TOOL_TOP), (0.3, -0.7), (0.5, -0.5), (0.56, 1), (-0.56, 1), (-0.5, -0.5), (-0.3, -0.7)]
BRUSH += [(-0.12, TOOL_TOP)]


def _spoon(body: Body, light: Light) -> list[Paint]:
    rgb = body.albedo
    hollow = ellipse(0, 0.22, 0.46, 0.58)
    return [
        Paint(SPOON, lit(rgb, -0.12)),
        Paint(stroke([(-0.1 * light.side, TOOL_TOP + 0.2), (-0.08 * light.side, -0.5)], 0.2), lit(rgb, -0.35), 0.8),
        Paint(stroke([(0.1 * light.side, TOOL_TOP + 0.15), (0.08 * light.side, -0.5)], 0.16), lit(rgb, 0.45)),
        Paint(_BOWL, rgb),
        Paint(hollow, lit(rgb, -0.4)),
        Paint(ellipse(-0.1 * light.side, 0.34, 0.34, 0.42), lit(rgb, -0.16)),
        Paint(ellipse(-0.22 * light.side, 0.5, 0.12, 0.2, 14), (255, 255, 255), 0.55),
    ]


def _fork(body: Body, light: Light) -> list[Paint]:
    rgb = body.albedo
    neck = [(HANDLE, TOOL_TOP), (0.22, -0.75), (0.62, -0.42), (0.62, 0.02), (-0.62, 0.02), (-0.62, -0.42)]
    neck += [(-0.22, -0.75), (-HANDLE, TOOL_TOP)]
    return [
        *(Paint([(a, -0.05), (b, -0.05), (b - 0.04, 1), (a + 0.04, 1)], lit(rgb, -0.05)) for a, b in _TINES),
        Paint(neck, rgb),
        Paint(stroke([(0.1 * light.side, TOOL_TOP + 0.1), (0.08 * light.side, -0.7)], 0.16), lit(rgb, 0.45)),
        Paint(stroke([(-0.14 * light.side, TOOL_TOP + 0.1), (-0.1 * light.side, -0.7)], 0.16), lit(rgb, -0.35), 0.8),
        Paint(box(-0.56, -0.1, 0.56, 0.02), lit(rgb, -0.35), 0.7),
        *(Paint(box(a + 0.04, 0.05, a + 0.12, 0.85), lit(rgb, 0.4), 0.8) for a, _ in _TINES),
    ]


def _screwdriver(body: Body, light: Light) -> list[Paint]:
    rgb, foot = body.albedo, -0.75
    grooves = [box(x - 0.05, TOOL_TOP + 0.35, x + 0.05, foot - 0.25) for x in (-0.2, 0.2)]
    return [
        *column(((-0.15, foot), (0.15, foot)), ((-0.15, 0.72), (0.15, 0.72)), STEEL, light),
        Paint([(-0.15, 0.7), (0.15, 0.7), (0.24, 0.86), (0.2, 1), (-0.2, 1), (-0.24, 0.86)], lit(STEEL, -0.35)),
        Paint(box(-0.28, foot - 0.05, 0.28, foot + 0.2), DARK),
        Paint(rounded(-0.5, TOOL_TOP, 0.5, foot, 0.26), rgb),
        *column(
            ((-0.44, TOOL_TOP + 0.2), (0.44, TOOL_TOP + 0.2)), ((-0.44, foot - 0.1), (0.44, foot - 0.1)), rgb, light
        ),
        *(Paint(groove, lit(rgb, -0.5), 0.7) for groove in grooves),
        Paint(rounded(-0.5, TOOL_TOP, 0.5, TOOL_TOP + 0.3, 0.15), lit(rgb, 0.25)),
    ]


def _brush(body: Body, light: Light) -> list[Paint]:
    """A flat brush: its wood and its bristles are of one colour, darker at the tip."""
    rgb = body.albedo
    handle = [(0.12, TOOL_TOP), (0.3, -1.6), (0.26, -0.6), (-0.26, -0.6), (-0.3, -1.6), (-0.12, TOOL_TOP)]
    hair = [(-0.5, -0.1), (0.5, -0.1), (0.58, 0.9), (0.4, 1), (-0.4, 1), (-0.58, 0.9)]
    strands = [stroke([(x, 0.0), (1.12 * x, 0.94)], 0.05) for x in (-0.34, -0.12, 0.12, 0.34)]
    return [
        Paint(handle, rgb),
        Paint(stroke([(0.1 * light.side, TOOL_TOP + 0.4), (0.12 * light.side, -0.7)], 0.14), lit(rgb, 0.5)),
        Paint(stroke([(-0.14 * light.side, TOOL_TOP + 0.6), (-0.16 * light.side, -0.7)], 0.16), lit(rgb, -0.4), 0.8),
        Paint(hair, lit(rgb, -0.1)),
        Paint([(-0.55, 0.5), (0.55, 0.5), (0.58, 0.9), (0.4, 1), (-0.4, 1), (-0.58, 0.9)], lit(rgb, -0.4)),
        *(Paint(strand, lit(rgb, -0.5), 0.6) for strand in strands),
        *column(((-0.4, -0.7), (0.4, -0.7)), ((-0.5, -0.08), (0.5, -0.08)), STEEL, light),
        Paint(box(-0.47, -0.34, 0.47, -0.26), lit(STEEL, -0.5), 0.8),
    ]


def _stand(body: Body, light: Light) -> list[Paint]:
    """The top of a wooden block, with a slot from end to end."""
    rgb, half, y = body.albedo, body.detail("half", 1.5), STAND_TOP
    top = [(-half, y), (-half + 0.16, y - 0.32), (half - 0.16, y - 0.32), (half, y)]
    slot = [(-half + 0.2, y - 0.06), (-half + 0.28, y - 0.24), (half - 0.28, y - 0.24), (half - 0.2, y - 0.06)]
    return [Paint(top, lit(rgb, 0.3)), Paint(slot, lit(rgb, -0.8))]


def _stand_front(body: Body, light: Light) -> list[Paint]:
    rgb, half, y = body.albedo, body.detail("half", 1.5), STAND_TOP
    grain = [stroke([(-half + 0.1, v), (0.1, v + 0.05), (half - 0.1, v - 0.03)], 0.05) for v in (0.42, 0.66, 0.86)]
    return [
        Paint(box(-half, y, half, 1), lit(rgb, -0.12)),
        Paint(box(-half, y, half, y + 0.12), lit(rgb, 0.35)),
        *(Paint(line, lit(rgb, -0.45), 0.55) for line in grain),
        Paint(box(*_dark_end(half, light.side), 1), lit(rgb, -0.6), 0.3),
        Paint([(-half, y), (half, y), (half, y - 0.05), (-half, y - 0.05)], lit(rgb, -0.6), 0.7),
    ]


def _dark_end(half: float, side: float) -> tuple[float, float, float]:
    """Left, top and right of a block's end away from the light."""
    inner = -side * (half - 0.2)
    return min(inner, -side * half), STAND_TOP, max(inner, -side * half)


def _stand_outline(body: Body) -> Polygon:
    half = body.detail("half", 1.5)
    return box(-half, STAND_TOP, half, 1)


BOTTLE: Polygon = [(0.3, BOTTLE_TOP), (0.3, -1.2), (0.62, -0.55), (0.66, 0.9), (0.56, 1), (-0.56, 1), (-0.66, 0.9)]
BOTTLE += [(-0.62, -0.55), (-0.3, -1.2), (-0.3, BOTTLE_TOP)]


def _bottle(body: Body, light: Light) -> list[Paint]:
    rgb, side = body.albedo, light.side
    label = [(-0.65, -0.12), *arc(0, -0.12, 0.65, 0.07, 180, 0, 9), (0.65, 0.5), *arc(0, 0.5, 0.65, 0.07, 0, 180, 9)]
    return [
        Paint(BOTTLE, rgb),
        *column(((-0.3, BOTTLE_TOP), (0.3, BOTTLE_TOP)), ((-0.3, -1.2), (0.3, -1.2)), rgb, light),
        *column(((-0.3, -1.2), (0.3, -1.2)), ((-0.63, -0.5), (0.63, -0.5)), rgb, light),
        *column(((-0.63, -0.5), (0.63, -0.5)), ((-0.62, 0.96), (0.62, 0.96)), rgb, light),
        Paint(label, (244, 238, 220), 0.85),
        Paint(box(-0.4, 0.1, 0.4, 0.22), lit(rgb, -0.2), 0.9),
        Paint(box(-0.28, 0.34, 0.28, 0.42), lit(rgb, -0.2), 0.7),
        Paint(rounded(-0.36, BOTTLE_TOP - 0.02, 0.36, BOTTLE_TOP + 0.34, 0.1), lit(rgb, -0.55)),
        Paint(box(-0.3, BOTTLE_TOP + 0.05, 0.3, BOTTLE_TOP + 0.12), lit(rgb, 0.2), 0.7),
        Paint([(0.3 * side, -0.9), (0.44 * side, -0.6), (0.46 * side, 0.8), (0.36 * side, 0.8)], (255, 255, 255), 0.4),
    ]


PLATE: Polygon = [(-2.0, PLATE_TOP), (2.0, PLATE_TOP), (1.9, 0.55), (0.95, 0.95), (0.9, 1), (-0.9, 1), (-0.95, 0.95)]
PLATE += [(-1.9, 0.55)]


def _plate(body: Body, light: Light) -> list[Paint]:
    rgb = body.albedo
    return [
        Paint(PLATE, lit(rgb, -0.42)),
        Paint([(-1.96, PLATE_TOP), (1.96, PLATE_TOP), (1.86, 0.52), (0.95, 0.8), (-0.95, 0.8), (-1.86, 0.52)], rgb),
        Paint(ellipse(0, PLATE_TOP, 2.0, 0.3), lit(rgb, 0.2)),
        Paint(ellipse(0, PLATE_TOP + 0.02, 1.45, 0.19), lit(rgb, -0.2)),
        Paint(ellipse(0, PLATE_TOP + 0.04, 1.36, 0.16), lit(rgb, 0.08)),
        Paint(arc(0, PLATE_TOP, 1.9, 0.27, 200, 340), lit(rgb, 0.45), 0.5),
    ]


def _mug(body: Body, light: Light) -> list[Paint]:
    """Its handle is turned to the viewer, so that fingers have room on both sides."""
    rgb, x = body.albedo, 0.26 * light.side
    wall = [(-0.9, -0.86), (0.9, -0.86), (0.86, 0.86), *arc(0, 0.86, 0.86, 0.13, 0, 180, 9)]
    ring = arc(x, -0.02, 0.3, 0.46, 0, 360, 25)
    return [
        Paint(wall, lit(rgb, -0.2)),
        *column(((-0.9, -0.86), (0.9, -0.86)), ((-0.86, 0.92), (0.86, 0.92)), rgb, light),
        Paint(stroke([(px - 0.1 * light.side, py + 0.08) for px, py in ring], 0.26), lit(rgb, -0.75), 0.45),
        Paint(ellipse(x, -0.02, 0.26, 0.42), lit(rgb, -0.5), 0.75),
        Paint(stroke(ring, 0.22), lit(rgb, 0.08)),
        Paint(stroke(arc(x, -0.02, 0.33, 0.49, 200, 340, 11), 0.08), lit(rgb, 0.6)),
        Paint(ellipse(0, -0.86, 0.9, 0.15), lit(rgb, 0.36)),
        Paint(ellipse(0, -0.85, 0.76, 0.1), lit(rgb, -0.62)),
    ]


def _tool(nouns: tuple[str, ...], outline: Polygon, paint: Callable[[Body, Light], list[Paint]]) -> Kind:
    """What stands in the block, and so overlaps it."""
    return Kind(nouns=nouns, outline=same(outline), paint=paint, group="tool", see_through=True, solid=False)


TOOLS: dict[str, Kind] = {
    "spoon": _tool(("spoon",), SPOON, _spoon),
    "fork": _tool(("fork",), FORK, _fork),
    "screwdriver": _tool(("screwdriver",), SCREWDRIVER, _screwdriver),
    "brush": _tool(("brush", "paintbrush"), BRUSH, _brush),
    "stand": Kind(nouns=("stand", "block"), outline=_stand_outline, paint=_stand, front=_stand_front),
    "bottle": Kind(nouns=("bottle",), outline=same(BOTTLE), paint=_bottle, group="vessel"),
    "coffee_mug": Kind(
        nouns=("mug", "coffee mug"),
        outline=same([(-0.9, -1.0), (0.9, -1.0), (0.86, 1.0), (-0.86, 1.0)]),
        paint=_mug,
        group="vessel",
    ),
    "plate": Kind(nouns=("plate", "dish"), outline=same(PLATE), paint=_plate),
}
