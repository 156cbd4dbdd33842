"""How many bytes a part of the model works in, and how many FLOPs it does, by the shape of what it is given.

Counted from the code, moment by moment, as torch hands memory out; tests count again. FLOPs are two a product and sum.
Shapes: f frames that the autoencoder takes at once, c channels, s video tokens, d width of the transformer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from chronoedit.runtime.plan_facts import AutoencoderShape, EncoderShape, Shape

FP32 = 4
CACHED_FRAMES = 2
"""Frames that a causal convolution keeps of the chunk before."""

CHUNK_FRAMES = 4
"""Pixel frames that the autoencoder takes at once, after the first, which goes alone."""

FEW_NUMBERS = 20480
"""Where channels times frames times rows are no more than these, torch convolves on a CPU by a matrix product."""

# Bytes for each video token of a block at the two moments that take most: when keys are turned by their angles, for
# each channel of the width; and in the feed-forward, for each channel of the width and of the feed-forward. By the
# bytes of a weight.
TURNING = {4: 30, 2: 24}
FEEDING = {4: (14, 8), 2: (8, 4)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A convolution of the autoencoder: `cells` and `frames` of its output in one chunk, channels, taps.

    `cached` numbers stay until the next chunk comes; `live` ones lie there beside all caches at its worst moment, and
    `live_on_cpu` where the CPU computes it. `in_tile`: the cells are those of one tile, not of the whole frame.
    """

    cells: float
    frames: int
    channels_in: int
    channels_out: int
    taps: int
    cached: float = 0.0
    live: float = 0.0
    live_on_cpu: float = 0.0
    in_tile: bool = False


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Pictures of a size divided as `model.tiling` does: the largest tile, in cells of the latents at first, and how
    many in a column and in a row."""

    height: int
    width: int
    down: int
    across: int

    @classmethod
    def of(cls, shape: AutoencoderShape, height: int, width: int, tile_px: int) -> Tiles:
        """Those of at most `tile_px` a side."""
        unit_px = shape.scale_factor_spatial
        down, across = (-(-side // tile_px) for side in (height, width))
        return cls(height=-(-height // unit_px // down), width=-(-width // unit_px // across), down=down, across=across)

    @property
    def count(self) -> int:
        """All of them."""
        return self.down * self.across

    def rows(self, beside: int) -> int:
        """Of a tile with what lies beside it; one at the edge of the picture has a neighbour on one side alone."""
        return self.height + beside * min(self.down - 1, 2) // 2

    def columns(self, beside: int) -> int:
        """As `rows`."""
        return self.width + beside * min(self.across - 1, 2) // 2

    def scaled(self, space: float) -> Tiles:
        """The tiles of another level."""
        return replace(self, height=round(self.height * space), width=round(self.width * space))


@dataclass(frozen=True)
class Chunk:
    """What goes through the layers at once: frames of so many rows and columns, at one level of the autoencoder.

    In `tiles` it is one of them, with the rows, and as many columns, that layers see `beside` it on both sides
    together, as far as there are any.
    """

    frames: int
    height: int
    width: int
    tiles: Tiles | None = None
    beside: int = 0

    @property
    def rows(self) -> int:
        """Of the frame, or of what is computed for a tile."""
        return self.height if self.tiles is None else min(self.height, self.tiles.rows(self.beside))

    @property
    def cells(self) -> int:
        """Of one frame."""
        return self.rows * (self.width if self.tiles is None else min(self.width, self.tiles.columns(self.beside)))

    def scaled(self, *, space: float = 1, time: float = 1) -> Chunk:
        """The chunk of another level."""
        return replace(
            self,
            frames=round(self.frames * time),
            height=round(self.height * space),
            width=round(self.width * space),
            tiles=None if self.tiles is None else self.tiles.scaled(space),
        )

    def seeing(self, beside: int) -> Chunk:
        """Before layers that see so many rows beside a tile."""
        return replace(self, beside=max(0, beside))


def encoder_steps(shape: AutoencoderShape, height: int, width: int, tiles: Tiles | None = None) -> Iterator[Step]:
    """The convolutions of the encoder, in order, for one chunk of four frames; in tiles, down to the latents' size."""
    side, last = shape.patch_size or 1, len(shape.dim_mult) - 1
    chunk, beside = Chunk(CHUNK_FRAMES, height // side, width // side), _beside_encoded(shape)
    if tiles is not None:
        chunk = replace(chunk, tiles=tiles.scaled(2**last), beside=beside[0])
    channels = [shape.base_dim * factor for factor in (1, *shape.dim_mult)]
    yield _causal(chunk, shape.in_channels, channels[0], held=1)
    chunk = chunk.seeing(chunk.beside - 2)
    for level, (before, after) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
        if level == last:
            chunk = replace(chunk, tiles=None)
        for _ in range(shape.num_res_blocks):
            yield from _residual(chunk, before, after, held=1)
            before, chunk = after, chunk.seeing(chunk.beside - 4)
        if level < last:
            chunk = chunk.scaled(space=1 / 2).seeing(beside[level + 1])
            yield _plain(chunk, after, after, live=8 + 1, on_cpu=4)
            if shape.temperal_downsample[level]:
                chunk = chunk.scaled(time=1 / 2)
                yield _in_time(chunk, after, after, cached_frames=1)
    yield from _middle(chunk, channels[-1])
    yield _causal(chunk, channels[-1], 2 * shape.z_dim, held=1)


def decoder_steps(shape: AutoencoderShape, height: int, width: int, tiles: Tiles | None = None) -> Iterator[Step]:
    """The convolutions of the decoder, in order, for one latent frame that is not the first; in tiles, from the
    latents' size on."""
    base, side, last = shape.decoder_base_dim or shape.base_dim, shape.scale_factor_spatial, len(shape.dim_mult) - 1
    chunk, beside = Chunk(1, height // side, width // side), _beside_decoded(shape)
    channels = [base * factor for factor in (shape.dim_mult[-1], *reversed(shape.dim_mult))]
    upsample = tuple(reversed(shape.temperal_downsample))
    yield _causal(chunk, shape.z_dim, channels[0], held=1)
    yield from _middle(chunk, channels[0])
    for level, (before, after) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
        before = before // 2 if level else before
        for _ in range(shape.num_res_blocks + 1):
            yield from _residual(chunk, before, after, held=2)
            before, chunk = after, chunk.seeing(chunk.beside - 4)
        if level == 0 and tiles is not None:
            chunk = replace(chunk, tiles=tiles, beside=beside[0])
        if level < last:
            if upsample[level]:
                yield _in_time(chunk, after, 2 * after, cached_frames=CACHED_FRAMES)
                chunk = chunk.scaled(time=2)
            chunk = chunk.scaled(space=2).seeing(2 * chunk.beside)
            yield _plain(chunk, after, after // 2, live=1 / 2 + 1 + 1 / 2, on_cpu=1)
            chunk = chunk.seeing(beside[level + 1])
    yield _causal(chunk, channels[-1], shape.out_channels, held=1)


def _beside_encoded(shape: AutoencoderShape) -> list[int]:
    """Rows that each level of the encoder needs beyond a tile of its input, on both sides; the last is whole."""
    found = [0]
    for level in reversed(range(len(shape.dim_mult) - 1)):
        found.insert(0, 2 * found[0] + 1 + 4 * shape.num_res_blocks + (2 if level == 0 else 0))
    return found


def _beside_decoded(shape: AutoencoderShape) -> list[int]:
    """The same of the decoder's levels; of the first, what its upsampling needs."""
    residual = 4 * (shape.num_res_blocks + 1)
    found = [residual + 2]
    for _ in shape.dim_mult[1:]:
        found.insert(0, residual + 2 * -(-(found[0] // 2 + 1) // 2))
    return [found[0] - residual, *found[1:]]


def _causal(chunk: Chunk, channels_in: int, channels_out: int, *, held: int) -> Step:
    """3×3×3 taps over a chunk and the frames before: its input, those of `held` callers, the chunk joined and padded.

    On a CPU the joined frames are gone when it begins, and they are there once more in another order, or once for each
    tap where they are few.
    """
    joined = (chunk.frames + CACHED_FRAMES) * channels_in
    beside = (held + 1) * chunk.frames * channels_in + joined + CACHED_FRAMES * channels_in
    reordered = channels_in * (chunk.frames + CACHED_FRAMES) * (chunk.rows + 2) > FEW_NUMBERS
    again = joined if reordered else 27 * chunk.frames * channels_in
    on_cpu = max(beside + joined, beside + again + chunk.frames * channels_out)
    return Step(
        cells=chunk.cells,
        frames=chunk.frames,
        channels_in=channels_in,
        channels_out=channels_out,
        taps=27,
        cached=CACHED_FRAMES * chunk.cells * channels_in,
        live=chunk.cells * (beside + joined),
        live_on_cpu=chunk.cells * on_cpu,
        in_tile=chunk.tiles is not None,
    )


def _residual(chunk: Chunk, before: int, after: int, *, held: int) -> Iterator[Step]:
    yield _causal(chunk, before, after, held=held)
    if before != after:
        yield _plain(chunk, before, after, taps=1)
    yield _causal(chunk, after, after, held=held)


def _middle(chunk: Chunk, channels: int) -> Iterator[Step]:
    yield from _residual(chunk, channels, channels, held=1)
    yield _plain(chunk, channels, 4 * channels, live=8, taps=1)
    yield from _residual(chunk, channels, channels, held=1)


def _plain(
    chunk: Chunk, channels_in: int, channels_out: int, *, live: float = 0, on_cpu: float = 0, taps: int = 9
) -> Step:
    """A convolution of single frames, which keeps nothing; `live` in inputs, with `on_cpu` more on a CPU."""
    numbers = chunk.frames * chunk.cells * channels_in
    return Step(
        cells=chunk.cells,
        frames=chunk.frames,
        channels_in=channels_in,
        channels_out=channels_out,
        taps=taps,
        live=live * numbers,
        live_on_cpu=(live + on_cpu) * numbers,
        in_tile=chunk.tiles is not None,
    )


def _in_time(chunk: Chunk, channels_in: int, channels_out: int, *, cached_frames: int) -> Step:
    """A convolution over three frames of each cell."""
    return Step(
        cells=chunk.cells,
        frames=chunk.frames,
        channels_in=channels_in,
        channels_out=channels_out,
        taps=3,
        cached=cached_frames * chunk.cells * channels_in,
        in_tile=chunk.tiles is not None,
    )


def autoencoder_bytes(steps: Sequence[Step], chunks: int, *, on_cpu: bool, number_bytes: int = FP32) -> int:
    """The most that a pass over so many chunks works in, where a number takes so many bytes.

    In tiles: the most of the steps on whole frames or of those in one tile; between them the numbers of all chunks
    wait. What norms and upsampling do in float32 evens out in bf16 with what else they need less.
    """
    whole, tiled = ([step for step in steps if step.in_tile == in_tile] for in_tile in (False, True))
    most = max(_most(group, chunks, on_cpu=on_cpu) for group in (whole, tiled))
    if tiled:
        first = steps[0].in_tile
        inner = whole[0] if first else whole[-1]
        most += chunks * inner.cells * (inner.channels_in if first else inner.channels_out)
    return round(number_bytes * most)


def _most(steps: Sequence[Step], chunks: int, *, on_cpu: bool) -> float:
    """Numbers, at each step those in the caches, full before it, and what is live.

    In the second chunk, the caches of later steps still hold the one frame of the first.
    """
    later = 1.0 if chunks > 2 else 0.5
    most, full, total = 0.0, 0.0, sum(step.cached for step in steps)
    for step in steps:
        most = max(most, full + later * (total - full) + (step.live_on_cpu if on_cpu else step.live))
        full += step.cached
    return most


def autoencoder_flops(steps: Sequence[Step], chunks: int, tiles: Tiles | None = None) -> float:
    """Of the convolutions, whose first chunk is of one frame; of all tiles, as if each were the largest."""
    count = 1 if tiles is None else tiles.count
    return sum(
        2.0
        * (count if step.in_tile else 1)
        * step.taps
        * step.channels_in
        * step.channels_out
        * step.cells
        * (1 + (chunks - 1) * step.frames)
        for step in steps
    )


def block_bytes(shape: Shape, tokens: int, weight_bytes: int) -> int:
    """What a forward of the transformer works in at most, for the tokens of all its rows."""
    width, ffn = FEEDING[weight_bytes]
    return tokens * max(TURNING[weight_bytes] * shape.width, width * shape.width + ffn * shape.ffn_dim)


def prompt_kv_bytes(shape: Shape, keys: int, weight_bytes: int) -> int:
    """Keys and values of all blocks for so many tokens of prompts and pictures."""
    return 2 * shape.layers * keys * shape.width * weight_bytes


def forward_flops(shape: Shape, tokens: int, keys: int) -> float:
    """Of one row of video tokens that attends to so many keys of the prompt, which were made before."""
    products = tokens * (12.0 * shape.width**2 + 4.0 * shape.width * shape.ffn_dim)
    attention = 4.0 * tokens * (tokens + keys) * shape.width
    return shape.layers * (products + attention)


def prompt_flops(shape: Shape, keys: int) -> float:
    """Of making keys and values of so many prompt tokens for every block."""
    return 4.0 * shape.layers * keys * shape.width**2


def text_bytes(shape: EncoderShape, weight_bytes: int) -> int:
    """What the text encoder works in: attention logits of all heads, positions in int64, and the gated feed-forward."""
    scores = shape.tokens**2 * (shape.heads * (2 * weight_bytes + 2 * FP32) + 6 * 8)
    return scores + shape.tokens * (5 * FP32 * shape.width + 3 * weight_bytes * shape.ffn_dim)


def image_bytes(shape: EncoderShape) -> int:
    """What the image encoder works in; it keeps the states of all its layers."""
    return shape.tokens * FP32 * ((shape.layers + 8) * shape.width + 2 * shape.ffn_dim)


def encoder_flops(shape: EncoderShape) -> float:
    """Of one prompt or image."""
    return shape.layers * shape.tokens * (2.0 * block_parameters(shape) + 4.0 * shape.tokens * shape.width)


def block_parameters(shape: EncoderShape) -> int:
    """Weights of an encoder's block, in its matrices."""
    return 4 * shape.width**2 + (3 if shape.gated else 2) * shape.width * shape.ffn_dim
