"""Temporal reasoning: how many frames are imagined, when they are dropped, and which ones stay.

Shapes: b batch, c channels, t latent frames, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chronoedit.request import EditRequest
from chronoedit.sampling.solvers import SolverState

EDIT_FRAMES = (0, -1)
"""The latent frames that stay after the drop: the input frame and the edit frame."""

PLAIN_VIDEO_FRAMES = 5
"""Pixel frames of an edit without reasoning: the input, then one group of four that holds the edit."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How one denoising run goes: `num_frames` pixel frames at first, cut to `EDIT_FRAMES` at the start of `drop_at`.

    `drop_at` is None when nothing is dropped: without reasoning, or when reasoning lasts through every step.
    With `trajectory`, the reasoning frames are finished too and shown.
    """

    num_frames: int
    num_steps: int
    drop_at: int | None
    trajectory: bool

    @property
    def reasons(self) -> bool:
        """Whether there are reasoning frames at all."""
        return self.num_frames > PLAIN_VIDEO_FRAMES


def plan_course(request: EditRequest, reasoning_frames: int) -> Course:
    """The course of a request whose defaults are filled in; `reasoning_frames` are the model's pixel frames (29).

    Source: ChronoEdit (arXiv 2510.04290), section on two-stage inference: the reasoning frames are denoised for the
    first `num_reasoning_steps` and then discarded.
    """
    steps = request.num_inference_steps
    if steps is None or (request.reasoning and request.num_reasoning_steps is None):
        raise ValueError("the request has open steps; fill in the model's defaults first (prepare.fill_defaults)")
    if not request.reasoning:
        return Course(num_frames=PLAIN_VIDEO_FRAMES, num_steps=steps, drop_at=None, trajectory=False)
    drop_at = request.num_reasoning_steps if request.num_reasoning_steps != steps else None
    return Course(num_frames=reasoning_frames, num_steps=steps, drop_at=drop_at, trajectory=request.return_trajectory)


def drop_reasoning_frames(state: SolverState, condition_latents: Tensor) -> tuple[SolverState, Tensor]:
    """The state and the condition with the input and edit frames alone: b c t h w → b c 2 h w, history included.

    The condition is *cut*: its last frame depends on all zero frames before it, so that a fresh one of five pixel
    frames would be another.
    """
    return state.keep_frames(EDIT_FRAMES), condition_latents[:, :, list(EDIT_FRAMES)]


def keep_rows(state: SolverState, rows: Sequence[int]) -> SolverState:
    """The state of only these rows of the batch, history included."""
    index = torch.tensor(rows, device=state.latents.device)
    return state.map(lambda tensor: tensor.index_select(0, index))  # b c t h w
