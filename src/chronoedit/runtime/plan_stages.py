"""The stages of an edit, as `Editor.edit` goes through them: which part works, in how many bytes, for how many FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chronoedit.runtime import plan_activations as act
from chronoedit.runtime.plan_facts import MAX_TOKENS_BATCHED, ModelFacts

FP32 = 4
EDIT_LATENTS = 2
"""Latent frames of an edit: the input and the edit."""

NO_PROMPT_KEYS = 2
"""Text keys of an empty prompt: its one token, and the one that stands for the padding."""

SOLVER_TENSORS = 8
"""Tensors of the latents' size that a step holds at most: latents, history, velocities and what they are made of."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is asked of an edit: sizes in px, denoising steps, those with reasoning frames (0: none), rows.

    `text_keys` and `negative_keys` are keys of the two prompts, None the most that there can be; `trajectory` shows
    the reasoning frames; `fused_parameters` weights are changed by LoRAs. Raises ValueError for sizes or steps that
    cannot be.
    """

    height: int
    width: int
    steps: int
    reasoning_steps: int = 0
    guided: bool = True
    variants: int = 1
    trajectory: bool = False
    text_keys: int | None = None
    negative_keys: int | None = NO_PROMPT_KEYS
    fused_parameters: int = 0

    def __post_init__(self) -> None:
        for name in ("height", "width", "steps", "variants"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is expected")
        if not 0 <= self.reasoning_steps <= self.steps:
            raise ValueError(f"reasoning_steps is {self.reasoning_steps}; 0 to the {self.steps} steps are expected")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One stage: the parts that are loaded for it, the one that works, and bytes.

    `kept` lies on the device for later stages, `working` comes and goes, `pictures` are pixels in main memory.
    """

    name: str
    part: str
    loads: tuple[str, ...]
    kept: int = 0
    working: int = 0
    pictures: int = 0
    flops: float = 0.0


def tasks(facts: ModelFacts, work: Work, weight_bytes: int) -> Iterator[Task]:
    """The stages in order, for weights of so many bytes."""
    yield Task(name="load", part="", loads=("transformer", "autoencoder"))
    yield from _encoding(facts, work, weight_bytes)
    yield from _denoising(facts, work, weight_bytes)
    yield from _decoding(facts, work, weight_bytes)


def latent_frames(facts: ModelFacts, work: Work) -> int:
    """Latent frames at the start: with those of the reasoning."""
    if not work.reasoning_steps:
        return EDIT_LATENTS
    return 1 + (facts.settings.reasoning_frames - 1) // facts.autoencoder.scale_factor_temporal


def _encoding(facts: ModelFacts, work: Work, weight_bytes: int) -> Iterator[Task]:
    prompts = 1 + work.guided
    yield Task(
        name="encode the prompts",
        part="text_encoder",
        loads=("text_encoder",),
        working=act.text_bytes(facts.text, weight_bytes),
        flops=prompts * act.encoder_flops(facts.text),
    )
    if facts.image is not None:
        yield Task(
            name="embed the picture",
            part="image_encoder",
            loads=("image_encoder",),
            working=act.image_bytes(facts.image),
            flops=act.encoder_flops(facts.image),
        )
    chunks, shape = latent_frames(facts, work), facts.autoencoder
    steps = list(act.encoder_steps(shape, work.height, work.width))
    video = _video_bytes(work, 1 + (chunks - 1) * act.CHUNK_FRAMES)
    yield Task(
        name="encode the picture",
        part="autoencoder",
        loads=(),
        working=act.autoencoder_bytes(steps, chunks) + (2 if (shape.patch_size or 1) > 1 else 1) * video,
        flops=act.autoencoder_flops(steps, chunks),
    )


def _denoising(facts: ModelFacts, work: Work, weight_bytes: int) -> Iterator[Task]:
    first = latent_frames(facts, work)
    if work.reasoning_steps:
        yield _steps("denoise, reasoning", facts, work, weight_bytes, first, work.reasoning_steps)
    left = work.steps - work.reasoning_steps
    if left:
        yield _steps("denoise", facts, work, weight_bytes, EDIT_LATENTS, left)
    if work.trajectory and left:
        yield _steps("denoise, to show it", facts, work, weight_bytes, first, left, rows=1)


def _steps(
    name: str, facts: ModelFacts, work: Work, weight_bytes: int, frames: int, steps: int, rows: int | None = None
) -> Task:
    """So many steps with so many latent frames; both branches of guidance at once where that is few tokens."""
    rows = work.variants if rows is None else rows
    tokens, keys = facts.tokens(frames, work.height, work.width), _keys(facts, work)
    at_once = 2 * rows if work.guided and rows * tokens <= MAX_TOKENS_BATCHED else rows
    passes = (1 + work.guided) * rows
    return Task(
        name=name,
        part="transformer",
        loads=(),
        kept=_prompt_kv(facts, work, weight_bytes) + _latents(facts, work),
        working=act.block_bytes(facts.transformer, at_once * tokens, weight_bytes)
        + at_once * tokens * _ends_bytes(facts, weight_bytes),
        flops=steps * passes * act.forward_flops(facts.transformer, tokens, keys)
        + (1 + work.guided) * act.prompt_flops(facts.transformer, keys),
    )


def _ends_bytes(facts: ModelFacts, weight_bytes: int) -> int:
    """Of a token, before and after the blocks: what goes in, its angles."""
    shape = facts.transformer
    return 36 * shape.token_cells * (FP32 + weight_bytes) + 8 * shape.width // shape.heads


def _keys(facts: ModelFacts, work: Work) -> int:
    text = facts.text.tokens if work.text_keys is None else work.text_keys
    return text + (0 if facts.image is None else facts.image.tokens)


def _prompt_kv(facts: ModelFacts, work: Work, weight_bytes: int) -> int:
    """Keys and values of both prompts and, once for both, of the picture; variants have copies of their own."""
    text, most = _keys(facts, work), facts.text.tokens
    negative = 0 if not work.guided else most if work.negative_keys is None else work.negative_keys
    rows = 1 if work.variants == 1 else 1 + work.variants
    return rows * act.prompt_kv_bytes(facts.transformer, text + negative, 0, weight_bytes)


def _latents(facts: ModelFacts, work: Work) -> int:
    shape, cell_px = facts.autoencoder, facts.autoencoder.scale_factor_spatial
    cells = latent_frames(facts, work) * (work.height // cell_px) * (work.width // cell_px)
    condition = shape.scale_factor_temporal + shape.z_dim
    return FP32 * work.variants * cells * (SOLVER_TENSORS * shape.z_dim + condition)


def _decoding(facts: ModelFacts, work: Work, weight_bytes: int) -> Iterator[Task]:
    yield _decode("decode", facts, work, weight_bytes, EDIT_LATENTS, work.variants)
    if work.trajectory and latent_frames(facts, work) > EDIT_LATENTS:
        yield _decode("decode the reasoning", facts, work, weight_bytes, latent_frames(facts, work) - 1, 1)


def _decode(name: str, facts: ModelFacts, work: Work, weight_bytes: int, frames: int, rows: int) -> Task:
    steps = list(act.decoder_steps(facts.autoencoder, work.height, work.width))
    pixels = _video_bytes(work, 1 + (frames - 1) * act.CHUNK_FRAMES)
    return Task(
        name=name,
        part="autoencoder",
        loads=(),
        kept=_prompt_kv(facts, work, weight_bytes) + _latents(facts, work),
        working=act.autoencoder_bytes(steps, frames) + pixels,
        pictures=3 * pixels,
        flops=rows * act.autoencoder_flops(steps, frames),
    )


def _video_bytes(work: Work, frames: int) -> int:
    return FP32 * 3 * frames * work.height * work.width
