"""The stages of an edit, as `Editor.edit` goes through them: which part works, in how many bytes, and FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from chronoedit.runtime import plan_activations as act
from chronoedit.runtime.plan_facts import MAX_TOKENS_BATCHED, ModelFacts

Kind = Literal["cuda", "rocm", "mps", "cpu"]

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

    Where it is `guided`, the first `guided_until` of the steps are, a share. `text_keys` and `negative_keys` are keys
    of the two prompts, None the most that there can be; `trajectory` shows the reasoning frames; `fused_parameters`
    weights are changed by LoRAs. Raises ValueError for sizes or steps that cannot be.
    """

    height: int
    width: int
    steps: int
    reasoning_steps: int = 0
    guided: bool = True
    guided_until: float = 1.0
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

    def guided_steps(self, start: int, stop: int) -> int:
        """How many of these steps take a second pass, as `guidance.guided_until` has it."""
        guided = max(1, round(self.guided_until * self.steps)) if self.guided else 0
        return max(0, min(stop, guided) - start)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where an edit is to run: bytes that can be had on the device, and in main memory besides.

    An MPS device and the CPU have no memory of their own: there `device_bytes` are those of main memory.
    """

    kind: Kind
    device_bytes: int
    host_bytes: int

    @property
    def shared(self) -> bool:
        """Whether the device works in main memory."""
        return self.kind in ("mps", "cpu")

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight as the editor loads it: fp32 on a CPU, else bf16."""
        return 4 if self.kind == "cpu" else 2

    @property
    def decoded_bytes(self) -> int:
        """Bytes of a number as the autoencoder decodes: bf16 on a GPU that `Editor` decodes so on, else fp32."""
        return 2 if self.kind in ("cuda", "rocm") else FP32


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is planned: a model, an edit, a machine, a name in `plan.LAYOUTS`, one in `PRECISIONS` or None.

    `tile_px` is the side of the autoencoder's tiles, None: none.
    """

    facts: ModelFacts
    work: Work
    machine: Machine
    layout: str = "together"
    precision: str | None = None
    tile_px: int | None = None

    @property
    def tiles(self) -> act.Tiles | None:
        """How the autoencoder divides pictures; None: not at all."""
        if self.tile_px is None:
            return None
        return act.Tiles.of(self.facts.autoencoder, self.work.height, self.work.width, self.tile_px)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One stage: the parts that are loaded for it, the one that works, and bytes.

    `kept` lies on the device for later stages, `working` comes and goes, `pictures` are pixels in main memory. In
    `passes` all blocks of the transformer are gone through.
    """

    name: str
    part: str
    loads: tuple[str, ...]
    kept: int = 0
    working: int = 0
    pictures: int = 0
    flops: float = 0.0
    passes: int = 0


def tasks(case: Case) -> Iterator[Task]:
    """The stages in order."""
    yield Task(name="load", part="", loads=("transformer", "autoencoder"))
    yield from _encoding(case)
    yield from _denoising(case)
    yield from _decoding(case)


def latent_frames(facts: ModelFacts, work: Work) -> int:
    """Latent frames at the start: with those of the reasoning."""
    if not work.reasoning_steps:
        return EDIT_LATENTS
    return 1 + (facts.settings.reasoning_frames - 1) // facts.autoencoder.scale_factor_temporal


def _encoding(case: Case) -> Iterator[Task]:
    facts, work = case.facts, case.work
    yield Task(
        name="encode the prompts",
        part="text_encoder",
        loads=("text_encoder",),
        working=act.text_bytes(facts.text, case.machine.weight_bytes),
        flops=(1 + work.guided) * act.encoder_flops(facts.text),
        passes=1 + work.guided,
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
    steps = list(act.encoder_steps(shape, work.height, work.width, case.tiles))
    video = _video_bytes(work, 1 + (chunks - 1) * act.CHUNK_FRAMES)
    copies = 2 if (shape.patch_size or 1) > 1 and case.tiles is None else 1  # patches are cut from a second one
    yield Task(
        name="encode the picture",
        part="autoencoder",
        loads=(),
        working=act.autoencoder_bytes(steps, chunks, on_cpu=case.machine.kind == "cpu") + copies * video,
        flops=act.autoencoder_flops(steps, chunks, case.tiles),
    )


def _denoising(case: Case) -> Iterator[Task]:
    work, first = case.work, latent_frames(case.facts, case.work)
    if work.reasoning_steps:
        yield _steps("denoise, reasoning", case, first, range(work.reasoning_steps), work.variants)
    left = range(work.reasoning_steps, work.steps)
    if left:
        yield _steps("denoise", case, EDIT_LATENTS, left, work.variants)
    if work.trajectory and left:
        yield _steps("denoise, to show it", case, first, left, 1)


def _steps(name: str, case: Case, frames: int, steps: range, rows: int) -> Task:
    """These steps with so many latent frames; both branches of guidance at once where that is few tokens."""
    facts, work, shape = case.facts, case.work, case.facts.transformer
    weight_bytes = case.machine.weight_bytes
    tokens, branches = facts.tokens(frames, work.height, work.width), 1 + work.guided
    together = rows * tokens <= MAX_TOKENS_BATCHED
    at_once = branches * rows if together else rows
    guided = work.guided_steps(steps.start, steps.stop)
    ends = 36 * shape.token_cells * (FP32 + weight_bytes) + 8 * shape.width // shape.heads  # what goes in, angles
    keys = _keys(facts, work)
    return Task(
        name=name,
        part="transformer",
        loads=(),
        kept=_prompt_kv(case) + _latents(facts, work),
        working=act.block_bytes(shape, at_once * tokens, weight_bytes) + at_once * tokens * ends,
        flops=(len(steps) + guided) * rows * act.forward_flops(shape, tokens, keys)
        + branches * act.prompt_flops(shape, keys),
        passes=len(steps) + (0 if together else guided),
    )


def _keys(facts: ModelFacts, work: Work) -> int:
    text = facts.text.tokens if work.text_keys is None else work.text_keys
    return text + (0 if facts.image is None else facts.image.tokens)


def _prompt_kv(case: Case) -> int:
    """Keys and values of both prompts and, once for both, of the picture; variants have copies of their own."""
    facts, work = case.facts, case.work
    negative = facts.text.tokens if work.negative_keys is None else work.negative_keys
    keys = _keys(facts, work) + (negative if work.guided else 0)
    copies = 1 if work.variants == 1 else 1 + work.variants
    return copies * act.prompt_kv_bytes(facts.transformer, keys, case.machine.weight_bytes)


def _latents(facts: ModelFacts, work: Work) -> int:
    shape, cell_px = facts.autoencoder, facts.autoencoder.scale_factor_spatial
    cells = latent_frames(facts, work) * (work.height // cell_px) * (work.width // cell_px)
    condition = shape.scale_factor_temporal + shape.z_dim
    return FP32 * work.variants * cells * (SOLVER_TENSORS * shape.z_dim + condition)


def _decoding(case: Case) -> Iterator[Task]:
    yield _decode("decode", case, EDIT_LATENTS, case.work.variants)
    frames = latent_frames(case.facts, case.work)
    if case.work.trajectory and frames > EDIT_LATENTS:
        yield _decode("decode the reasoning", case, frames - 1, 1)


def _decode(name: str, case: Case, frames: int, rows: int) -> Task:
    """One row after the other; the keys of the prompts are still there."""
    work = case.work
    steps = list(act.decoder_steps(case.facts.autoencoder, work.height, work.width, case.tiles))
    pixels = _video_bytes(work, 1 + (frames - 1) * act.CHUNK_FRAMES)
    return Task(
        name=name,
        part="autoencoder",
        loads=(),
        kept=_prompt_kv(case) + _latents(case.facts, work),
        working=act.autoencoder_bytes(
            steps, frames, on_cpu=case.machine.kind == "cpu", number_bytes=case.machine.decoded_bytes
        )
        + pixels,
        pictures=3 * pixels,
        flops=rows * act.autoencoder_flops(steps, frames, case.tiles),
    )


def _video_bytes(work: Work, frames: int) -> int:
    return FP32 * 3 * frames * work.height * work.width
