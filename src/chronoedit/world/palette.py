"""The colours that things have, by the names that instructions use, and how light changes a colour."""

from __future__ import annotations

import colorsys

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (208, 44, 44),
    "orange": (240, 138, 28),
    "yellow": (246, 218, 62),
    "green": (44, 152, 72),
    "blue": (44, 98, 206),
    "purple": (126, 60, 164),
    "pink": (244, 142, 186),
}
# not among those that the first families draw their bodies in
MORE_COLOURS: dict[str, RGB] = {
    "black": (46, 46, 54),
    "white": (238, 236, 230),
    "grey": (142, 146, 152),
    "silver": (188, 196, 206),
    "brown": (132, 84, 52),
    "beige": (222, 198, 160),
    "turquoise": (52, 176, 178),
    "navy": (38, 52, 104),
}
ALBEDO: dict[str, RGB] = {**COLOURS, **MORE_COLOURS}

SUNLIT, SHADE = (255, 248, 226), (44, 36, 84)  # what a colour goes towards in light, and in shadow


def mixed(a: RGB, b: RGB, share: float) -> RGB:
    """`a` with `share` in [0, 1] of `b`."""
    r, g, bl = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return r, g, bl


def lit(rgb: RGB, amount: float) -> RGB:
    """The colour in more light (`amount` up to 1) or in shadow (down to -1): warm light, cool shadow."""
    if amount >= 0:
        return mixed(rgb, SUNLIT, amount)
    r, g, b = (round(c * (1 + 0.6 * amount)) for c in rgb)
    return mixed((r, g, b), SHADE, -0.3 * amount)


def turned_hue(rgb: RGB, share: float) -> RGB:
    """The colour with its hue turned by `share` of the circle; what has no hue gets one."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in rgb))
    r, g, b = colorsys.hsv_to_rgb((h + share) % 1, max(s, 0.75), min(max(v, 0.35), 0.9))
    return round(255 * r), round(255 * g), round(255 * b)
