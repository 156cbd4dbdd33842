"""What training minimises: reconstruction for the autoencoder, rectified flow for the transformer.

Shapes: b batch, c channels, t latent frames, h w height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DETAIL_WINDOW_PX = 9
DETAIL_CONTRAST = 0.1  # in units of [-1, 1]: the least step in colour that counts as an edge


def detail_map(images: Tensor) -> Tensor:
    """1 near an edge of the picture, 0 on plain ground: b 1 h w for images b 3 h w in [-1, 1].

    Objects here are small and plain, so "near an edge" is nearly all of them.
    """
    right = F.pad((images[..., 1:] - images[..., :-1]).abs().amax(1, keepdim=True), (0, 1))
    down = F.pad((images[..., 1:, :] - images[..., :-1, :]).abs().amax(1, keepdim=True), (0, 0, 0, 1))
    edges = torch.maximum(right, down)
    near = F.max_pool2d(edges, DETAIL_WINDOW_PX, stride=1, padding=DETAIL_WINDOW_PX // 2)
    return (near > DETAIL_CONTRAST).to(images.dtype)


def reconstruction_loss(decoded: Tensor, images: Tensor, *, edge_weight: float, detail_weight: float) -> Tensor:
    """Mean absolute error of colours, and of their differences between neighbours times `edge_weight`.

    Both are b 3 h w in [-1, 1], `decoded` unclamped. Pixels near an edge count 1 + `detail_weight` times.
    """
    error = decoded - images
    weight = 1 + detail_weight * detail_map(images)
    colour = (error.abs() * weight).mean()
    if edge_weight == 0:
        return colour
    right = ((error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]).mean()
    down = ((error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]).mean()
    return colour + edge_weight * (right + down)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of the posterior from the unit normal, averaged over latents."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def psnr(decoded: Tensor, images: Tensor, weight: Tensor | None = None) -> Tensor:
    """Peak signal to noise ratio in dB of pictures in [-1, 1], over pixels by `weight` (b 1 h w) when given."""
    squared = (decoded.clamp(-1, 1) - images).square()
    if weight is None:
        mean = squared.mean()
    else:
        mean = (squared * weight).sum() / (weight.sum() * images.shape[1]).clamp_min(1)
    return 10 * torch.log10(4 / mean.clamp_min(1e-12))


def logit_normal_sigmas(count: int, flow_shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels of `count` items in (0, 1): logit-normal(0, 1) through the flow shift (algorithm of training)."""
    sigma = torch.sigmoid(torch.randn(count, generator=generator))
    return flow_shift * sigma / (1 + (flow_shift - 1) * sigma)


def add_noise(latents: Tensor, noise: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified flow: `x = sigma noise + (1 - sigma) latents` and its velocity `noise - latents`; sigmas is b."""
    sigma = sigmas.view(-1, *[1] * (latents.ndim - 1)).to(latents)
    return sigma * noise + (1 - sigma) * latents, noise - latents


def change_weight(latents: Tensor, strength: float) -> Tensor:
    """Weight b 1 t h w of each latent cell: 1 + strength · how much it differs from the input frame, mean 1 a frame.

    Without it, the few cells that an edit changes drown among the many that are copied.
    """
    if strength == 0:
        return torch.ones_like(latents[:, :1])
    change = (latents - latents[:, :, :1]).abs().mean(dim=1, keepdim=True)
    weight = 1 + strength * change.clamp(max=1.0)
    return weight / weight.mean(dim=(-2, -1), keepdim=True)


def flow_loss(velocity: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error of each item: b, from b c t h w and weights b 1 t h w."""
    return ((velocity.float() - target.float()).square() * weight).mean(dim=(1, 2, 3, 4))
