from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

from chronoedit.editing.prepare import (
    edit_size,
    fill_defaults,
    fit,
    pixels_sha256,
    prepare,
    to_frames,
    to_pixels,
    token_side,
)
from chronoedit.model.checkpoint import Components, ModelSettings
from chronoedit.request import EditRequest, bucket_size

from .conftest import make_photo, make_request

PUBLISHED_AREA = 720 * 1280


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (720, 1280, (720, 1280)),
        (1280, 720, (1280, 720)),
        (1000, 1000, (960, 960)),
        (3024, 4032, (816, 1104)),  # sqrt(A·3/4) = 831.4 → 816; sqrt(A·4/3) = 1108.5 → 1104
        (100, 1600, (240, 3840)),
    ],
)
def test_bucket_of_the_published_area(height: int, width: int, expected: tuple[int, int]) -> None:
    assert bucket_size(height, width, PUBLISHED_AREA, 16) == expected


@pytest.mark.parametrize("area", [128 * 128, PUBLISHED_AREA])
def test_buckets_keep_area_and_aspect(area: int) -> None:
    for seed in range(50):
        height, width = np.random.default_rng(seed).integers(64, 4000, 2)
        if max(height, width) > 16 * min(height, width):
            continue
        bucket = bucket_size(int(height), int(width), area, 16)
        exact = np.sqrt(area * height / width), np.sqrt(area * width / height)
        assert all(side % 16 == 0 for side in bucket)
        assert all(want - 17 < side <= want + 0.5 for side, want in zip(bucket, exact, strict=True))


def test_a_photo_too_thin_for_the_area_is_refused() -> None:
    with pytest.raises(ValueError, match="a photo of 6400x64 is too thin for 16384 pixels"):
        bucket_size(64, 6400, 128 * 128, 16)


def sized(**sides: int) -> tuple[int, int]:
    return edit_size(EditRequest(image="a.png", prompt="x", **sides), (300, 200), PUBLISHED_AREA, 16)


def test_given_sides_win_and_one_alone_follows_the_aspect_ratio() -> None:
    assert sized(height=64, width=640) == (64, 640)
    assert sized(height=320) == (320, 480)
    assert sized(width=240) == (160, 240)
    assert sized(width=256) == (176, 256)  # 170.7, to the nearest multiple
    assert sized() == bucket_size(200, 300, PUBLISHED_AREA, 16)


def test_sides_are_held_to_the_model_s_own_multiple() -> None:
    request = EditRequest(image="a.png", prompt="x", height=48, width=64)
    with pytest.raises(ValueError, match="height 48 is not a multiple of 32; use 32 or 64"):
        edit_size(request, (300, 200), PUBLISHED_AREA, 32)
    thin = EditRequest(image="a.png", prompt="x", width=16)
    with pytest.raises(ValueError, match="the other side would be 1.6 px, below 16"):
        edit_size(thin, (1600, 160), PUBLISHED_AREA, 16)


def test_token_side_is_read_off_the_configs() -> None:
    model = SimpleNamespace(
        transformer=SimpleNamespace(config=SimpleNamespace(patch_size=(1, 2, 2))),
        autoencoder=SimpleNamespace(config=SimpleNamespace(scale_factor_spatial=16)),
    )
    assert token_side(model) == 32  # type: ignore[arg-type]


def test_defaults_are_the_model_s_own() -> None:
    settings = ModelSettings(
        name="small", num_inference_steps=12, guidance_scale=2.5, flow_shift=3.0, negative_prompt="blurry"
    )
    filled = fill_defaults(EditRequest(image="a.png", prompt="x", reasoning=True), settings)
    assert (filled.num_inference_steps, filled.guidance_scale, filled.flow_shift) == (12, 2.5, 3.0)
    assert (filled.num_reasoning_steps, filled.negative_prompt) == (2, "blurry")
    given = EditRequest(
        image="a.png", prompt="x", num_inference_steps=6, guidance_scale=1.0, flow_shift=1.0, seed=3,
        negative_prompt="dark", num_reasoning_steps=4,
    )  # fmt: skip
    assert fill_defaults(given, settings) == given
    plain = fill_defaults(EditRequest(image="a.png", prompt="x"), settings)
    assert plain.num_reasoning_steps is None and not plain.reasoning


def test_more_reasoning_steps_than_the_model_s_default_steps_are_refused() -> None:
    request = EditRequest(image="a.png", prompt="x", num_reasoning_steps=13)
    with pytest.raises(ValueError, match="num_reasoning_steps 13 is more than num_inference_steps 12"):
        fill_defaults(request, ModelSettings(name="small", num_inference_steps=12))


def test_a_seed_is_drawn_once_for_each_request() -> None:
    settings = ModelSettings(name="small")
    request = EditRequest(image="a.png", prompt="x")
    seeds = {fill_defaults(request, settings).seed for _ in range(20)}
    assert len(seeds) > 15 and all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)


def test_prepared_edit_is_complete(components: Components) -> None:
    photo = make_photo(width=150, height=100)
    edit = prepare(make_request(image=photo, reasoning=True), photo, components)
    assert (edit.request.height, edit.request.width) == (48, 64)
    assert edit.picture.size == (64, 48) and edit.photo_size == (150, 100)
    assert edit.latent_shape == (16, 8, 6, 8)
    assert edit.pixels.shape == (1, 3, 48, 64) and edit.pixels.dtype == torch.float32
    assert edit.course.num_frames == 29 and edit.course.drop_at == 1


def test_pixels_round_trip() -> None:
    picture = make_photo(3)
    pixels = to_pixels(picture)
    assert float(pixels.abs().max()) <= 1
    black_white = to_pixels(PIL.Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)))
    assert black_white[0, :, 0].T.tolist() == [[-1, -1, -1], [1, 1, 1]]
    assert np.array_equal(to_frames(pixels[0][:, None])[0], np.asarray(picture))


def test_fit_leaves_a_picture_of_that_size_alone() -> None:
    picture = make_photo()
    assert fit(picture, 64, 64) is picture
    assert fit(picture, 32, 48).size == (48, 32)


def test_pixel_hash_tells_shapes_and_pixels_apart() -> None:
    picture = PIL.Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    reshaped = PIL.Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 2, 3))
    assert pixels_sha256(picture) == pixels_sha256(picture.copy())
    assert len({pixels_sha256(p) for p in (picture, reshaped, picture.transpose(PIL.Image.Transpose.ROTATE_180))}) == 3
