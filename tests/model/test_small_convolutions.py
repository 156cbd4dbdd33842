"""Convolutions over few frames as sums of 2-D ones are the 3-D ones to rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan

from chronoedit.model import small_convolutions
from chronoedit.model.small_convolutions import causal_convolution, convolve_small_by_frames


@pytest.mark.parametrize(("kernel", "frames"), [((3, 3, 3), 6), ((3, 3, 3), 3), ((3, 1, 1), 5)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_convolution_is_that_of_torch(kernel: tuple[int, int, int], frames: int, *, biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, frames, 10, 12, generator=generator)
    weight = torch.randn(6, 8, *kernel, generator=generator)
    bias = torch.randn(6, generator=generator) if biased else None
    assert torch.allclose(causal_convolution(x, weight, bias), F.conv3d(x, weight, bias), atol=2e-5)


def test_large_pictures_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_convolutions, "SMALL", 100)
    x, weight = torch.randn(1, 2, 3, 8, 8), torch.randn(2, 2, 3, 3, 3)
    assert torch.equal(causal_convolution(x, weight, None), F.conv3d(x, weight))


def test_an_autoencoder_codes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    autoencoder = AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, attn_scales=[], patch_size=2, in_channels=12,
        out_channels=12, temperal_downsample=[True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip
    video, latents = torch.rand(1, 3, 9, 32, 32) * 2 - 1, torch.randn(1, 4, 3, 4, 4)
    with torch.no_grad():
        moments, pictures = autoencoder.encode(video).latent_dist.parameters, autoencoder.decode(latents).sample
        convolve_small_by_frames(autoencoder)
        calls: list[int] = []
        real = F.conv3d
        monkeypatch.setattr(F, "conv3d", lambda *args, **rest: (calls.append(1), real(*args, **rest))[1])
        assert torch.allclose(autoencoder.encode(video).latent_dist.parameters, moments, atol=1e-5)
        assert torch.allclose(autoencoder.decode(latents).sample, pictures, atol=1e-5)
    by_torch = [m for m in autoencoder.modules() if isinstance(m, torch.nn.Conv3d) and m.kernel_size[0] == 1]
    strided = [m for m in autoencoder.modules() if isinstance(m, torch.nn.Conv3d) and m.stride[0] > 1]
    assert len(calls) <= 4 * (len(by_torch) + len(strided))  # those over one frame, and in steps of two
