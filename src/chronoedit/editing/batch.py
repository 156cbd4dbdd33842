"""Which edits can share a forward, and the rows that they make: one for each variant of each edit.

Shapes: b rows, z latent channels, t latent frames, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from chronoedit.editing.prepare import PreparedEdit


def group_edits(edits: Sequence[PreparedEdit]) -> list[list[int]]:
    """Indices of the edits that can share a forward, group by group, in the order in which they were given."""
    groups: dict[Hashable, list[int]] = {}
    for index, edit in enumerate(edits):
        groups.setdefault(_shared(edit), []).append(index)
    return list(groups.values())


def row_edits(edits: Sequence[PreparedEdit]) -> list[int]:
    """For each row of the batch the edit that it belongs to: edit 0's variants first."""
    return [index for index, edit in enumerate(edits) for _ in range(edit.request.num_variants)]


def row_seeds(edits: Sequence[PreparedEdit]) -> list[int]:
    """The seed of each row: variant k of an edit is drawn from its seed + k."""
    seeds = []
    for edit in edits:
        assert edit.request.seed is not None  # filled in by prepare
        seeds += [edit.request.seed + k for k in range(edit.request.num_variants)]
    return seeds


def initial_noise(edits: Sequence[PreparedEdit], device: torch.device, given: Tensor | None) -> Tensor:
    """The initial latents of all rows, b z t h w in fp32 on the device: drawn row by row, or `given` after a check.

    Drawn on the CPU, unless the requests say `noise_device="device"`: so that a seed means the same everywhere.
    Raises ValueError when what was given has another shape or is not finite.
    """
    seeds, shape = row_seeds(edits), edits[0].latent_shape
    if given is not None:
        return _checked(given, (len(seeds), *shape)).to(device=device, dtype=torch.float32)
    source = device if edits[0].request.noise_device == "device" else torch.device("cpu")
    rows = []
    for seed in seeds:
        generator = torch.Generator(source).manual_seed(seed)
        rows.append(torch.randn((1, *shape), generator=generator, device=source, dtype=torch.float32))
    return torch.cat(rows).to(device)  # b z t h w


def _checked(noise: Tensor, expected: tuple[int, ...]) -> Tensor:
    if tuple(noise.shape) != expected:
        raise ValueError(
            f"noise has shape {tuple(noise.shape)}; this edit needs {expected} (rows, channels, latent frames, height, "
            "width): one row a variant, and all reasoning frames where reasoning is on"
        )
    if not torch.isfinite(noise).all():
        raise ValueError("noise holds NaN or infinite values; give finite ones, such as torch.randn")
    return noise


def _shared(edit: PreparedEdit) -> Hashable:
    """What must agree between edits that share each forward and its step."""
    request = edit.request
    return (
        edit.latent_shape,
        edit.course,
        request.guidance_scale,
        request.guidance_until,
        request.step_cache,
        request.flow_shift,
        request.solver,
        request.integer_timesteps,
        request.noise_device,
    )
