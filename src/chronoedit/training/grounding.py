"""A head in training that tells, from the middle of the transformer, where the edit is.

The loss of the flow rewards little at first for finding out which thing an instruction means: a picture that is wrong
in one thing is mostly right. But the world knows which pixels show what is edited, before and after. So the tokens
after one block are also asked for it: what share of each latent cell of the input frame, and of the edit frame, belongs
to what is edited. The head is dropped after the training. Losses on what the middle of a diffusion transformer knows
are from Yu 2024 (arXiv 2410.06940), where another model's features are the answer; here the simulator's truth is.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from chronoedit.model.dit import ChronoEditDiT

CELLS_A_SIDE = 2
"""Latent cells on each side of a token's patch."""


class GroundingHead(nn.Module):
    """Reads the tokens of the first and last frame: the logit of each latent cell's share that is edited."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm_cells = nn.LayerNorm(dim)
        self.to_cells = nn.Linear(dim, CELLS_A_SIDE**2)

    def forward(self, hidden: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """`b s d` of t·h·w tokens in a `grid` (t, h, w) to `b 2 2h 2w`."""
        t, h, w = grid
        frames = rearrange(hidden, "b (t s) d -> b t s d", t=t)[:, [0, -1]].float()
        return rearrange(
            self.to_cells(self.norm_cells(frames)),
            "b t (h w) (i j) -> b t (h i) (w j)", h=h, w=w, i=CELLS_A_SIDE, j=CELLS_A_SIDE,
        )  # fmt: skip


class MiddleOf:
    """Keeps what the transformer's middle block gives, for each thread its own, while gradients are wanted."""

    def __init__(self, transformer: ChronoEditDiT) -> None:
        self._kept = threading.local()
        blocks = transformer.blocks
        blocks[(len(blocks) - 1) // 2].register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, given: tuple[Any, ...], hidden: Tensor) -> None:
        if torch.is_grad_enabled():
            self._kept.hidden = hidden

    def take(self) -> Tensor:
        """What this thread's last pass gave: `b s d`."""
        hidden = self._kept.hidden
        del self._kept.hidden
        return hidden


def grounding_loss(logits: Tensor, edited: Tensor) -> Tensor:
    """Cross-entropy of each item, b, from logits and true shares in [0, 1], both b 2 h w."""
    return F.binary_cross_entropy_with_logits(logits, edited, reduction="none").mean(dim=(1, 2, 3))
