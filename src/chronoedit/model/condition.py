"""What the transformer is conditioned on, and what it learns to make: images, pairs and clips as latents.

Shapes: b batch, T pixel frames, H W pixels, z latent channels, t latent frames, h w latent height and width.
Pixels are float in [-1, 1]; latents are normalised (`autoencoder.encode`). The counts in comments are the published
ones: 4 pixel frames a latent frame, z = 16.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from chronoedit.model import autoencoder as ae
from chronoedit.model.tiling import Tiling


def image_condition(
    autoencoder: AutoencoderKLWan, pixels: Tensor, num_frames: int, *, tiling: Tiling | None = None
) -> Tensor:
    """The condition `b 4+z t h w`, float32, of images `b 3 H W` for a video of `num_frames` pixel frames.

    Mask channels (1 on latent frame 0, else 0), then the latents of the image followed by empty (grey) frames. The
    later latents do depend on the image, through the causal caches of the encoder, so they are computed, not assumed.
    Agrees with `prepare_latents` of diffusers' ChronoEditPipeline. Raises ValueError as `autoencoder.encode`.
    """
    b, _, height, width = pixels.shape
    video = pixels.new_zeros(b, 3, num_frames, height, width)  # b 3 T H W
    video[:, :, 0] = pixels
    latents = ae.encode(autoencoder, video, tiling=tiling)  # b z t h w
    mask = latents.new_zeros(b, autoencoder.config.scale_factor_temporal, *latents.shape[-3:])  # b 4 t h w
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def encode_pair(autoencoder: AutoencoderKLWan, first: Tensor, last: Tensor, *, tiling: Tiling | None = None) -> Tensor:
    """Latents `b z 2 h w` of an edit, from its images `b 3 H W` before and after: the video [first, last × 4]."""
    repeats = autoencoder.config.scale_factor_temporal
    return ae.encode(autoencoder, torch.stack([first, *[last] * repeats], dim=2), tiling=tiling)


def encode_clip(autoencoder: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Latents `b z 8 h w` of a reasoning clip `b 3 T H W` of 26 or 29 frames: the first 25, and its very last.

    The first 25 frames give 7 latents; the eighth is the edit's, latent 1 of [first, last × 4], as at inference. Any
    other length that is 1 or 2 more than a multiple of 4 works alike. Raises ValueError for the rest.
    """
    factor, num_frames = autoencoder.config.scale_factor_temporal, video.shape[2]
    if num_frames < 2 or num_frames % factor not in (1 % factor, 2 % factor):
        raise ValueError(
            f"a clip of {num_frames} frames; give 1 or 2 more than a multiple of {factor}, such as 26 (25 and the "
            "edit) or 29"
        )
    kept = (num_frames - 2) // factor * factor + 1
    reasoning = ae.encode(autoencoder, video[:, :, :kept])  # b z 7 h w
    edit = encode_pair(autoencoder, video[:, :, 0], video[:, :, -1])[:, :, 1:]  # b z 1 h w
    return torch.cat([reasoning, edit], dim=2)
