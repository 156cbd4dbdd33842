"""Colours as the eye compares them: CIE L*a*b* under D65, and the distance ΔE (CIE 1976)."""

from __future__ import annotations

import numpy as np

# linear sRGB → XYZ, each row divided by the D65 white point (IEC 61966-2-1)
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_TO_XYZ /= _TO_XYZ.sum(axis=1, keepdims=True)
_LEVELS = np.arange(256) / 255.0
_LINEAR = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)
_TO_XYZ = _TO_XYZ.astype(np.float32)


def srgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """uint8 sRGB `... 3` → L*a*b* as float32 `... 3`: L* in [0, 100], a* and b* about [-110, 110] (CIE 15).

    Raises ValueError for another dtype or last axis.
    """
    if pixels.dtype != np.uint8 or pixels.shape[-1] != 3:
        raise ValueError(f"pixels are {pixels.shape} of {pixels.dtype}; give ... 3 of uint8")
    xyz = _LINEAR[pixels] @ _TO_XYZ.T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
    return lab.astype(np.float32)


def delta_e(lab_a: np.ndarray, lab_b: np.ndarray) -> np.ndarray:
    """ΔE*ab between two L*a*b* arrays `... 3` that broadcast: `...`; about 2 is just noticeable (CIE 1976)."""
    difference = lab_a - lab_b
    return np.sqrt(np.einsum("...c,...c->...", difference, difference))


def psnr_db(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """PSNR in dB of uint8 pictures `H W 3` over the pixels `where` (bool H W); at most 99, which equal ones get."""
    if not where.any():
        return 99.0
    mse = float(((a[where].astype(np.float64) - b[where]) ** 2).mean())
    return 99.0 if mse == 0 else min(99.0, 10 * float(np.log10(255**2 / mse)))
