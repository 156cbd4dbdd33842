from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderKLWan

from chronoedit.errors import CheckpointError
from chronoedit.model.autoencoder import decode, decode_unclamped, denormalise, encode, latent_shape, normalise

CONFIGS = {
    "published layout": {
        "dim_mult": [1, 2, 2, 2],
        "temperal_downsample": [False, True, True],
    },
    "patches": {
        "dim_mult": [1, 2, 2],
        "temperal_downsample": [True, True],
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
    },
    "patches, residual": {
        "dim_mult": [1, 2, 2],
        "temperal_downsample": [True, True],
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
        "is_residual": True,
    },
    "four-fold": {
        "dim_mult": [1, 2, 2],
        "temperal_downsample": [True, True],
        "scale_factor_spatial": 4,
    },
}


@pytest.fixture(scope="module", params=CONFIGS)
def autoencoder(request: pytest.FixtureRequest) -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.5, 2.0, 0.25],
        **CONFIGS[request.param],
    ).requires_grad_(False)


def video(num_frames: int, seed: int = 0, batch: int = 2) -> torch.Tensor:
    pixels = torch.rand(batch, 3, num_frames, 32, 48, generator=torch.Generator().manual_seed(seed))
    return pixels * 2 - 1


def test_encode_is_the_normalised_mode(autoencoder: AutoencoderKLWan) -> None:
    clip = video(9)
    latents = encode(autoencoder, clip)
    mode = autoencoder.encode(clip).latent_dist.mode()
    for channel, (mean, std) in enumerate(zip([0.1, -0.2, 0.3, 0.0], [0.5, 1.5, 2.0, 0.25], strict=True)):
        torch.testing.assert_close(latents[:, channel], (mode[:, channel] - mean) / std)
    assert latents.shape[-3:] == latent_shape(autoencoder, 9, 32, 48)
    assert latents.shape[2] == 3 and latents.dtype == torch.float32


def test_rows_of_a_batch_are_independent(autoencoder: AutoencoderKLWan) -> None:
    clip = video(5)
    torch.testing.assert_close(encode(autoencoder, clip)[1:], encode(autoencoder, clip[1:]), atol=1e-5, rtol=1e-5)


def test_decode_is_the_library_decode_of_the_denormalised(autoencoder: AutoencoderKLWan) -> None:
    latents = encode(autoencoder, video(9))
    pixels = decode(autoencoder, latents)
    assert pixels.shape == (2, 3, 9, 32, 48) and pixels.dtype == torch.float32
    assert torch.equal(pixels, autoencoder.decode(denormalise(autoencoder, latents)).sample)
    torch.testing.assert_close(normalise(autoencoder, denormalise(autoencoder, latents)), latents)


def test_decode_of_chosen_frames(autoencoder: AutoencoderKLWan) -> None:
    latents = encode(autoencoder, video(29, batch=1))
    edit = decode(autoencoder, latents, frames=(0, -1))
    assert edit.shape[2] == 5
    assert torch.equal(edit, decode(autoencoder, latents[:, :, [0, 7]]))


def test_unclamped_is_decode_before_its_clamp_and_keeps_gradients(autoencoder: AutoencoderKLWan) -> None:
    autoencoder = copy.deepcopy(autoencoder)
    latents = (40 * torch.randn(2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(1))).requires_grad_()
    gain = 50 / decode_unclamped(autoencoder, latents).detach().abs().max()  # random weights never saturate
    with torch.no_grad():
        autoencoder.decoder.conv_out.weight.mul_(gain)
    free = decode_unclamped(autoencoder, latents)
    clamped = decode(autoencoder, latents)
    torch.testing.assert_close(free.clamp(-1, 1), clamped)
    saturated = free.detach().abs() > 1
    assert 0.1 < saturated.float().mean() < 1
    gradient = torch.autograd.grad((free * saturated).sum(), latents)[0]
    assert gradient.abs().max() > 0
    assert torch.autograd.grad((clamped * saturated).sum(), latents)[0].abs().max() == 0


def test_encode_is_differentiable(autoencoder: AutoencoderKLWan) -> None:
    clip = video(5, batch=1).requires_grad_()
    assert torch.autograd.grad(encode(autoencoder, clip).square().sum(), clip)[0].abs().max() > 0


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((4, 32, 32), "4 frames are not 1 more than a multiple of 4; use 1 or 5"),
        ((28, 32, 32), "use 25 or 29"),
        ((0, 32, 32), "use 1 or 5"),
        ((5, 33, 32), "height 33 is not a multiple of"),
        ((5, 32, 2), "width 2 is not a multiple of"),
    ],
)
def test_refuses_what_would_be_cut(autoencoder: AutoencoderKLWan, size: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(autoencoder, torch.zeros(1, 3, *size))


def test_a_config_that_contradicts_its_layers_is_refused() -> None:
    wrong = AutoencoderKLWan(
        base_dim=8, z_dim=16, num_res_blocks=1, dim_mult=[1, 2, 2], temperal_downsample=[True, True]
    )
    with pytest.raises(CheckpointError, match="scale_factor_spatial"):
        encode(wrong, torch.zeros(1, 3, 1, 16, 16))


def test_statistics_of_another_width_are_refused() -> None:
    wrong = AutoencoderKLWan(base_dim=8, z_dim=4, num_res_blocks=1, dim_mult=[1, 2, 2, 2])
    with pytest.raises(CheckpointError, match="latents_mean has 16 values for 4"):
        encode(wrong, torch.zeros(1, 3, 1, 16, 16))


def test_bf16_weights_give_float32_latents() -> None:
    half = AutoencoderKLWan(
        base_dim=8, z_dim=16, num_res_blocks=1, dim_mult=[1, 2, 2, 2], temperal_downsample=[False, True, True]
    ).bfloat16()
    latents = encode(half, torch.zeros(1, 3, 5, 16, 16))
    assert latents.dtype == torch.float32
    assert decode(half, latents).dtype == torch.float32
