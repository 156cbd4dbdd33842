"""How far pictures decoded in bf16 are from those decoded in fp32, by the autoencoder on pictures of the world."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from chronoedit.editing.coding import Coding
from chronoedit.editing.loading import load
from chronoedit.evaluation.statistics import bootstrap_mean
from chronoedit.world import FIRST_EVALUATION_SEED, sample_item
from pages import measured_by, table, update


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many pictures, of which model; `update` is a page with a part `decoder in bf16`."""

    items: int = 48
    model: str = "tiny"
    update: Path | None = None


def decoded(options: Options, dtype: torch.dtype) -> np.ndarray:
    """The reconstructed pictures, n h w 3 in 0 to 255, with a decoder of this type."""
    editor = load(options.model, device="cpu", coding=Coding(decode_dtype=dtype))
    items = [sample_item(FIRST_EVALUATION_SEED + k) for k in range(options.items)]
    return np.stack([np.asarray(editor.reconstruct(Image.fromarray(item.target)), float) for item in items])


def psnr_db(a: np.ndarray, b: np.ndarray) -> list[float]:
    """Of each picture; equal ones count as if one value were off by one, so that a mean can be had."""
    errors = np.maximum(((a - b) ** 2).mean(axis=(1, 2, 3)), 1 / a[0].size)
    return [10 * math.log10(255**2 / error) for error in errors]


def main(options: Options) -> None:
    """Print the figures, and write them into the page."""
    exact, coarse = decoded(options, torch.float32), decoded(options, torch.bfloat16)
    truth = np.stack([sample_item(FIRST_EVALUATION_SEED + k).target for k in range(options.items)]).astype(float)
    between = psnr_db(exact, coarse)
    lost = [one - other for one, other in zip(psnr_db(exact, truth), psnr_db(coarse, truth), strict=True)]
    rows = [
        ("PSNR of bf16 against fp32", f"{bootstrap_mean(between).mean:.1f} dB", f"{min(between):.1f} dB"),
        ("lost of what is reconstructed", f"{bootstrap_mean(lost).mean:.3f} dB", f"{max(lost):.3f} dB"),
        ("largest difference of a value", "", f"{np.abs(exact - coarse).max():.0f} of 255"),
    ]
    facts = f"Pictures: {options.items} of the world, rounded to 8 bits"
    text = f"{measured_by(facts)}\n{table(('', 'mean', 'worst picture'), rows)}\n"
    if options.update:
        update(options.update, text, "decoder in bf16")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
