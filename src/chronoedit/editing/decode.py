"""From final latents to what was asked for: the edit, and the reasoning video only where it is wanted.

Shapes: b rows, z latent channels, t latent frames, h w latent height and width; pixels are T H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from torch import Tensor

from chronoedit.editing.batch import row_edits
from chronoedit.editing.coding import Coding
from chronoedit.editing.denoise import Report
from chronoedit.editing.prepare import PreparedEdit, fit, to_frames
from chronoedit.editing.reason import EDIT_FRAMES
from chronoedit.model import autoencoder
from chronoedit.model.tiling import Tiling

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The pictures of one edit: `images`, one a variant; `video` and `trajectory` uint8 T H W 3 of variant 0."""

    images: list[PIL.Image.Image]
    video: np.ndarray
    trajectory: np.ndarray | None


def decode_batch(
    model: AutoencoderKLWan,
    edits: Sequence[PreparedEdit],
    latents: Tensor,
    shown: Tensor | None,
    report: Report,
    coding: Coding,
) -> list[Decoded]:
    """Decode the rows `latents` b z t h w, and `shown`, all frames of each edit's variant 0 (None: no trajectory).

    One row at a time: a picture then does not depend on the rows beside it, and memory stays that of one edit. Several
    processes share the tiles of each row, and all get all pictures.
    """
    owners = row_edits(edits)
    total = len(owners) + (0 if shown is None else len(edits))
    videos: list[list[np.ndarray]] = [[] for _ in edits]
    for row, owner in enumerate(owners):
        report("decode", row, total)
        videos[owner].append(decode_edit(model, latents[row : row + 1], coding))
    decoded = []
    for index, (edit, variants) in enumerate(zip(edits, videos, strict=True)):
        trajectory = None
        if shown is not None:
            report("decode", len(owners) + index, total)
            trajectory = decode_trajectory(model, shown[index : index + 1], variants[0], coding)
        images = [_photo(edit, video) for video in variants]
        decoded.append(Decoded(images=images, video=variants[0], trajectory=trajectory))
    report("decode", total, total)
    return decoded


def decode_edit(model: AutoencoderKLWan, latents: Tensor, coding: Coding) -> np.ndarray:
    """Latents 1 z t h w → uint8 5 H W 3, from the input frame to the edit, out of the first and last frame alone."""
    return to_frames(autoencoder.decode(model, latents, frames=EDIT_FRAMES, tiling=_tiling(model, latents, coding))[0])


def decode_trajectory(model: AutoencoderKLWan, latents: Tensor, video: np.ndarray, coding: Coding) -> np.ndarray:
    """All frames, 1 z t h w, and the edit's decoded video → uint8 T H W 3: the reasoning frames, then the edit.

    The edit frame is the last of the group of four that its latent decodes to; the published clips end so too.
    """
    tiling = _tiling(model, latents, coding)
    reasoning = to_frames(autoencoder.decode(model, latents[:, :, :-1], tiling=tiling)[0])
    return np.concatenate([reasoning, video[-1:]])  # T H W 3


def _tiling(model: AutoencoderKLWan, latents: Tensor, coding: Coding) -> Tiling | None:
    height, width = (side * model.config.scale_factor_spatial for side in latents.shape[-2:])
    return coding.shared(model, height, width)


def _photo(edit: PreparedEdit, video: np.ndarray) -> PIL.Image.Image:
    """The edit frame, at the photo's own size where the request says so."""
    picture = PIL.Image.fromarray(video[-1])
    width, height = edit.photo_size
    return fit(picture, height, width) if edit.request.at_photo_size else picture
