"""What moves in a span of video: measures of small frames, and the sharpness of large ones. Pure functions on arrays.

Small frames are uint8 h w 3, their sides multiples of BLOCK_PX; greys are float32 h w in [0, 255].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

SMALL_SIDE_PX = 160
BLOCK_PX = 10
CELL_PX = 5
SEARCH_PX = 3
TEXTURE = 2.0  # mean distance of a block's greys from their mean, above which it has something to follow
NOISE = 1.5  # mean difference of greys that compression alone makes
CHANGED = 16.0  # mean difference of a cell's colours above which one sees it
DRIFT_PX = 0.75  # of the small frame, by which a camera at rest may drift
REBLUR_PX = 11
EDGE = 6.0  # difference of neighbouring greys that film grain does not reach
HASH_SIDE = 8
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def small_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which a picture is measured."""
    scale = SMALL_SIDE_PX / max(width, height)
    blocks = [max(2, round(side * scale / BLOCK_PX)) for side in (width, height)]
    return blocks[0] * BLOCK_PX, blocks[1] * BLOCK_PX


def grey(pixels: np.ndarray) -> np.ndarray:
    """The luma of RGB pixels."""
    return pixels.astype(np.float32) @ _GREY


def _blocks(values: np.ndarray, side_px: int = BLOCK_PX) -> np.ndarray:
    """Values h w as blocks: rows, columns, pixels of the block."""
    h, w = values.shape
    split = values.reshape(h // side_px, side_px, w // side_px, side_px)
    return split.swapaxes(1, 2).reshape(h // side_px, w // side_px, -1)


def _details(values: np.ndarray) -> np.ndarray:
    blocks = _blocks(values)
    return blocks - blocks.mean(2, keepdims=True)


@dataclass(frozen=True)
class Match:
    """How the blocks of one frame are found in another: how many have detail, and the shares of what became of those.

    `still` are where they were, `moved` are elsewhere, and `lost` are nowhere within SEARCH_PX.
    """

    detailed: int
    still: float
    moved: float
    lost: float


def match(before: np.ndarray, after: np.ndarray) -> Match:
    """Search the blocks of one grey frame in another; a change of brightness is no difference.

    The shares are 0 where no block has detail.
    """
    details = _details(before)
    texture = np.abs(details).mean(2)
    detailed = texture > TEXTURE
    if not detailed.any():
        return Match(0, 0.0, 0.0, 0.0)
    h, w = before.shape
    padded = np.pad(after, SEARCH_PX, mode="edge")
    places = [(y, x) for y in range(2 * SEARCH_PX + 1) for x in range(2 * SEARCH_PX + 1)]
    costs = np.stack([np.abs(details - _details(padded[y : y + h, x : x + w])).mean(2) for y, x in places])
    here, best = costs[len(places) // 2], costs.min(0)
    found_elsewhere = (here > NOISE) & (best < 0.8 * here)
    still = (here <= np.maximum(NOISE, 0.5 * texture)) & ~found_elsewhere
    lost = ~still & (best > np.maximum(2 * NOISE, 0.6 * texture))
    shares = [float(each[detailed].mean()) for each in (still, ~still & ~lost, lost)]
    return Match(int(detailed.sum()), *shares)


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """Mean absolute difference of two small frames, in [0, 255]."""
    return float(np.abs(before.astype(np.int16) - after).mean())


def changed_share(before: np.ndarray, after: np.ndarray) -> float:
    """The share of the picture, 0 to 1, in which one sees another colour; a slight drift of the camera is no change."""
    colours = np.abs(before.astype(np.int16) - after).max(2).astype(np.float32)
    steepness = np.minimum(_steepness(before), _steepness(after))  # both have the edges that a drift shows at
    return float((_blocks(colours, CELL_PX).mean(2) > CHANGED + DRIFT_PX * steepness).mean())


def _steepness(small: np.ndarray) -> np.ndarray:
    """Mean difference of neighbouring pixels, by cell."""
    values = small.astype(np.float32)
    down = np.abs(np.diff(values, axis=0, append=values[-1:])).max(2)
    right = np.abs(np.diff(values, axis=1, append=values[:, -1:])).max(2)
    return _blocks(down + right, CELL_PX).mean(2)


def light_change(before: np.ndarray, after: np.ndarray) -> float:
    """By how much the greys of three in four blocks differ at least: large where the light of the whole changes."""
    return float(np.quantile(np.abs(_blocks(grey(after) - grey(before)).mean(2)), 0.25))


def contrast(small: np.ndarray) -> float:
    """Standard deviation of the greys: near 0 for black, white and plain frames."""
    return float(grey(small).std())


def blur(pixels: np.ndarray) -> float:
    """How blurred a picture is, 0 (sharp) to 1: the share of its edges that another blur leaves as they are.

    After Crete et al. 2007, "The blur effect"; only edges above EDGE count here, or grain would pass for sharpness.
    The direction in which the picture is more blurred decides.
    """
    values = grey(pixels)
    return max(_blur_along(values), _blur_along(values.T))


def _blur_along(values: np.ndarray) -> float:
    reach = REBLUR_PX // 2
    padded = np.pad(values, ((reach + 1, reach), (0, 0)), mode="edge").astype(np.float64)
    sums = padded.cumsum(0)
    again = ((sums[REBLUR_PX:] - sums[:-REBLUR_PX]) / REBLUR_PX).astype(np.float32)
    edges, left = (np.abs(np.diff(each, axis=0)) for each in (values, again))
    counted = edges > EDGE
    if not counted.any():
        return 1.0
    return 1.0 - float(np.maximum(0, edges - left)[counted].sum() / edges[counted].sum())


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    side = 4 * HASH_SIDE
    return np.cos(np.pi / side * np.outer(np.arange(HASH_SIDE + 1), np.arange(side) + 0.5)).astype(np.float32)


def perceptual_hash(values: np.ndarray) -> bytes:
    """64 bits of a grey picture or a signed difference: which of its low frequencies are above their median."""
    side = 4 * HASH_SIDE
    reduced = np.asarray(Image.fromarray(values.astype(np.float32)).resize((side, side), Image.Resampling.BOX))
    frequencies = (_cosines() @ reduced @ _cosines().T)[1:, 1:]
    return np.packbits(frequencies > np.median(frequencies)).tobytes()
