"""The autoencoder on single frames: its causal 3-D convolutions as the 2-D ones that they are when there is no past.

Shapes: b batch, c channels, h w height and width in pixels or latent cells, t frames, z latent channels.

On one frame a causal convolution sees zeros in all temporal taps but its last, so a 2-D convolution with that tap
gives the same numbers for a third of the work. `make_framewise` sets all other taps to zero: then every frame of a
video is coded on its own, each latent frame holds the last frame of its group of four, and decoding repeats it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanCausalConv3d,
    WanMidBlock,
    WanResample,
    WanResidualBlock,
    WanRMS_norm,
    WanUpBlock,
)
from torch import Tensor, nn


def encode_frames(autoencoder: AutoencoderKLWan, images: Tensor) -> Tensor:
    """Posterior moments of single frames; equals `autoencoder.encode` on each frame as a video of its own.

    `images` is b 3 h w in [-1, 1]; returns b 2z h w (mean, then log variance), not normalised. Differentiable.
    Raises ValueError for an autoencoder with averaging shortcuts (`is_residual`), whose groups of frames mix.
    """
    _refuse_residual(autoencoder)
    encoder = autoencoder.encoder
    x = patchify(images, autoencoder.config.patch_size)
    x = _conv(encoder.conv_in, x)
    for layer in encoder.down_blocks:
        x = _layer(layer, x)
    x = _mid(encoder.mid_block, x)
    x = _conv(encoder.conv_out, F.silu(_norm(encoder.norm_out, x)))
    return _conv(autoencoder.quant_conv, x)  # b 2z h w


def decode_frames(autoencoder: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Images of single latent frames, *not* clamped: `autoencoder.decode` clamps, which kills gradients.

    `latents` is b z h w, not normalised; returns b 3 h w around [-1, 1]. Differentiable. Raises as `encode_frames`.
    """
    _refuse_residual(autoencoder)
    decoder = autoencoder.decoder
    x = _conv(decoder.conv_in, _conv(autoencoder.post_quant_conv, latents))
    x = _mid(decoder.mid_block, x)
    for block in decoder.up_blocks:
        x = _up(block, x)
    x = _conv(decoder.conv_out, F.silu(_norm(decoder.norm_out, x)))
    return unpatchify(x, autoencoder.config.patch_size)  # b 3 h w


def decode_clip(autoencoder: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Video of latent frames through the causal decoder, *not* clamped.

    `latents` is b z t h w, not normalised; returns b 3 (1 + 4(t - 1)) h w. Differentiable; the same numbers as
    `autoencoder.decode` before its clamp.
    """
    convolutions = sum(isinstance(module, WanCausalConv3d) for module in autoencoder.decoder.modules())
    cache: list[Tensor | str | None] = [None] * convolutions
    x = autoencoder.post_quant_conv(latents)
    chunks = [
        autoencoder.decoder(x[:, :, i : i + 1], feat_cache=cache, feat_idx=[0], first_chunk=i == 0)
        for i in range(x.shape[2])
    ]
    video = torch.cat(chunks, dim=2)  # b c t h w
    b, _, t, _, _ = video.shape
    frames = unpatchify(video.transpose(1, 2).flatten(0, 1), autoencoder.config.patch_size)  # (b t) 3 h w
    return frames.unflatten(0, (b, t)).transpose(1, 2)  # b 3 t h w


@torch.no_grad()
def make_framewise(autoencoder: AutoencoderKLWan) -> None:
    """Set the autoencoder's temporal taps, in place, so that every frame is coded on its own.

    All past taps become zero, temporal downsampling keeps the last frame of each pair and upsampling repeats.
    The last taps, all that a single frame meets, stay as they are. Raises as `encode_frames`.
    """
    _refuse_residual(autoencoder)
    for module in autoencoder.modules():
        if isinstance(module, WanCausalConv3d) and module.kernel_size[0] > 1:
            module.weight[:, :, :-1] = 0
    for module in autoencoder.modules():
        if isinstance(module, WanResample) and module.mode in ("upsample3d", "downsample3d"):
            _pass_through(module.time_conv)


def is_framewise(autoencoder: AutoencoderKLWan) -> bool:
    """Whether the encoder codes every fourth frame on its own, as after `make_framewise`; the decoder may not."""
    if autoencoder.config.is_residual:
        return False
    for module in autoencoder.encoder.modules():
        if isinstance(module, WanResample) and module.mode == "downsample3d":
            if not _passes_through(module.time_conv):
                return False
        elif isinstance(module, WanCausalConv3d) and module.kernel_size == (3, 3, 3) and module.weight[:, :, :-1].any():
            return False
    return True


def _passes_through(conv: nn.Conv3d) -> bool:
    identity = torch.eye(conv.out_channels, conv.in_channels, dtype=conv.weight.dtype, device=conv.weight.device)
    rest = conv.weight.detach().clone()
    rest[:, :, -1, 0, 0] -= identity
    return not (rest.any() or (conv.bias is not None and conv.bias.any()))


def _pass_through(conv: nn.Conv3d) -> None:
    """Make a temporal convolution copy its present frame to each group of as many output channels as inputs."""
    identity = torch.eye(conv.in_channels, dtype=conv.weight.dtype, device=conv.weight.device)
    conv.weight.zero_()
    conv.weight[:, :, -1, 0, 0] = identity.repeat(conv.out_channels // conv.in_channels, 1)
    if conv.bias is not None:
        conv.bias.zero_()


def _refuse_residual(autoencoder: AutoencoderKLWan) -> None:
    if autoencoder.config.is_residual:
        raise ValueError(
            "the autoencoder has is_residual=True, whose shortcuts average over frames; use one with is_residual=False"
        )


def _conv(conv: WanCausalConv3d, x: Tensor) -> Tensor:
    """The causal convolution's last tap, b c h w; spatial padding as the module pads (`_padding` is w w h h t t)."""
    # A strided slice as the weight sends the convolution down a path that is ten times slower on CPUs.
    weight = conv.weight[:, :, -1].contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, conv.bias, padding=(conv._padding[2], conv._padding[0]))


def _norm(norm: WanRMS_norm, x: Tensor) -> Tensor:
    gain = (norm.scale * norm.gamma.view(1, -1, 1, 1)).to(x.dtype)  # in bf16, fp32 would spread to all that follows
    return x * x.square().sum(dim=1, keepdim=True).clamp_min(1e-24).rsqrt().to(x.dtype) * gain + norm.bias


def _residual(block: WanResidualBlock, x: Tensor) -> Tensor:
    shortcut = _conv(block.conv_shortcut, x) if isinstance(block.conv_shortcut, WanCausalConv3d) else x
    x = _conv(block.conv1, block.nonlinearity(_norm(block.norm1, x)))
    x = block.dropout(block.nonlinearity(_norm(block.norm2, x)))
    return _conv(block.conv2, x) + shortcut


def _mid(block: WanMidBlock, x: Tensor) -> Tensor:
    x = _residual(block.resnets[0], x)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        x = _residual(resnet, _attention(attention, x))
    return x


def _up(block: WanUpBlock, x: Tensor) -> Tensor:
    for resnet in block.resnets:
        x = _residual(resnet, x)
    for resample in block.upsamplers or ():
        x = resample.resample(x)
    return x


def _attention(block: WanAttentionBlock, x: Tensor) -> Tensor:
    return block(x.unsqueeze(2)).squeeze(2)


def _layer(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, WanResidualBlock):
        return _residual(layer, x)
    if isinstance(layer, WanAttentionBlock):
        return _attention(layer, x)
    if isinstance(layer, WanResample):
        return layer.resample(x)
    raise ValueError(f"layer {type(layer).__name__} of the encoder has no single-frame form; expected a Wan 2.1 block")


def patchify(images: Tensor, patch_size: int | None) -> Tensor:
    """Each patch of b c h w into channels (c, column, row), the order of the video autoencoder's own patches."""
    if patch_size is None:
        return images
    b, c, h, w = images.shape
    x = images.reshape(b, c, h // patch_size, patch_size, w // patch_size, patch_size)
    return x.permute(0, 1, 5, 3, 2, 4).flatten(1, 3)  # b (c pw ph) h w


def unpatchify(x: Tensor, patch_size: int | None) -> Tensor:
    """Channels b (c · patch_size²) h w back into patches, as `patchify` made them of b c h w."""
    if patch_size is None:
        return x
    b, c, h, w = x.shape
    x = x.reshape(b, c // patch_size**2, patch_size, patch_size, h, w)  # b c pw ph h w
    return x.permute(0, 1, 4, 3, 5, 2).reshape(b, -1, h * patch_size, w * patch_size)
