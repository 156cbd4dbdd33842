"""The scorer on what it must accept (truth, as an autoencoder shows it) and refuse (spoiled targets, copies)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chronoedit.evaluation.physics import Score, score, trajectory_error
from chronoedit.evaluation.spoil import SPOILINGS, spoiled
from chronoedit.world import FIRST_EVALUATION_SEED, Item, sample_item
from chronoedit.world.render import render
from chronoedit.world.state import State


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def noisy(pixels: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Through JPEG; with colour at its full size, since a lamp of a traffic light is only 9 px across."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=quality, subsampling=0)
    return np.asarray(Image.open(buffer))


DEGRADATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda pixels: pixels,
    "blur 0.7": lambda pixels: blurred(pixels, 0.7),
    "blur 1": lambda pixels: blurred(pixels, 1.0),
    "noise 4": lambda pixels: noisy(pixels, 4.0),
    "jpeg 60": lambda pixels: compressed(pixels, 60),
    "paler": lambda pixels: np.clip(pixels * 0.92 + 12, 0, 255).astype(np.uint8),
    "all": lambda pixels: compressed(noisy(blurred(pixels, 0.8), 3.0), 75),
}


@pytest.fixture(scope="module")
def items(property_seeds: range) -> list[Item]:
    return [sample_item(FIRST_EVALUATION_SEED + seed) for seed in property_seeds]


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_truth_passes_as_an_autoencoder_shows_it(items: list[Item], degradation: str) -> None:
    scores = {item.seed: score(item, DEGRADATIONS[degradation](item.target)) for item in items}
    failed = {
        seed: [name for name, held in s.checks.items() if not held] for seed, s in scores.items() if not s.success
    }
    assert len(failed) <= 0.02 * len(items), failed


@pytest.mark.parametrize("how", SPOILINGS)
def test_spoiled_targets_fail(items: list[Item], how: str) -> None:
    pictures = {item.seed: (item, picture) for item in items if (picture := spoiled(item, how)) is not None}
    assert len(pictures) > 0.8 * len(items)  # a full scene has no room for another thing
    passed = [seed for seed, (item, picture) in pictures.items() if score(item, picture).success]
    assert len(passed) <= 0.02 * len(pictures), passed


def test_copying_the_input_never_passes_an_edit(items: list[Item]) -> None:
    for item in items:
        assert score(item, item.input).success == (item.subject is None), item.seed
        assert item.subject is None or not score(item, blurred(item.input, 0.8)).success


def item_of(family: str, edit: str, seed: int = FIRST_EVALUATION_SEED) -> Item:
    return sample_item(seed, family=family, edit=edit)


def drawn(item: Item, state: State) -> Score:
    return score(item, render(state, item.size))


def arm_moved(item: Item, dx: float, dy: float) -> Score:
    assert item.end.arm is not None
    arm = replace(item.end.arm, x=item.end.arm.x + dx, y=item.end.arm.y + dy)
    return drawn(item, replace(item.end, arm=arm))


def test_measures_of_a_known_mistake() -> None:
    item = item_of("any", "add")
    body = item.end.body(item.subject or 0)
    assert body is not None
    exact = score(item, item.target)
    assert exact.success and exact.position_error == pytest.approx(0, abs=0.05)
    assert exact.change_iou == 1 and exact.outside_psnr_db == 99 and exact.outside_delta_e == 0
    off = drawn(item, item.end.with_body(replace(body, y=body.y - 0.3 * body.size)))
    assert off.position_error == pytest.approx(0.3, abs=0.05) and off.success


@pytest.mark.parametrize("edit", ["pick_up", "push"])
def test_the_arm_must_hold_or_touch(edit: str) -> None:
    item = item_of("table", edit)
    assert arm_moved(item, 0, 0).success
    assert arm_moved(item, 2, 0).success
    for dx, dy in ((10, 0), (-10, 0), (0, -14)):  # the last is about as far as from ring to ring of the arm
        moved = arm_moved(item, dx, dy)
        assert not moved.success and not moved.checks["gripped" if edit == "pick_up" else "touched"], (dx, dy)


def test_a_second_arm_and_a_missing_one_are_seen() -> None:
    item = item_of("table", "place")
    assert not drawn(item, replace(item.end, arm=None)).success
    assert item.end.arm is not None
    alone = render(replace(item.end, bodies=(), arm=replace(item.end.arm, x=128 - item.end.arm.x, y=60.0)))
    bare = render(replace(item.end, bodies=(), arm=None))
    ghost = np.where((alone != bare).any(axis=-1, keepdims=True), alone, item.target)
    assert not score(item, ghost).success


def test_hold_still_means_still() -> None:
    item = item_of("table", "hold_still")
    assert score(item, item.input).success
    moved = arm_moved(item, 6, 0)
    assert not moved.success and not moved.checks["arm"]


def test_a_released_body_must_not_hang_in_the_air() -> None:
    item = item_of("falling", "release")
    body = item.end.body(item.subject or 0)
    assert body is not None
    hanging = drawn(item, item.end.with_body(replace(body, y=body.y - 0.45 * body.size)))
    assert hanging.checks["placed"] and not hanging.checks["supported"]
    assert hanging.physics_radii["supported"] == pytest.approx(0.45, abs=0.1)


def test_a_wrong_kind_is_seen() -> None:
    for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 5):
        item = item_of("any", "add", seed)
        body = item.end.body(item.subject or 0)
        assert body is not None
        other = "cone" if body.kind != "cone" else "cube"
        wrong = drawn(item, item.end.with_body(replace(body, kind=other)))
        assert not wrong.success
        assert not (wrong.checks["kind"] and wrong.checks["present"])  # seen as the other, or as nothing that is known


def test_a_toppled_body_is_seen() -> None:
    item = next(
        item
        for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 50)
        if (item := item_of("any", "add", seed)) and item.end.bodies[-1].kind == "cup"
    )
    body = item.end.bodies[-1]
    toppled = drawn(item, item.end.with_body(replace(body, angle=np.pi / 2)))
    assert not toppled.success and toppled.angle_error is not None
    assert not toppled.checks["kind"] or toppled.angle_error == pytest.approx(np.pi / 2, abs=0.3)


def test_what_is_left_behind_is_seen() -> None:
    item = item_of("any", "remove")
    ids = item.input_ids == item.subject
    grey = item.target.copy()
    grey[ids] = (128, 128, 128)
    assert not score(item, grey).success
    half = item.target.copy()
    half[ids] = (item.target[ids] / 2 + item.input[ids] / 2).astype(np.uint8)
    assert not score(item, half).success


def test_another_picture_and_noise_fail() -> None:
    item, other = item_of("table", "place"), item_of("table", "place", FIRST_EVALUATION_SEED + 7)
    assert not score(item, other.target).success
    noise = np.random.default_rng(0).integers(0, 256, item.target.shape).astype(np.uint8)
    assert not score(item, noise).success
    black = score(item, np.zeros_like(item.target))
    assert not black.success and black.position_error is None and black.physics_radii["supported"] is None


def test_a_larger_picture_is_scored_alike() -> None:
    item = sample_item(FIRST_EVALUATION_SEED, size=256)
    assert score(item, item.target).success and not score(item, item.input).success
    picture = spoiled(item, "moved")
    assert picture is not None and not score(item, picture).success


def test_wrong_size_is_refused() -> None:
    item = item_of("any", "add")
    with pytest.raises(ValueError, match=r"needs \(128, 128, 3\)"):
        score(item, np.zeros((64, 64, 3), np.uint8))


def test_unknown_spoiling_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="moved, recoloured, missing, doubled, reshaped"):
        spoiled(item_of("any", "add"), "burnt")


def test_spoiling_is_the_same_each_time_and_changes_the_picture() -> None:
    for how in SPOILINGS:
        item = item_of("any", "recolour")
        first, second = spoiled(item, how), spoiled(item, how)
        assert first is not None and second is not None
        assert np.array_equal(first, second) and not np.array_equal(first, item.target)


def test_json_has_no_infinities() -> None:
    import json

    item = item_of("table", "pick_up")
    value = score(item, np.zeros_like(item.target)).to_json()
    assert json.loads(json.dumps(value, allow_nan=False))["success"] is False


def test_true_reasoning_frames_have_no_error_and_shuffled_ones_do() -> None:
    item = item_of("table", "push")
    frames = item.frames()
    shown = np.concatenate([frames[:25], frames[-1:]])
    error, seen = trajectory_error(item, shown)
    assert error is not None and error < 0.1 and seen == 1
    late, _ = trajectory_error(item, np.concatenate([frames[:1], frames[:1].repeat(24, 0), frames[-1:]]))
    assert late is not None and late > 0.2
    assert score(item, item.target, shown).trajectory_error == error


def test_without_a_subject_there_is_no_trajectory_error() -> None:
    item = item_of("any", "nothing")
    assert trajectory_error(item, item.frames()[:26]) == (None, None)
