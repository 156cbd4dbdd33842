"""How many bytes a part of the model works in, and how many FLOPs it does, by the shape of what it is given.

Counted from the code, moment by moment, as torch hands memory out; tests count again. FLOPs are two a product and sum.
Shapes: f frames that the autoencoder takes at once, c channels, s video tokens, d width of the transformer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chronoedit.runtime.plan_facts import AutoencoderShape, EncoderShape, Shape

FP32 = 4
CACHED_FRAMES = 2
"""Frames that a causal convolution keeps of the chunk before."""

CHUNK_FRAMES = 4
"""Pixel frames that the autoencoder takes at once, after the first, which goes alone."""

# Bytes for each video token of a block at the two moments that take most: when keys are turned by their angles, for
# each channel of the width; and in the feed-forward, for each channel of the width and of the feed-forward. By the
# bytes of a weight.
TURNING = {4: 28, 2: 26}
FEEDING = {4: (12, 8), 2: (10, 4)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A convolution of the autoencoder: `cells` and `frames` of its output in one chunk, channels, taps.

    `cached` numbers stay until the next chunk comes, and `live` numbers lie there beside all caches at its worst moment.
    """

    cells: float
    frames: int
    channels_in: int
    channels_out: int
    taps: int
    cached: float
    live: float


def encoder_steps(shape: AutoencoderShape, height: int, width: int) -> Iterator[Step]:
    """The convolutions of the encoder, in order, for one chunk of four frames."""
    side = shape.patch_size or 1
    cells, frames = height * width / side**2, CHUNK_FRAMES
    channels = [shape.base_dim * factor for factor in (1, *shape.dim_mult)]
    yield _causal(cells, frames, shape.in_channels, channels[0], held=1)
    for level, (before, after) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
        for _ in range(shape.num_res_blocks):
            yield from _residual(cells, frames, before, after, held=1)
            before = after
        if level < len(shape.dim_mult) - 1:
            yield _plain(cells / 4, frames, after, after, live=(2 * frames * cells + frames * cells / 4) * after)
            cells /= 4
            if shape.temperal_downsample[level]:
                frames //= 2
                yield _in_time(cells, frames, after, after, cached_frames=1)
    yield from _middle(cells, frames, channels[-1])
    yield _causal(cells, frames, channels[-1], 2 * shape.z_dim, held=1)


def decoder_steps(shape: AutoencoderShape, height: int, width: int) -> Iterator[Step]:
    """The convolutions of the decoder, in order, for one latent frame that is not the first."""
    base = shape.decoder_base_dim or shape.base_dim
    cells, frames = height * width / shape.scale_factor_spatial**2, 1
    channels = [base * factor for factor in (shape.dim_mult[-1], *reversed(shape.dim_mult))]
    upsample = tuple(reversed(shape.temperal_downsample))
    yield _causal(cells, frames, shape.z_dim, channels[0], held=1)
    yield from _middle(cells, frames, channels[0])
    for level, (before, after) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
        before = before // 2 if level else before
        for _ in range(shape.num_res_blocks + 1):
            yield from _residual(cells, frames, before, after, held=2)
            before = after
        if level < len(shape.dim_mult) - 1:
            if upsample[level]:
                yield _in_time(cells, frames, after, 2 * after, cached_frames=CACHED_FRAMES)
                frames *= 2
            cells *= 4
            yield _plain(cells, frames, after, after // 2, live=frames * cells * after * (1 / 2 + 1 + 1 / 2))
    yield _causal(cells, frames, channels[-1], shape.out_channels, held=1)


def _causal(cells: float, frames: int, channels_in: int, channels_out: int, *, held: int) -> Step:
    """3×3×3 taps over a chunk and the frames before: its input, those of `held` callers, the chunk joined and padded."""
    joined = (frames + CACHED_FRAMES) * channels_in
    live = held * frames * channels_in + frames * channels_in + 2 * joined + CACHED_FRAMES * channels_in
    return Step(
        cells=cells,
        frames=frames,
        channels_in=channels_in,
        channels_out=channels_out,
        taps=27,
        cached=CACHED_FRAMES * cells * channels_in,
        live=cells * live,
    )


def _residual(cells: float, frames: int, before: int, after: int, *, held: int) -> Iterator[Step]:
    yield _causal(cells, frames, before, after, held=held)
    if before != after:
        yield _plain(cells, frames, before, after, live=0, taps=1)
    yield _causal(cells, frames, after, after, held=held)


def _middle(cells: float, frames: int, channels: int) -> Iterator[Step]:
    yield from _residual(cells, frames, channels, channels, held=1)
    yield _plain(cells, frames, channels, 4 * channels, live=8 * frames * cells * channels, taps=1)
    yield from _residual(cells, frames, channels, channels, held=1)


def _plain(cells: float, frames: int, channels_in: int, channels_out: int, *, live: float, taps: int = 9) -> Step:
    """A convolution of single frames, which keeps nothing."""
    return Step(
        cells=cells,
        frames=frames,
        channels_in=channels_in,
        channels_out=channels_out,
        taps=taps,
        cached=0,
        live=live,
    )


def _in_time(cells: float, frames: int, channels_in: int, channels_out: int, *, cached_frames: int) -> Step:
    """A convolution over three frames of each cell."""
    return Step(
        cells=cells,
        frames=frames,
        channels_in=channels_in,
        channels_out=channels_out,
        taps=3,
        cached=cached_frames * cells * channels_in,
        live=0,
    )


def autoencoder_bytes(steps: list[Step], chunks: int) -> int:
    """The most that a pass over so many chunks works in: at each step the caches, full before it, and what is live.

    In the second chunk, the caches of later steps still hold the one frame of the first.
    """
    later = 1.0 if chunks > 2 else 0.5
    most, full, total = 0.0, 0.0, sum(step.cached for step in steps)
    for step in steps:
        most = max(most, full + later * (total - full) + step.live)
        full += step.cached
    return round(FP32 * most)


def autoencoder_flops(steps: list[Step], chunks: int) -> float:
    """Of the convolutions, whose first chunk is of one frame."""
    return sum(
        2.0 * step.taps * step.channels_in * step.channels_out * step.cells * (1 + (chunks - 1) * step.frames)
        for step in steps
    )


def block_bytes(shape: Shape, tokens: int, weight_bytes: int) -> int:
    """What a forward of the transformer works in at most, for the tokens of all its rows."""
    width, ffn = FEEDING[weight_bytes]
    return tokens * max(TURNING[weight_bytes] * shape.width, width * shape.width + ffn * shape.ffn_dim)


def prompt_kv_bytes(shape: Shape, text_keys: int, image_keys: int, weight_bytes: int) -> int:
    """Keys and values of all blocks for so many text and image tokens."""
    return 2 * shape.layers * (text_keys + image_keys) * shape.width * weight_bytes


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
