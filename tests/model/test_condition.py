from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan, ChronoEditPipeline, UniPCMultistepScheduler

from chronoedit.model.autoencoder import encode
from chronoedit.model.condition import encode_clip, encode_pair, image_condition


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=8, z_dim=16, num_res_blocks=1, dim_mult=[1, 2, 2, 2], temperal_downsample=[False, True, True]
    ).requires_grad_(False)


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("num_frames", [5, 29])
def test_condition_equals_the_published_pipeline(autoencoder: AutoencoderKLWan, num_frames: int) -> None:
    pipeline = ChronoEditPipeline(
        tokenizer=None,
        text_encoder=None,
        image_encoder=None,
        image_processor=None,
        transformer=None,
        vae=autoencoder,
        scheduler=UniPCMultistepScheduler(),
    )
    image = pixels(1, 3, 32, 48)
    _, expected = pipeline.prepare_latents(
        image, 1, 16, 32, 48, num_frames, torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0)
    )
    condition = image_condition(autoencoder, image, num_frames)
    assert condition.shape == (1, 20, 1 + (num_frames - 1) // 4, 4, 6)
    assert torch.equal(condition[:, :4], expected[:, :4])
    torch.testing.assert_close(condition, expected, atol=1e-6, rtol=1e-6)


def test_later_condition_frames_depend_on_the_image(autoencoder: AutoencoderKLWan) -> None:
    first, second = (image_condition(autoencoder, pixels(1, 3, 16, 16, seed=seed), 5) for seed in (1, 2))
    assert not torch.equal(first[:, 4:, 1], second[:, 4:, 1])


def test_conditions_in_a_batch(autoencoder: AutoencoderKLWan) -> None:
    images = pixels(2, 3, 16, 16)
    both = image_condition(autoencoder, images, 5)
    torch.testing.assert_close(both[1:], image_condition(autoencoder, images[1:], 5), atol=1e-5, rtol=1e-5)


def test_pair_is_a_video_of_five_frames(autoencoder: AutoencoderKLWan) -> None:
    first, last = pixels(2, 3, 16, 16), pixels(2, 3, 16, 16, seed=1)
    video = last.unsqueeze(2).repeat(1, 1, 5, 1, 1)
    video[:, :, 0] = first
    latents = encode_pair(autoencoder, first, last)
    assert latents.shape == (2, 16, 2, 2, 2)
    assert torch.equal(latents, encode(autoencoder, video))


@pytest.mark.parametrize("num_frames", [26, 29])
def test_clip_is_its_first_25_frames_and_its_last(autoencoder: AutoencoderKLWan, num_frames: int) -> None:
    video = pixels(1, 3, num_frames, 16, 16)
    latents = encode_clip(autoencoder, video)
    assert latents.shape == (1, 16, 8, 2, 2)
    assert torch.equal(latents[:, :, :7], encode(autoencoder, video[:, :, :25]))
    assert torch.equal(latents[:, :, 7:], encode_pair(autoencoder, video[:, :, 0], video[:, :, -1])[:, :, 1:])


def test_short_clips(autoencoder: AutoencoderKLWan) -> None:
    video = pixels(1, 3, 6, 16, 16)
    assert encode_clip(autoencoder, video).shape[2] == 3
    pair = encode_pair(autoencoder, video[:, :, 0], video[:, :, 1])
    torch.testing.assert_close(encode_clip(autoencoder, video[:, :, :2]), pair, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 3, 4, 27, 28])
def test_clips_of_other_lengths_are_refused(autoencoder: AutoencoderKLWan, num_frames: int) -> None:
    with pytest.raises(ValueError, match=f"a clip of {num_frames} frames; .* 26 .* or 29"):
        encode_clip(autoencoder, torch.zeros(1, 3, num_frames, 16, 16))
