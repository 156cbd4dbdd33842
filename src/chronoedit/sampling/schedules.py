"""The noise levels of a run: `sigmas` fall from 1 (noise) to 0 (picture); `timesteps` are what the model is told."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch

NUM_TRAIN_TIMESTEPS = 1000
_FIRST_SIGMA_GAP = 1e-6


Levels = TypeVar("Levels", float, np.ndarray, torch.Tensor)


def shift(sigmas: Levels, flow_shift: float) -> Levels:
    """Move noise levels in [0, 1] towards 1: s·σ / (1 + (s − 1)·σ) (SD3, arXiv 2403.03206, equation 23)."""
    return flow_shift * sigmas / (1 + (flow_shift - 1) * sigmas)


def flow_sigmas(num_inference_steps: int, flow_shift: float, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """The noise levels of `num_inference_steps` steps, [N + 1], falling from 1 − 1e-6 to exactly 0.

    Agrees with diffusers' UniPCMultistepScheduler (`use_flow_sigmas`, final sigma 0), which derives its integer
    timesteps from these float64 values and steps with them rounded to float32, as `denoise` does.
    Raises ValueError for fewer than one step, or a shift that is not finite and above 0.
    """
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps {num_inference_steps} is below 1; use 1 or more")
    if not (math.isfinite(flow_shift) and flow_shift > 0):
        raise ValueError(f"flow_shift {flow_shift} is not a finite number above 0; 1 is no shift")
    # numpy: torch's linspace rounds differently, and a truncated timestep would show it
    even = np.linspace(1.0, 1 / NUM_TRAIN_TIMESTEPS, num_inference_steps + 1)[:-1]
    sigmas = shift(even, flow_shift)
    sigmas[0] -= _FIRST_SIGMA_GAP  # log(1 − σ) must stay finite in the solver
    return torch.from_numpy(np.append(sigmas, 0.0)).to(dtype)


def timesteps(sigmas: torch.Tensor, integer: bool = True) -> torch.Tensor:
    """What the model is told at each step: 1000·σ, [N] for `sigmas` [N + 1].

    `integer=True` truncates, int64, as published; give float64 sigmas, or a level such as 0.667 may fall to 666.
    """
    exact = sigmas[:-1].double() * NUM_TRAIN_TIMESTEPS
    return exact.long() if integer else exact
