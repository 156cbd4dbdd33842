"""Single frames through 2-D convolutions equal the video autoencoder, and framewise weights code each frame alone."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderKLWan

from chronoedit.model.autoencoder import encode, normalise
from chronoedit.model.frames import decode_clip, decode_frames, encode_frames, is_framewise, make_framewise


def build(**changes: object) -> AutoencoderKLWan:
    torch.manual_seed(0)
    config = {
        "base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 2], "num_res_blocks": 1, "temperal_downsample": [True, True],
        "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "in_channels": 12, "out_channels": 12, "patch_size": 2,
        "scale_factor_spatial": 8, "scale_factor_temporal": 4,
    }  # fmt: skip
    return AutoencoderKLWan(**{**config, **changes}).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def framewise() -> AutoencoderKLWan:
    autoencoder = build()
    make_framewise(autoencoder)
    return autoencoder


def pictures(count: int, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("changes", [{}, {"patch_size": None, "in_channels": 3, "out_channels": 3}])
def test_a_frame_equals_the_video_of_one_frame(changes: dict[str, object]) -> None:
    autoencoder = build(**changes)  # temporal taps random: the past of the first frame is zeros all the same
    images = pictures(2)
    moments = encode_frames(autoencoder, images)
    posterior = autoencoder.encode(images.unsqueeze(2)).latent_dist
    assert torch.allclose(moments, posterior.parameters.squeeze(2), atol=2e-6)
    latents = 3 * posterior.mode()
    decoded = decode_frames(autoencoder, latents.squeeze(2))
    assert torch.allclose(decoded.clamp(-1, 1), autoencoder.decode(latents).sample.squeeze(2), atol=5e-6)


def test_a_pair_is_coded_as_its_two_frames(framewise: AutoencoderKLWan) -> None:
    first, last = pictures(2).split(1)
    moments = framewise.encode(torch.stack([first] + [last] * 4, dim=2)).latent_dist.parameters
    assert torch.allclose(moments[:, :, 0], encode_frames(framewise, first), atol=2e-6)
    assert torch.allclose(moments[:, :, 1], encode_frames(framewise, last), atol=2e-6)
    latents = 3 * moments[:, :4]
    video = framewise.decode(latents).sample
    assert video.shape[2] == 5
    for frame in range(5):
        alone = decode_frames(framewise, latents[:, :, min(frame, 1)]).clamp(-1, 1)
        assert torch.allclose(video[:, :, frame], alone, atol=5e-6)


def test_a_latent_frame_holds_the_last_of_its_four(framewise: AutoencoderKLWan) -> None:
    video = pictures(13, 16, 16).movedim(0, 1).unsqueeze(0)  # 1 3 13 16 16
    moments = framewise.encode(video).latent_dist.parameters
    assert moments.shape[2] == 4
    for k in range(4):
        assert torch.allclose(moments[:, :, k], encode_frames(framewise, video[:, :, 4 * k]), atol=2e-6)


def test_framewise_encoders_are_known(framewise: AutoencoderKLWan) -> None:
    assert is_framewise(framewise)
    assert not is_framewise(build())
    for change in ("conv_in", "down_blocks"):
        other = copy.deepcopy(framewise)
        for name, module in other.encoder.named_modules():
            if name.startswith(change) and isinstance(module, torch.nn.Conv3d):
                module.weight[:, :, 0] += 1e-3
        assert not is_framewise(other)


def test_a_framewise_video_is_encoded_by_the_frames_that_count(
    framewise: AutoencoderKLWan, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = torch.rand(2, 3, 9, 32, 48) * 2 - 1
    by_diffusers = normalise(framewise, framewise.encode(video).latent_dist.mode())
    monkeypatch.delattr(AutoencoderKLWan, "encode")
    assert torch.allclose(encode(framewise, video), by_diffusers, atol=2e-5)


def test_the_unclamped_clip_equals_the_decoder(framewise: AutoencoderKLWan) -> None:
    for autoencoder in (framewise, build()):
        latents = 20 * torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(2))
        clip = decode_clip(autoencoder, latents)
        assert clip.shape == (1, 3, 9, 32, 32)
        assert torch.equal(clip.clamp(-1, 1), autoencoder.decode(latents).sample)
    assert clip.abs().max() > 1


def test_gradients_reach_the_last_taps_and_no_other(framewise: AutoencoderKLWan) -> None:
    autoencoder = build()
    make_framewise(autoencoder)
    autoencoder.requires_grad_(True)
    decode_frames(autoencoder, encode_frames(autoencoder, pictures(1))[:, :4]).square().mean().backward()
    gradient = autoencoder.encoder.conv_in.weight.grad
    assert gradient is not None
    assert gradient[:, :, -1].abs().max() > 0
    assert gradient[:, :, :-1].abs().max() == 0


def test_averaging_shortcuts_are_refused() -> None:
    autoencoder = build(is_residual=True)
    for call in (make_framewise, lambda ae: encode_frames(ae, pictures(1))):
        with pytest.raises(ValueError, match="is_residual=False"):
            call(autoencoder)
