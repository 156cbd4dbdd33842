"""Video to normalised latents and back, over diffusers' `AutoencoderKLWan` of any config.

Shapes: b batch, T pixel frames, H W pixels, z latent channels, t = 1 + (T − 1)/4 latent frames, h w latent height and
width. The factors are read from the config (`scale_factor_temporal`, `scale_factor_spatial`), never assumed. Videos
are float in [-1, 1]. Normalised latents are (z − latents_mean)/latents_std with the config's constants, in float32:
what the transformer sees, and what every other module here means by latents.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from chronoedit.errors import CheckpointError
from chronoedit.model.frames import decode_clip


def encode(autoencoder: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Normalised latents `b z t h w` of a video `b 3 T H W` in [-1, 1]: the mode of the posterior, differentiable.

    Raises ValueError for a frame count or size that the autoencoder would cut, CheckpointError when its config's
    factors are not those of its layers.
    """
    expected = latent_shape(autoencoder, *video.shape[-3:])
    posterior = autoencoder.encode(video.to(autoencoder.dtype)).latent_dist
    latents = normalise(autoencoder, posterior.mode())  # b z t h w
    if latents.shape[-3:] != expected:
        raise CheckpointError(
            f"the autoencoder's config promises latents {expected} and its layers give {tuple(latents.shape[-3:])}; "
            "correct scale_factor_temporal and scale_factor_spatial in vae/config.json"
        )
    return latents


def decode(autoencoder: AutoencoderKLWan, latents: Tensor, *, frames: Sequence[int] | None = None) -> Tensor:
    """The video `b 3 T H W`, float32 in [-1, 1], of normalised latents `b z t h w`.

    `frames` picks latent frames (negative counts from the end) and decodes them as if they were the whole video: the
    edit is `(0, -1)`, 5 pixel frames, whatever lies between.
    """
    picked = latents if frames is None else latents[:, :, list(frames)]
    return autoencoder.decode(denormalise(autoencoder, picked).to(autoencoder.dtype)).sample.float()


def decode_unclamped(autoencoder: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """As `decode`, but not clamped to [-1, 1], which would kill the gradients of saturated pixels: for training."""
    return decode_clip(autoencoder, denormalise(autoencoder, latents).to(autoencoder.dtype)).float()


def normalise(autoencoder: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """(z − mean)/std in float32, from the autoencoder's own latents `b z t h w`."""
    mean, std = _statistics(autoencoder, latents.device)
    return (latents.float() - mean) / std


def denormalise(autoencoder: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """z·std + mean in float32, the autoencoder's own latents `b z t h w`."""
    mean, std = _statistics(autoencoder, latents.device)
    return latents.float() * std + mean


def latent_shape(autoencoder: AutoencoderKLWan, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
    """(t, h, w) of the latents of a video of `num_frames`, `height`, `width` px.

    Raises ValueError, with the nearest values that fit, when the autoencoder would cut frames or pixels.
    """
    temporal, spatial = autoencoder.config.scale_factor_temporal, autoencoder.config.scale_factor_spatial
    if num_frames < 1 or (num_frames - 1) % temporal:
        below = max(0, num_frames - 1) // temporal * temporal + 1
        raise ValueError(
            f"{num_frames} frames are not 1 more than a multiple of {temporal}; use {below} or {below + temporal}"
        )
    for name, side in (("height", height), ("width", width)):
        if side < spatial or side % spatial:
            below = max(1, side // spatial) * spatial
            raise ValueError(f"{name} {side} is not a multiple of {spatial}; use {below} or {below + spatial}")
    return 1 + (num_frames - 1) // temporal, height // spatial, width // spatial


def _statistics(autoencoder: AutoencoderKLWan, device: torch.device) -> tuple[Tensor, Tensor]:
    config = autoencoder.config
    for name in ("latents_mean", "latents_std"):
        if len(getattr(config, name)) != config.z_dim:
            raise CheckpointError(
                f"the autoencoder's {name} has {len(getattr(config, name))} values for {config.z_dim} latent channels; "
                "correct vae/config.json"
            )
    mean = torch.tensor(config.latents_mean, dtype=torch.float32, device=device)
    std = torch.tensor(config.latents_std, dtype=torch.float32, device=device)
    return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)  # 1 z 1 1 1
