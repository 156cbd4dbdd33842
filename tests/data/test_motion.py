"""The measures of motion, on pictures of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chronoedit.data import motion

from .scenery import MARGIN, backdrop, film, real_video


def small(pixels: np.ndarray) -> np.ndarray:
    size = motion.small_size(pixels.shape[1], pixels.shape[0])
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def softened(pixels: np.ndarray, radius_px: float, grain: float) -> np.ndarray:
    soft = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius_px)))
    return (soft + np.random.default_rng(0).normal(0, grain, soft.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("given", "expected"),
    [((1920, 1080), (160, 90)), ((720, 1280), (90, 160)), ((176, 144), (160, 130)), ((4000, 20), (160, 20))],
)
def test_small_sizes_are_whole_blocks(given: tuple[int, int], expected: tuple[int, int]) -> None:
    assert motion.small_size(*given) == expected


def test_blocks_of_a_still_picture_are_still_whatever_its_brightness() -> None:
    picture = motion.grey(small(backdrop(0)))
    found = motion.match(picture, picture * 0.95 + 12)
    assert found.detailed > 50 and found.still > 0.98 and found.lost == 0


@pytest.mark.parametrize("step", [(0, 1), (2, 0), (-3, 2)])
def test_a_camera_that_moves_moves_the_blocks(step: tuple[int, int]) -> None:
    picture = motion.grey(small(backdrop(1)))
    found = motion.match(picture, np.roll(picture, step, axis=(0, 1)))
    assert found.moved > 0.9


def test_another_picture_loses_the_blocks() -> None:
    first, other = (motion.grey(small(backdrop(seed))) for seed in (2, 3))
    assert motion.match(first, other).lost > 0.6
    plain = np.full_like(first, 90)
    assert motion.match(plain, first) == motion.Match(0, 0.0, 0.0, 0.0)


def test_change_is_the_share_that_a_square_leaves_and_takes() -> None:
    first, last = film(2, moves_px=60, side_px=30)
    assert motion.changed_share(small(first), small(last)) == pytest.approx(2 * 30 * 30 / (240 * 136), rel=0.3)
    same, again = film(2, moves_px=0)
    assert motion.changed_share(small(same), small(again)) == 0


def test_a_drift_of_half_a_small_pixel_changes_next_to_nothing() -> None:
    wide = backdrop(4)
    assert motion.changed_share(small(wide[:, :-MARGIN]), small(wide[:, 1 : 1 - MARGIN])) < 0.02
    assert motion.changed_share(small(wide[:, :-MARGIN]), small(wide[:, MARGIN:])) > 0.5


def test_light_counts_only_where_it_changes_as_a_whole() -> None:
    first, last = film(2, side_px=80, moves_px=100)
    assert motion.light_change(small(first), small(last)) < 2
    assert motion.light_change(small(first), small((first * 0.8).astype(np.uint8))) > 10


@pytest.mark.parametrize("grain", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_blur_grows_with_the_radius_in_spite_of_grain(seed: int, grain: float) -> None:
    sharp, slight, strong = (motion.blur(softened(backdrop(seed), radius_px, grain)) for radius_px in (0, 1, 3))
    assert sharp < slight < strong and sharp < 0.3 < strong
    assert motion.blur(np.full((40, 60, 3), 128, np.uint8)) == 1.0


def test_a_real_frame_is_told_from_its_blurred_copy() -> None:
    from chronoedit.media import read_video

    frame = read_video(real_video("bikes.mp4"))[200]
    assert motion.blur(frame) < 0.4
    assert motion.blur(softened(frame, 2, 0)) > 0.55


def test_hashes_survive_noise_and_tell_pictures_apart() -> None:
    def bits(a: bytes, b: bytes) -> int:
        return sum(bin(x ^ y).count("1") for x, y in zip(a, b, strict=True))

    hashes = [motion.perceptual_hash(motion.grey(small(backdrop(seed)))) for seed in range(6)]
    noisy = motion.perceptual_hash(motion.grey(small(softened(backdrop(0), 1, 4))))
    assert len(noisy) == 8 and bits(hashes[0], noisy) <= 8
    assert min(bits(hashes[0], other) for other in hashes[1:]) > 16
