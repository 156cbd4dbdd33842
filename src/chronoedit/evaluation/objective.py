"""Scores without a model: what an edit does to the picture around it, and how near it comes to a reference.

The edited region is where the reference differs from the input. Where a case has no reference it is where the edited
picture does, and then "outside" holds only what changed too little to count as an edit: such figures flatter, and
`region_from` tells them apart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from .colour import delta_e, psnr_db, srgb_to_lab
from .embedding import Embedder, cosine_distance
from .morphology import dilate

CHANGED_DE = 6.0
MIN_OUTSIDE_SHARE = 0.01
WINDOW_SIGMA_PX = 1.5
WINDOW_RADIUS_PX = 5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Scores of one edited picture, brought to the input's size.

    `outside_*` compare it with the input outside the edited region, and are None when that is under 1 % of the picture;
    `region_share` is the region's share, `region_from` "reference" or "edited". `reference_*` compare it with the
    reference, over all pixels. The embedding distances are to the input and to the reference, from 0 to 2, by the
    network that `embedding` names. What cannot be had is None.
    """

    region_from: str
    region_share: float
    outside_psnr_db: float | None
    outside_ssim: float | None
    outside_delta_e: float | None
    reference_psnr_db: float | None = None
    reference_ssim: float | None = None
    reference_delta_e: float | None = None
    embedding_distance: float | None = None
    reference_embedding_distance: float | None = None
    embedding: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


MEASURES = {
    "outside_psnr_db": "PSNR outside the edit, dB",
    "outside_ssim": "SSIM outside the edit",
    "outside_delta_e": "ΔE outside the edit",
    "region_share": "share of the picture that is edited",
    "reference_psnr_db": "PSNR to the reference, dB",
    "reference_ssim": "SSIM to the reference",
    "reference_delta_e": "ΔE to the reference",
    "embedding_distance": "embedding distance to the input",
    "reference_embedding_distance": "embedding distance to the reference",
}
"""The numbers of an `Objective`, with how they are shown."""


def objective(
    before: Image.Image, edited: Image.Image, reference: Image.Image | None = None, embedder: Embedder | None = None
) -> Objective:
    """The scores of `edited`, made from `before`; other sizes than that of `before` are brought to it (Lanczos)."""
    size = before.size
    a, b = _pixels(before, size), _pixels(edited, size)
    truth = None if reference is None else _pixels(reference, size)
    lab_a, lab_b = srgb_to_lab(a), srgb_to_lab(b)
    lab_truth = None if truth is None else srgb_to_lab(truth)
    region = changed_region(delta_e(lab_a, lab_b if lab_truth is None else lab_truth))
    outside = ~region
    seen = outside.mean() >= MIN_OUTSIDE_SHARE
    scores: dict[str, float | None] = {}
    if truth is not None and lab_truth is not None:
        scores["reference_psnr_db"] = psnr_db(b, truth, np.ones(region.shape, dtype=bool))
        scores["reference_ssim"] = float(ssim_map(_luma(b), _luma(truth)).mean())
        scores["reference_delta_e"] = float(delta_e(lab_b, lab_truth).mean())
    if embedder is not None:
        scores |= _embedding_distances(before, edited, reference, embedder)
    return Objective(
        region_from="edited" if reference is None else "reference",
        region_share=float(region.mean()),
        outside_psnr_db=psnr_db(a, b, outside) if seen else None,
        outside_ssim=_ssim_outside(a, b, region),
        outside_delta_e=float(delta_e(lab_a, lab_b)[outside].mean()) if seen else None,
        embedding=None if embedder is None else embedder.name,
        **scores,
    )


def changed_region(difference: np.ndarray) -> np.ndarray:
    """Where a picture was edited, from its ΔE against the input at each pixel, `H W`: bool `H W`.

    Where the mean over a small window (a 64th of the shortest side) is above 6, grown by a 50th of that side, so that
    soft rims and shadows belong to the edit, and noise and compression do not.
    """
    side = min(difference.shape)
    changed = box_mean(difference, max(1, round(side / 128))) > CHANGED_DE
    return dilate(changed, max(1, round(side / 50))) if changed.any() else changed


def box_mean(values: np.ndarray, radius: int) -> np.ndarray:
    """The mean over a square of half width `radius` around each place of `H W`, which is mirrored at its border."""
    width = 2 * radius + 1
    padded = np.pad(values.astype(np.float64), radius, mode="symmetric")
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    square = sums[width:, width:] - sums[:-width, width:] - sums[width:, :-width] + sums[:-width, :-width]
    return square / width**2


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity at each place of two grey pictures `H W` in [0, 255]: float64 `H W` in [-1, 1].

    Wang et al. 2004: a Gaussian window of σ 1.5 over 11 px, K1 = 0.01, K2 = 0.03. The border is mirrored. Raises
    ValueError for different shapes.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"SSIM compares two grey pictures of one size; got {a.shape} and {b.shape}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = _blurred(a), _blurred(b)
    variance_a = _blurred(a * a) - mean_a**2
    variance_b = _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return likeness / ((mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2))


def _blurred(values: np.ndarray) -> np.ndarray:
    offsets = np.arange(-WINDOW_RADIUS_PX, WINDOW_RADIUS_PX + 1)
    weights = np.exp(-(offsets**2) / (2 * WINDOW_SIGMA_PX**2))
    weights /= weights.sum()
    height, width = values.shape
    padded = np.pad(values, WINDOW_RADIUS_PX, mode="symmetric")
    rows = sum(weight * padded[k : k + height] for k, weight in enumerate(weights))
    return sum(weight * rows[:, k : k + width] for k, weight in enumerate(weights))


def _ssim_outside(a: np.ndarray, b: np.ndarray, region: np.ndarray) -> float | None:
    """The mean over places whose whole window lies outside the region; None where those are under 1 %."""
    clear = ~dilate(region, WINDOW_RADIUS_PX)
    return float(ssim_map(_luma(a), _luma(b))[clear].mean()) if clear.mean() >= MIN_OUTSIDE_SHARE else None


def _luma(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array(LUMA)


def _pixels(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """uint8 H W 3."""
    image = image.convert("RGB")
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS))


def _embedding_distances(
    before: Image.Image, edited: Image.Image, reference: Image.Image | None, embedder: Embedder
) -> dict[str, float | None]:
    of_edited = embedder.embed(edited)
    to_reference = None if reference is None else cosine_distance(of_edited, embedder.embed(reference))
    return {
        "embedding_distance": cosine_distance(of_edited, embedder.embed(before)),
        "reference_embedding_distance": to_reference,
    }
