"""Classifier-free guidance, with a scale for each step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def scales(guidance_scale: float | Sequence[float], num_inference_steps: int) -> list[float]:
    """One guidance scale a step, from one for all or from a list of exactly that length.

    Raises ValueError when the length is another, or a scale is below 1 or not finite.
    """
    if isinstance(guidance_scale, (int, float)):
        guidance_scale = [guidance_scale] * num_inference_steps
    if len(guidance_scale) != num_inference_steps:
        raise ValueError(
            f"{len(guidance_scale)} guidance scales for {num_inference_steps} steps; give one, or one for each step"
        )
    for scale in guidance_scale:
        if not (math.isfinite(scale) and scale >= 1):
            raise ValueError(f"guidance_scale {scale} is not a finite number of at least 1; 1 is no guidance")
    return [float(scale) for scale in guidance_scale]


def guided_until(scales: Sequence[float], share: float) -> list[float]:
    """The scales of the first `share` of the steps (rounded, at least one), and 1 after that.

    Late steps draw what early ones decided, so that guidance matters less there and its second pass can be saved
    (arXiv 2404.07724). Raises ValueError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"guidance_until {share} is not in (0, 1]; 1 guides all steps")
    guided = max(1, round(share * len(scales)))
    return [*scales[:guided], *[1.0] * (len(scales) - guided)]


def is_guided(scale: float) -> bool:
    """Whether a step at this scale needs the unconditional pass: at 1 it would cancel out."""
    return scale > 1


def guide(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """u + g·(c − u) (arXiv 2207.12598), in fp32 at least: the difference of two bf16 velocities is mostly rounding."""
    dtype = torch.promote_types(cond.dtype, torch.float32)
    cond, uncond = cond.to(dtype), uncond.to(dtype)
    return uncond + scale * (cond - uncond)
