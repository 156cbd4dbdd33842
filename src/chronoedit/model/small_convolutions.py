"""Causal convolutions over small pictures on a CPU, as sums of 2-D ones.

On a CPU torch's 3-D convolution is slow where planes are small and channels few, as in the embedded model's
autoencoder: at 32 channels of 64 by 64 a fifth of the speed of 2-D convolutions. Three 2-D ones, a temporal tap each,
and their sum are the same numbers to rounding. From some size on the 3-D one is faster, and is used.

Shapes: b batch, i o channels in and out, t frames, h w height and width, k temporal taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor

SMALL = 1 << 20  # numbers that go in


def convolve_small_by_frames(autoencoder: AutoencoderKLWan) -> None:
    """Let the autoencoder's convolutions over several frames compute so where that is faster, in place."""
    for module in autoencoder.modules():
        if isinstance(module, WanCausalConv3d) and module.kernel_size[0] > 1 and module.stride == (1, 1, 1):
            module._conv_forward = causal_convolution  # type: ignore[method-assign]  # what `forward` calls


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution `b o t-k+1 h-. w-.` of `b i t h w`, already padded, with a weight `o i k . .`, in steps of 1."""
    if x.device.type != "cpu" or x.numel() > SMALL:
        return F.conv3d(x, weight, bias)
    taps = weight.shape[2]
    b, frames = x.shape[0], x.shape[2] - taps + 1
    pictures = x.transpose(1, 2)  # b t i h w
    total = None
    for tap in range(taps):
        seen = pictures[:, tap : tap + frames].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        # A strided slice as the weight sends the convolution down a path that is ten times slower.
        kernel = weight[:, :, tap].contiguous(memory_format=torch.channels_last)
        part = F.conv2d(seen, kernel, None if total is not None else bias)
        total = part if total is None else total + part
    assert total is not None
    return total.unflatten(0, (b, frames)).transpose(1, 2).contiguous()
