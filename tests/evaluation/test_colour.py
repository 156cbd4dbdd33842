"""L*a*b*, ΔE and the operations on masks, against values that are known."""

from __future__ import annotations

import numpy as np
import pytest

from chronoedit.evaluation.colour import delta_e, psnr_db, srgb_to_lab
from chronoedit.evaluation.morphology import components, dilate, erode, iou, opened


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((128, 128, 128), (53.59, 0.0, 0.0)),
    ],
)
def test_lab_of_known_colours(colour: tuple[int, int, int], expected: tuple[float, float, float]) -> None:
    assert np.allclose(srgb_to_lab(np.array(colour, np.uint8)), expected, atol=0.02)


def test_delta_e_broadcasts() -> None:
    picture = np.zeros((4, 5, 3), np.uint8)
    distance = delta_e(srgb_to_lab(picture), srgb_to_lab(np.full(3, 255, np.uint8)))
    assert distance.shape == (4, 5) and np.allclose(distance, 100, atol=0.01)


def test_lab_refuses_floats() -> None:
    with pytest.raises(ValueError, match="give ... 3 of uint8"):
        srgb_to_lab(np.zeros((2, 2, 3)))


def test_psnr() -> None:
    a, b = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    everywhere, nowhere = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    assert psnr_db(a, b, everywhere) == 0 and psnr_db(a, a, everywhere) == 99 and psnr_db(a, b, nowhere) == 99
    assert psnr_db(a, np.full_like(a, 1), everywhere) == pytest.approx(48.13, abs=0.01)


def square(y: int, x: int, side: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_dilate_erode_and_open() -> None:
    mask = square(8, 8, 3)
    assert np.array_equal(dilate(mask, 2), square(6, 6, 7))
    assert np.array_equal(erode(dilate(mask, 2), 2), mask)
    line = mask.copy()
    line[9, :] = True
    assert np.array_equal(opened(line, 1), mask)


def test_components_are_found_and_sorted() -> None:
    mask = square(0, 0, 2) | square(10, 10, 4) | square(14, 14, 1)  # the last touches the second at a corner
    pieces = components(mask)
    assert [int(piece.sum()) for piece in pieces] == [17, 4]
    assert components(np.zeros((5, 5), bool)) == []


def test_components_join_arms_of_a_u_and_a_spiral() -> None:
    u = np.zeros((9, 9), bool)
    u[:, 0] = u[:, 8] = u[8, :] = True
    assert len(components(u)) == 1
    comb = u.copy()
    comb[:, 4] = True
    comb[8, :] = False
    assert len(components(comb)) == 3


def test_components_agree_with_a_flood_fill() -> None:
    mask = np.random.default_rng(0).uniform(size=(24, 24)) < 0.4
    left, sizes = mask.copy(), []
    while left.any():
        grown = np.zeros_like(left)
        grown[tuple(np.argwhere(left)[0])] = True
        while (wider := dilate(grown, 1) & mask).sum() > grown.sum():
            grown = wider
        sizes.append(int(grown.sum()))
        left &= ~grown
    assert sorted(sizes, reverse=True) == [int(piece.sum()) for piece in components(mask)]


def test_iou() -> None:
    assert iou(square(0, 0, 4), square(0, 2, 4)) == pytest.approx(1 / 3)
    assert iou(square(0, 0, 0), square(0, 0, 0)) == 1
