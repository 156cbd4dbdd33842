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
from torch import Tensor, nn

from chronoedit.errors import CheckpointError
from chronoedit.model.frames import decode_clip, encode_frames, is_framewise
from chronoedit.model.tiling import Tiling, decode_tiles, encode_tiles


def encode(autoencoder: AutoencoderKLWan, video: Tensor, *, tiling: Tiling | None = None) -> Tensor:
    """Normalised latents `b z t h w` of a video `b 3 T H W` in [-1, 1]: the mode of the posterior, differentiable.

    With a `tiling` the same numbers in less memory, tile by tile. Where every latent frame depends on one pixel frame
    alone (`frames.is_framewise`) only those are encoded.
    Raises ValueError for a frame count or size that the autoencoder would cut and for tiles that are no multiple of a
    latent cell, CheckpointError when its config's factors are not those of its layers.
    """
    expected = latent_shape(autoencoder, *video.shape[-3:])
    video = video.to(autoencoder.quant_conv.weight.dtype)
    if tiling is not None:
        mode, _ = encode_tiles(autoencoder, video, tiling).chunk(2, dim=1)
    elif is_framewise(autoencoder):
        seen = video[:, :, :: autoencoder.config.scale_factor_temporal].unbind(2)  # t of b 3 H W
        mode = torch.stack([encode_frames(autoencoder, frame).chunk(2, dim=1)[0] for frame in seen], dim=2)
    else:
        mode = autoencoder.encode(video).latent_dist.mode()
    latents = normalise(autoencoder, mode)  # b z t h w
    if latents.shape[-3:] != expected:
        raise CheckpointError(
            f"the autoencoder's config promises latents {expected} and its layers give {tuple(latents.shape[-3:])}; "
            "correct scale_factor_temporal and scale_factor_spatial in vae/config.json"
        )
    return latents


def decode(
    autoencoder: AutoencoderKLWan,
    latents: Tensor,
    *,
    frames: Sequence[int] | None = None,
    tiling: Tiling | None = None,
) -> Tensor:
    """The video `b 3 T H W`, float32 in [-1, 1], of normalised latents `b z t h w`.

    `frames` picks latent frames (negative counts from the end) and decodes them as if they were the whole video: the
    edit is `(0, -1)`, 5 pixel frames, whatever lies between. With a `tiling` the same numbers in less memory, tile by
    tile; raises ValueError for tiles that are no multiple of a latent cell.
    """
    picked = latents if frames is None else latents[:, :, list(frames)]
    own = denormalise(autoencoder, picked).to(autoencoder.post_quant_conv.weight.dtype)
    if tiling is None:
        return autoencoder.decode(own).sample.float()
    return decode_tiles(autoencoder, own, tiling).float().clamp_(-1, 1)


def decode_unclamped(autoencoder: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """As `decode`, but not clamped to [-1, 1], which would kill the gradients of saturated pixels: for training."""
    own = denormalise(autoencoder, latents).to(autoencoder.post_quant_conv.weight.dtype)
    return decode_clip(autoencoder, own).float()


def set_decode_dtype(autoencoder: AutoencoderKLWan, dtype: torch.dtype) -> None:
    """Let the decoder compute in this type, in place; the encoder stays as it is."""
    autoencoder.decoder.to(dtype)
    autoencoder.post_quant_conv.to(dtype)


def use_channels_last(autoencoder: AutoencoderKLWan) -> None:
    """Lay the weights of convolutions out with channels last, in place: the order in which GPUs convolve.

    What goes through the layers then takes that order too; the numbers are the same to rounding.
    """
    formats = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}
    for module in autoencoder.modules():
        for kind, memory_format in formats.items():
            if isinstance(module, kind):
                module.weight.data = module.weight.data.contiguous(memory_format=memory_format)


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
