"""The autoencoder in tiles without seams: less memory, the same numbers.

Shapes: b batch, c channels, T pixel frames, H W pixels, z latent channels, t latent frames, h w latent height and
width.

Attention sees whole frames, but only where they are smallest, next to the latents; all layers at larger sizes are
convolutions, upsampling and norms of single positions, which see a few neighbours. So what works at the latents' size
is computed for whole frames, and the rest, which takes the memory, tile by tile: each with the margin that its layers
see beyond it, cut off layer by layer as it has been used. Nothing is blended, and a tile has causal caches of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanCausalConv3d,
    WanMidBlock,
    WanResample,
    WanResidualBlock,
    WanResidualDownBlock,
    WanResidualUpBlock,
    WanUpBlock,
)
from torch import Tensor, nn

from chronoedit.model.frames import patchify, unpatchify

CACHED_FRAMES = 2
"""Frames of the past that a causal convolution looks at."""

CHUNK_FRAMES = 4
"""Pixel frames that the encoder takes at once, after the first, which goes alone."""

AROUND_PX = 56
"""What the published decoder sees around a tile; where the work is shared out, an estimate for all."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a picture is divided: tiles of at most `side_px` a side, of which this process computes its share.

    `rank` of `count` processes takes every count-th tile, and all get the whole by a sum over `group` (None: all
    processes that torch.distributed knows).
    """

    side_px: int
    rank: int = 0
    count: int = 1
    group: dist.ProcessGroup | None = None

    def __post_init__(self) -> None:
        if self.side_px < 1 or not 0 <= self.rank < self.count:
            raise ValueError(
                f"tiles of {self.side_px} px for process {self.rank} of {self.count}; 1 px or more, and a process from "
                "0 on are expected"
            )

    def tiles(self, height: int, width: int, unit_px: int) -> list[Window]:
        """This process's tiles, in units of `unit_px` pixels, of a picture of so many units."""
        every = [Window(*spans) for spans in product(*(self._spans(side, unit_px) for side in (height, width)))]
        return every[self.rank :: self.count]

    def joined(self, mine: Tensor) -> Tensor:
        """The tensor whose parts all processes have computed, each zero elsewhere."""
        if self.count > 1:
            dist.all_reduce(mine, group=self.group)
        return mine

    def _spans(self, units: int, unit_px: int) -> list[Span]:
        """A side in equal parts, none larger than allowed."""
        if self.side_px % unit_px or self.side_px < unit_px:
            below = max(1, self.side_px // unit_px) * unit_px
            raise ValueError(
                f"tiles of {self.side_px} px are not a multiple of {unit_px}; use {below} or {below + unit_px}"
            )
        parts = -(-units * unit_px // self.side_px)
        return [Span(*ends) for ends in pairwise(units * part // parts for part in range(parts + 1))]


def sharing_side(height: int, width: int, count: int, unit_px: int) -> int:
    """The side of tiles in pixels, a multiple of `unit_px`, with which the busiest of `count` processes does least."""

    def work(side: int) -> float:
        rows, columns = -(-height // side), -(-width // side)
        tile = min(height, height / rows + 2 * AROUND_PX) * min(width, width / columns + 2 * AROUND_PX)
        return -(-rows * columns // count) * tile

    return min(range(unit_px, max(height, width) + unit_px, unit_px), key=work)


@dataclass(frozen=True)
class Span:
    """Rows or columns from `start` until before `stop`."""

    start: int
    stop: int

    def within(self, size: int) -> Span:
        """Without what lies outside of 0 to `size`."""
        return Span(max(0, self.start), min(size, self.stop))

    def scaled(self, factor: int) -> Span:
        """In units so many times smaller."""
        return Span(self.start * factor, self.stop * factor)


@dataclass(frozen=True)
class Window:
    """A part of a frame."""

    rows: Span
    columns: Span

    def scaled(self, factor: int) -> Window:
        """In units so many times smaller."""
        return Window(self.rows.scaled(factor), self.columns.scaled(factor))

    def of(self, x: Tensor, beginning: tuple[int, int] = (0, 0)) -> Tensor:
        """This part of … h w, whose first cell lies at `beginning`."""
        top, left = beginning
        rows = slice(self.rows.start - top, self.rows.stop - top)
        return x[..., rows, self.columns.start - left : self.columns.stop - left]


class Caches:
    """What the causal convolutions of a series of layers keep of the chunks before, in their order."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.kept: list[Any] = [None] * sum(layer.convolutions for layer in layers)
        self.index = [0]


@dataclass(frozen=True)
class Reach:
    """What a layer sees: `before(span)` are the rows that it needs for these of its output.

    Of its input it makes `grows` times as many rows, divided by `shrinks`.
    """

    before: Callable[[Span], Span]
    grows: int = 1
    shrinks: int = 1

    def after(self, size: int) -> int:
        """Rows of the output of so many, and where those begin that begin there."""
        return size * self.grows // self.shrinks


@dataclass(frozen=True)
class Layer:
    """A layer, `run(x, caches, first_chunk)`, and what it sees; without a reach it sees whole frames."""

    module: nn.Module
    run: Callable[[Tensor, Caches, bool], Tensor]
    reach: Reach | None

    @property
    def convolutions(self) -> int:
        """Causal ones, each of which has a cache; some modules leave theirs empty."""
        return sum(isinstance(module, WanCausalConv3d) for module in self.module.modules())

    @property
    def resizes(self) -> bool:
        """Whether its output has another height and width."""
        return self.reach is not None and self.reach.grows != self.reach.shrinks


class TiledLayers:
    """A series of layers that is computed tile by tile, from inputs of `height` and `width`.

    Raises ValueError for one that sees whole frames.
    """

    def __init__(self, layers: Sequence[Layer], height: int, width: int) -> None:
        self.layers, self.reaches = layers, list(_reaches(layers))
        self.sizes = [(height, width)]
        for reach in self.reaches:
            rows, columns = self.sizes[-1]
            self.sizes.append((reach.after(rows), reach.after(columns)))

    def needed(self, window: Window) -> list[Window]:
        """What every layer needs of its input for a window of the last one's output, and that window."""
        windows = [window]
        for reach, (height, width) in zip(reversed(self.reaches), self.sizes[-2::-1], strict=True):
            rows, columns = reach.before(windows[0].rows), reach.before(windows[0].columns)
            windows.insert(0, Window(rows.within(height), columns.within(width)))
        return windows

    def run(self, chunks: Iterable[Tensor], windows: Sequence[Window]) -> Iterator[Tensor]:
        """The last of these windows for each chunk of frames, from chunks cut to the first of them."""
        caches = Caches(self.layers)
        for number, x in enumerate(chunks):
            caches.index[0] = 0
            for layer, reach, here, wanted in zip(self.layers, self.reaches, windows[:-1], windows[1:], strict=True):
                x = layer.run(x, caches, number == 0)
                x = wanted.of(x, (reach.after(here.rows.start), reach.after(here.columns.start)))
            yield x


def run_whole(layers: Sequence[Layer], chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """The layers' output for each chunk of frames, all of it at once."""
    caches = Caches(layers)
    for number, x in enumerate(chunks):
        caches.index[0] = 0
        for layer in layers:
            x = layer.run(x, caches, number == 0)
        yield x


def decode_tiles(autoencoder: AutoencoderKLWan, latents: Tensor, tiling: Tiling) -> Tensor:
    """The video b 3 T H W, *not* clamped, of latents b z t h w, not normalised: that of `autoencoder.decode`.

    Raises ValueError for tiles that are no multiple of a latent cell.
    """
    layers = decoder_layers(autoencoder)
    cut = next((index for index, layer in enumerate(layers) if layer.resizes), len(layers))
    features = list(run_whole(layers[:cut], autoencoder.post_quant_conv(latents).split(1, dim=2)))  # b c 1 h w each
    height, width = latents.shape[-2:]
    tiled, patch_size = TiledLayers(layers[cut:], height, width), autoencoder.config.patch_size
    cells = tiled.sizes[-1][0] // height
    unit_px, frames = cells * (patch_size or 1), 1 + (latents.shape[2] - 1) * autoencoder.config.scale_factor_temporal
    video = latents.new_zeros(latents.shape[0], 3, frames, height * unit_px, width * unit_px)  # b 3 T H W
    for tile in tiling.tiles(height, width, unit_px):
        windows, place, done = tiled.needed(tile.scaled(cells)), tile.scaled(unit_px).of(video), 0
        for chunk in tiled.run((windows[0].of(each) for each in features), windows):
            pixels = each_frame(unpatchify, chunk, patch_size)  # b 3 T h w
            place[:, :, done : done + pixels.shape[2]] = pixels
            done += pixels.shape[2]
    return tiling.joined(video)


def encode_tiles(autoencoder: AutoencoderKLWan, video: Tensor, tiling: Tiling) -> Tensor:
    """Posterior moments b 2z t h w of a video b 3 T H W in [-1, 1]: those of `autoencoder.encode`.

    Raises ValueError for tiles that are no multiple of a latent cell, and for an encoder that attends where frames are
    large.
    """
    layers, patch_size = encoder_layers(autoencoder), autoencoder.config.patch_size
    cut = 1 + max((index for index, layer in enumerate(layers) if layer.resizes), default=-1)
    side = patch_size or 1
    tiled = TiledLayers(layers[:cut], video.shape[-2] // side, video.shape[-1] // side)
    height, width = tiled.sizes[-1]
    chunks = [video[:, :, :1], *(video[:, :, 1:].split(CHUNK_FRAMES, dim=2) if video.shape[2] > 1 else ())]
    features: list[Tensor] = []
    unit_px = video.shape[-2] // height
    mine = tiling.tiles(height, width, unit_px)
    # A process without a tile computes one all the same, for the shapes of what it adds nothing to.
    for tile in mine or replace(tiling, rank=0).tiles(height, width, unit_px)[:1]:
        windows = tiled.needed(tile)
        cut_out = (each_frame(patchify, windows[0].scaled(side).of(chunk), patch_size) for chunk in chunks)
        for number, cells in enumerate(tiled.run(cut_out, windows)):
            if number == len(features):
                features.append(cells.new_zeros(*cells.shape[:3], height, width))  # b c 1 h w
            if mine:
                tile.of(features[number])[:] = cells
    whole = [tiling.joined(each) for each in features]
    return autoencoder.quant_conv(torch.cat(list(run_whole(layers[cut:], whole)), dim=2))


def each_frame(function: Callable[[Tensor, int | None], Tensor], x: Tensor, patch_size: int | None) -> Tensor:
    """`patchify` or `unpatchify` of every frame of b c t h w."""
    b, _, t, _, _ = x.shape
    return function(x.transpose(1, 2).flatten(0, 1), patch_size).unflatten(0, (b, t)).transpose(1, 2)


def decoder_layers(autoencoder: AutoencoderKLWan) -> list[Layer]:
    """The decoder's layers in order, `post_quant_conv` not among them."""
    decoder = autoencoder.decoder
    blocks = [layer for block in decoder.up_blocks for layer in _up(block)]
    return [_convolution(decoder.conv_in), _module(decoder.mid_block), *blocks, _head(decoder)]


def encoder_layers(autoencoder: AutoencoderKLWan) -> list[Layer]:
    """The encoder's layers in order, `quant_conv` not among them."""
    encoder = autoencoder.encoder
    blocks = [_module(block) for block in encoder.down_blocks]
    return [_convolution(encoder.conv_in), *blocks, _module(encoder.mid_block), _head(encoder)]


def _reaches(layers: Sequence[Layer]) -> Iterator[Reach]:
    for layer in layers:
        if layer.reach is None:
            raise ValueError(
                f"the autoencoder's {type(layer.module).__name__} sees whole frames where they are large "
                "(attn_scales in vae/config.json), so it cannot be computed in tiles; leave tiles out"
            )
        yield layer.reach


def _up(block: WanUpBlock | WanResidualUpBlock) -> list[Layer]:
    """The layers of an upsampling block; one with a shortcut around all of it is a single layer."""
    if isinstance(block, WanResidualUpBlock):
        return [_module(block)]
    return [_module(layer) for layer in (*block.resnets, *(block.upsamplers or ()))]


def _convolution(conv: WanCausalConv3d) -> Layer:
    return Layer(conv, lambda x, caches, _: _causal(conv, x, caches), _sees(1))


def _head(coder: Any) -> Layer:
    """The last norm and convolution of the encoder or the decoder."""
    return Layer(
        coder.conv_out,
        lambda x, caches, _: _causal(coder.conv_out, coder.nonlinearity(coder.norm_out(x)), caches),
        _sees(1),
    )


def _causal(conv: WanCausalConv3d, x: Tensor, caches: Caches) -> Tensor:
    place = caches.index[0]
    past = caches.kept[place]
    caches.index[0] += 1
    caches.kept[place] = (x if past is None else torch.cat([past, x], dim=2))[:, :, -CACHED_FRAMES:].clone()
    return conv(x, past)


def _module(module: nn.Module) -> Layer:
    def run(x: Tensor, caches: Caches, first_chunk: bool) -> Tensor:
        if isinstance(module, WanAttentionBlock):
            return module(x)
        first = {"first_chunk": first_chunk} if isinstance(module, WanResidualUpBlock) else {}
        return module(x, feat_cache=caches.kept, feat_idx=caches.index, **first)

    return Layer(module, run, _reach(module))


def _reach(module: nn.Module) -> Reach | None:
    """What a module of diffusers' autoencoder sees. Raises ValueError for one that is not known."""
    match module:
        case WanMidBlock() | WanAttentionBlock():
            return None
        case WanResidualBlock():
            return _sees(2)
        case WanResample(mode="upsample2d" | "upsample3d"):
            return Reach(_above, grows=2)
        case WanResample(mode="downsample2d" | "downsample3d"):
            return Reach(_below, shrinks=2)
        case WanResidualUpBlock(upsampler=upsampler, resnets=resnets):
            seen = _sees(2 * len(resnets))
            return seen if upsampler is None else Reach(lambda span: seen.before(_above(span)), grows=2)
        case WanResidualDownBlock(downsampler=downsampler, resnets=resnets):
            around = _sees(2 * len(resnets))
            return around if downsampler is None else Reach(lambda span: _even(around.before(_below(span))), shrinks=2)
    raise ValueError(f"the autoencoder's {type(module).__name__} is not known here; leave tiles out")


def _sees(cells: int) -> Reach:
    """So many cells on either side."""
    return Reach(lambda span: Span(span.start - cells, span.stop + cells))


def _above(span: Span) -> Span:
    """Each cell becomes two, over which a convolution sees one on either side."""
    return Span((span.start - 1) // 2, (span.stop + 2) // 2)


def _below(span: Span) -> Span:
    """A convolution sees three cells, of which the first two become one."""
    return Span(2 * span.start, 2 * span.stop + 1)


def _even(span: Span) -> Span:
    """Whole pairs, which a shortcut averages."""
    return Span(span.start // 2 * 2, (span.stop + 1) // 2 * 2)
