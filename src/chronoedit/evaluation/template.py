"""Where a drawn thing is in a picture: its own pixels, and a ring in which it must end, shifted until they fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .colour import delta_e
from .morphology import dilate

CAP_DE = 40.0  # a pixel that is further off than this is as wrong as can be
STEPS = 8  # of the first search, from the middle to its reach
SEARCHED_PX = 500  # of the thing and of its ring, at most
LAZINESS = 1.0  # ΔE by which a place at the edge of the search must fit better than the middle


@dataclass(frozen=True, eq=False)
class Template:
    """A thing as it is drawn: `look` (H W 3, L*a*b*) where `mask` is, and `behind` (H W 3): the picture without it.

    `beyond_de` is how wrong its pixels are that leave the picture.
    """

    look: np.ndarray
    mask: np.ndarray
    behind: np.ndarray
    beyond_de: float = CAP_DE

    def ring(self, width_px: int) -> np.ndarray:
        """The pixels just outside, bool H W."""
        return dilate(self.mask, width_px) & ~self.mask

    def find(self, lab: np.ndarray, reach_px: float, ring_px: int) -> tuple[int, int]:
        """The shift (dx, dy) in px, within `reach_px`, at which the picture shows the thing best: coarse to fine.

        In the ring the picture must be what lies behind the thing at that place, so that a larger area of the same
        colour is no place for it.
        """
        inner, outer = _some(self.mask), _some(self.ring(ring_px))
        step, best = max(1, round(reach_px / STEPS)), (0, 0)
        around = [(dx * step, dy * step) for dy in range(-STEPS, STEPS + 1) for dx in range(-STEPS, STEPS + 1)]
        around = [(dx, dy) for dx, dy in around if dx * dx + dy * dy <= (reach_px + step) ** 2]
        while True:
            costs = self._costs(lab, inner, outer, np.array(around))
            costs = costs + LAZINESS * np.hypot(*np.array(around).T) / reach_px
            best = around[int(costs.argmin())]
            if step == 1:
                return best
            step = max(1, step // 2)
            around = [
                (best[0] + dx * step, best[1] + dy * step) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2)
            ]

    def _costs(self, lab: np.ndarray, inner: np.ndarray, outer: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Mean capped ΔE at each shift (n 2): over the thing's pixels and its ring's, each as heavy as it is large."""
        seen, there = _at(lab, inner, shifts)
        off = np.minimum(delta_e(seen, self.look[inner[:, 1], inner[:, 0]]), CAP_DE)
        inside = np.where(there, off, self.beyond_de)
        seen, there = _at(lab, outer, shifts)
        behind, _ = _at(self.behind, outer, shifts)
        outside = np.where(there, np.minimum(delta_e(seen, behind), CAP_DE), 0.0)
        return inside.mean(axis=1) + outside.mean(axis=1) / 2

    def shifted(self, dx: int, dy: int) -> Template:
        """The thing elsewhere, before what lies behind it there; what leaves the picture is lost."""
        mask = shifted(self.mask, dx, dy)
        return Template(np.where(mask[..., None], shifted(self.look, dx, dy), self.behind), mask, self.behind)


def _some(mask: np.ndarray) -> np.ndarray:
    """Points (x, y) of a mask, evenly thinned: n 2."""
    ys, xs = np.nonzero(mask)
    step = max(1, len(xs) // SEARCHED_PX + 1)
    return np.stack([xs[::step], ys[::step]], axis=1)


def _at(lab: np.ndarray, points: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours at the shifted points (shifts n 3), and which of them lie in the picture (shifts n)."""
    height, width = lab.shape[:2]
    x, y = (shifts[:, None, axis] + points[None, :, axis] for axis in (0, 1))
    there = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return lab[y.clip(0, height - 1), x.clip(0, width - 1)], there


def shifted(values: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """An array H W … moved by whole px; zeros come in."""
    out = np.zeros_like(values)
    height, width = values.shape[:2]
    if abs(dx) >= width or abs(dy) >= height:
        return out
    to_y, to_x = slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx))
    from_y, from_x = slice(max(0, -dy), height + min(0, -dy)), slice(max(0, -dx), width + min(0, -dx))
    out[to_y, to_x] = values[from_y, from_x]
    return out


def softer(picture: np.ndarray, steps: int) -> list[np.ndarray]:
    """The picture (H W 3) after each of so many steps of a blur whose variance is half a px² a step."""
    softened = []
    for _ in range(steps):
        for axis in (0, 1):
            before, after = (np.roll(picture, by, axis) for by in (1, -1))
            edges: list[slice | int] = [slice(None)] * 3
            for edge, moved in ((0, before), (-1, after)):
                edges[axis] = edge
                moved[tuple(edges)] = picture[tuple(edges)]
            picture = (before + 2 * picture + after) / 4
        softened.append(picture)
    return softened
