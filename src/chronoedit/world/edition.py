"""Which world a seed draws: the one switch between the flat world and the drawn one.

The embedded model knows the world that it was trained on. Whoever trains another on drawn scenes sets `DRAWN`, and
every seed without a family then draws from all families, shaded; the first three families alone, and flat, otherwise.
"""

from __future__ import annotations

DRAWN = False

# how often a seed draws each family, relative to the others
FLAT_MIX: dict[str, float] = {"table": 0.45, "falling": 0.2, "any": 0.35}
DRAWN_MIX: dict[str, float] = {
    "table": 0.45,
    "falling": 0.2,
    "any": 0.35,
    "street": 0.25,
    "portrait": 0.25,
    "kitchen": 0.25,
    "tools": 0.25,
    "toppling": 0.25,
    "resizing": 0.1,
}
MIX = DRAWN_MIX if DRAWN else FLAT_MIX
