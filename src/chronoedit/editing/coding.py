"""How an editor uses the autoencoder: in which type, whole or in tiles, alone or with other processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLWan

from chronoedit.model.autoencoder import set_decode_dtype, use_channels_last
from chronoedit.model.small_convolutions import convolve_small_by_frames
from chronoedit.model.tiling import Tiling, sharing_side
from chronoedit.runtime.edit_processes import EditProcesses


@dataclass(frozen=True, kw_only=True)
class Coding:
    """Tiles of at most `tile_px` a side (None: none), the type in which the decoder computes (None: see `prepare`).

    `processes` share the tiles. Encoding is in float32 always. Raises ValueError for a type that is not a float's.
    """

    tile_px: int | None = None
    decode_dtype: torch.dtype | None = None
    processes: EditProcesses | None = None

    def __post_init__(self) -> None:
        if self.tile_px is not None and self.tile_px < 1:
            raise ValueError(f"tiles of {self.tile_px} px; give a multiple of the latents' cell, such as 256, or None")
        if self.decode_dtype is not None and not self.decode_dtype.is_floating_point:
            raise ValueError(f"decode_dtype is {self.decode_dtype}; use torch.float32 or torch.bfloat16")

    def prepare(self, autoencoder: AutoencoderKLWan) -> None:
        """Give the decoder its type, on the device where the autoencoder now is: bfloat16 on a CUDA device, else
        float32. There, convolutions have their channels last; elsewhere, small ones are summed from 2-D ones."""
        on_cuda = autoencoder.post_quant_conv.weight.device.type == "cuda"
        default = torch.bfloat16 if on_cuda else torch.float32
        set_decode_dtype(autoencoder, self.decode_dtype or default)
        if on_cuda:
            use_channels_last(autoencoder)
        else:
            convolve_small_by_frames(autoencoder)

    def alone(self) -> Tiling | None:
        """The tiles of what one process computes, whatever the others do."""
        return None if self.tile_px is None else Tiling(side_px=self.tile_px)

    def shared(self, autoencoder: AutoencoderKLWan, height: int, width: int) -> Tiling | None:
        """The tiles of a picture of `height` and `width` px; of several processes each has some, and all must call."""
        if self.processes is None:
            return self.alone()
        count = self.processes.layout.count
        largest = sharing_side(height, width, count, autoencoder.config.scale_factor_spatial)
        side = largest if self.tile_px is None else min(largest, self.tile_px)
        return Tiling(side_px=side, rank=self.processes.rank, count=count)
