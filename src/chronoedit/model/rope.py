"""Rotary position embedding of the video tokens, from explicit frame positions.

Shapes: b batch, s tokens (frames · rows · columns, in that order), n heads, h channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

THETA = 10000.0


def default_frame_positions(num_frames: int, skip_len: int, device: torch.device | str | None = None) -> Tensor:
    """Temporal positions of `num_frames` latent frames, int64 `t`: two frames stand at {0, skip_len - 1}, else 0…t-1.

    An edit of two frames is thereby the same as a video of `skip_len` frames whose middle was dropped. Training and
    inference both take their positions from here.
    """
    if num_frames == 2:
        return torch.arange(2, device=device) * (skip_len - 1)
    return torch.arange(num_frames, device=device)


def rotary_table(frame_positions: Tensor, rows: int, columns: int, head_dim: int) -> Tensor:
    """Rotation of every token's channel pairs, cosine and sine, fp32 `1 s 1 h/2 2`, for s = frames · rows · columns.

    The channels of a head are shared out to time, rows and columns twice: once for the frequencies (44, 42, 42 at
    head_dim 128) and once for the positions. The two agree but for head_dim ≡ 4 mod 6, where a pair of channels may
    even take its cosine from one axis and its sine from the next; published weights were trained so, and diffusers'
    `ChronoEditTransformer3DModel` computes so.
    """
    device = frame_positions.device
    dtype = torch.float32 if device.type == "mps" else torch.float64  # mps has no fp64
    frequencies = _pair_frequencies(head_dim, dtype, device)
    positions = (frame_positions, torch.arange(rows, device=device), torch.arange(columns, device=device))
    grid = (len(frame_positions), rows, columns)
    cos_shares, sin_shares = _pairs_per_axis(head_dim)

    def over_grid(wave: Callable[[Tensor], Tensor], shares: list[int]) -> Tensor:
        axes = []
        for axis, (position, frequency) in enumerate(zip(positions, frequencies.split(shares), strict=True)):
            values = wave(torch.outer(position.to(dtype), frequency)).float()
            shape = [grid[axis] if a == axis else 1 for a in range(3)]
            axes.append(values.view(*shape, -1).expand(*grid, -1))  # frames rows columns pairs
        return torch.cat(axes, dim=-1).view(1, -1, 1, head_dim // 2)  # 1 s 1 h/2

    return torch.stack([over_grid(torch.cos, cos_shares), over_grid(torch.sin, sin_shares)], dim=-1)  # 1 s 1 h/2 2


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turns each pair of channels of `x`, `b s n h`, by its token's angle; computed in fp32, returned in x's dtype.

    `rotary`, `1 s 1 h/2 2`: see `rotary_table`.
    """
    pairs = x.float().unflatten(-1, (-1, 2))  # b s n h/2 2
    if torch.compiler.is_compiling():
        # The compiler fuses real arithmetic with what stands around it, but generates no code for complex numbers.
        (cos, sin), (even, odd) = rotary.unbind(-1), pairs.unbind(-1)
        turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    else:
        # One pass over memory: on a CPU eight times faster than the four products, and the same bits.
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotary))
    return turned.flatten(-2).type_as(x)  # b s n h


def _pair_frequencies(head_dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    space = 2 * (head_dim // 6)
    shares = (head_dim - 2 * space, space, space)
    ramps = [torch.arange(0, share, 2, dtype=dtype, device=device) / share for share in shares]
    return 1.0 / THETA ** torch.cat(ramps)  # h/2


def _pairs_per_axis(head_dim: int) -> tuple[list[int], list[int]]:
    """How many cosines (of even channels) and sines (of odd channels) fall to time, rows and columns."""
    space = head_dim // 3
    ends = (0, head_dim - 2 * space, head_dim - space, head_dim)
    cosines = [(end + 1) // 2 - (start + 1) // 2 for start, end in zip(ends[:-1], ends[1:], strict=True)]
    sines = [end // 2 - start // 2 for start, end in zip(ends[:-1], ends[1:], strict=True)]
    return cosines, sines
