"""How many bytes a part of the model works in, and how many FLOPs it does, by the shape of what it is given.

Counted from the code, moment by moment, as torch hands memory out; tests count again. FLOPs are two a product and sum.
Shapes: f frames that the autoencoder takes at once, c channels, s video tokens, d width of the transformer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
TURNING = {4: 28, 2: 26}
FEEDING = {4: (12, 8), 2: (10, 4)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A convolution of the autoencoder: `cells` and `frames` of its output in one chunk, channels, taps.

    `cached` numbers stay until the next chunk comes; `live` ones lie there beside all caches at its worst moment, and
    `live_on_cpu` where the CPU computes it.
    """

    cells: float
    frames: int
    channels_in: int
    channels_out: int
    taps: int
    cached: float = 0.0
    live: float = 0.0
    live_on_cpu: float = 0.0


@dataclass(frozen=True)
class Chunk:
    """What goes through the layers at once: frames, rows and columns, of one level of the autoencoder."""

    frames: int
    rows: int
    columns: int

    @property
    def cells(self) -> int:
        """Of one frame."""
        return self.rows * self.columns

    def scaled(self, *, space: float = 1, time: float = 1) -> Chunk:
        """The chunk of another level."""
        return Chunk(round(self.frames * time), round(self.rows * space), round(self.columns * space))


def encoder_steps(shape: AutoencoderShape, height: int, width: int) -> Iterator[Step]:
    """The convolutions of the encoder, in order, for one chunk of four frames."""
    side = shape.patch_size or 1
    chunk = Chunk(CHUNK_FRAMES, height // side, width // side)
    channels = [shape.base_dim * factor for factor in (1, *shape.dim_mult)]
    yield _causal(chunk, shape.in_channels, channels[0], held=1)
    for level, (before, after) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
        for _ in range(shape.num_res_blocks):
            yield from _residual(chunk, before, after, held=1)
            before = after
        if level < len(shape.dim_mult) - 1:
            chunk = chunk.scaled(space=1 / 2)
            yield _plain(chunk, after, after, live=8 + 1, on_cpu=4)
            if shape.temperal_downsample[level]:
                chunk = chunk.scaled(time=1 / 2)
                yield _in_time(chunk, after, after, cached_frames=1)
    yield from _middle(chunk, channels[-1])
    yield _causal(chunk, channels[-1], 2 * shape.z_dim, held=1)


def decoder_steps(shape: AutoencoderShape, height: int, width: int) -> Iterator[Step]:
    """The convolutions of the decoder, in order, for one latent frame that is not the first."""
    base, side = shape.decoder_base_dim or shape.base_dim, shape.scale_factor_spatial
    chunk = Chunk(1, height // side, width // side)
    channels = [base * factor for factor in (shape.dim_mult[-1], *reversed(shape.dim_mult))]
    upsample = tuple(reversed(shape.temperal_downsample))
    yield _causal(chunk, shape.z_dim, channels[0], held=1)
    yield from _middle(chunk, channels[0])
    for level, (before, after) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
        before = before // 2 if level else before
        for _ in range(shape.num_res_blocks + 1):
            yield from _residual(chunk, before, after, held=2)
            before = after
        if level < len(shape.dim_mult) - 1:
            if upsample[level]:
                yield _in_time(chunk, after, 2 * after, cached_frames=CACHED_FRAMES)
                chunk = chunk.scaled(time=2)
            chunk = chunk.scaled(space=2)
            yield _plain(chunk, after, after // 2, live=1 / 2 + 1 + 1 / 2, on_cpu=1)
    yield _causal(chunk, channels[-1], shape.out_channels, held=1)


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
    )


def autoencoder_bytes(steps: Sequence[Step], chunks: int, *, on_cpu: bool) -> int:
    """The most that a pass over so many chunks works in: at each step the caches, full before it, and what is live.

    In the second chunk, the caches of later steps still hold the one frame of the first.
    """
    later = 1.0 if chunks > 2 else 0.5
    most, full, total = 0.0, 0.0, sum(step.cached for step in steps)
    for step in steps:
        most = max(most, full + later * (total - full) + (step.live_on_cpu if on_cpu else step.live))
        full += step.cached
    return round(FP32 * most)


def autoencoder_flops(steps: Sequence[Step], chunks: int) -> float:
    """Of the convolutions, whose first chunk is of one frame."""
    return sum(
        2.0 * step.taps * step.channels_in * step.channels_out * step.cells * (1 + (chunks - 1) * step.frames)
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
    matrices = 4 * shape.width**2 + (3 if shape.gated else 2) * shape.width * shape.ffn_dim
    return shape.layers * shape.tokens * (2.0 * matrices + 4.0 * shape.tokens * shape.width)
