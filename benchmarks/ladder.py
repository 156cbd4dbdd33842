"""The ladder: one guided denoising step by diffusers' transformer, then ours, faster rung by rung, on the same weights.

A step is both forwards of the guidance and their combination; the solver's few sums are left out on either side. Each
rung adds one thing to the rungs before it and is timed in turn with diffusers' step, so that their ratio holds while
the speed of the machine drifts. The bound beside it is what the rung must compute, at the speed of one large matrix
product. Random weights; no network. Run: `make bench`, or on a GPU `python benchmarks/ladder.py --scale published`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn

from chronoedit.editing.denoise import Run
from chronoedit.editing.reason import Course
from chronoedit.model import keys
from chronoedit.model.attention import PromptKV
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.model.headers import TensorInfo
from chronoedit.model.tensors import LoadPlan, empty_module, load_module
from chronoedit.runtime import plan_activations as act
from chronoedit.runtime.attention_backends import AUTO, use_backend
from chronoedit.runtime.compile import check_compile, compile_blocks, restore_blocks, warming
from chronoedit.runtime.fp8 import has_kernels
from chronoedit.runtime.machine import measure_throughput
from chronoedit.runtime.plan_facts import Shape
from chronoedit.runtime.quantize import quantize
from chronoedit.runtime.stepcache import Stage
from chronoedit.sampling.guidance import guide
from chronoedit.sampling.schedules import flow_sigmas, timesteps
from chronoedit.sampling.solvers import solver_named
from pages import commit, machine_line, update

STEPS = 50
GUIDANCE_SCALE = 5.0
TEXT_TOKENS, IMAGE_TOKENS = 512, 257
PROMPT_WORDS = 32
"""Text tokens that are no padding, beside the prompt's last; the empty negative prompt has one."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A random transformer of the published layout, and the size of the edit in px."""

    heads: int
    layers: int
    height: int
    width: int
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


SCALES: Mapping[str, Scale] = {
    "smallest": Scale(heads=1, layers=1, height=64, width=64),
    "cpu": Scale(heads=8, layers=20, height=192, width=192),
    "published": Scale(heads=40, layers=40, height=720, width=1280, dtype=torch.bfloat16, device="cuda"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure; `update` is a Markdown page in which the text between the two `ladder` comments is replaced."""

    scale: str = "cpu"
    rungs: tuple[str, ...] = ()
    """Names of those to climb, in the order of the ladder; all that can run here when none is given."""
    frames: tuple[int, ...] = (2, 8)
    repeats: int = 3
    output_dir: Path = Path("out/bench")
    update: Path | None = None


@dataclass(kw_only=True)
class Bench:
    """Both transformers on one set of weights, and what a step is given; rungs change `ours` and how it is called."""

    scale: Scale
    ours: ChronoEditDiT
    theirs: nn.Module
    cached: bool = False
    collapsed: bool = False
    flops_per_s: float = 0.0

    @property
    def device(self) -> torch.device:
        return torch.device(self.scale.device)

    @property
    def shape(self) -> Shape:
        return Shape.of(arguments(self.scale))


@dataclass(frozen=True)
class Inputs:
    """Of one step: latents b z t h w, condition b c t h w, text embeds of both prompts, image embeds."""

    latents: Tensor
    condition: Tensor
    texts: tuple[Tensor, Tensor]
    image: Tensor


@dataclass(frozen=True, kw_only=True)
class Row:
    """A rung at one number of latent frames: medians of seconds, of its quotient with diffusers, and the FLOPs."""

    rung: str
    frames: int
    tokens: int
    seconds: float
    of_diffusers: float
    flops: float
    bound_s: float
    peak_bytes: int | None
    largest_difference: float


def arguments(scale: Scale) -> dict[str, Any]:
    """The transformer's configuration: the published one, with fewer heads and blocks."""
    from chronoedit.runtime.plan_facts import TRANSFORMER_CONFIG

    width = scale.heads * TRANSFORMER_CONFIG["attention_head_dim"]
    own = {
        "num_attention_heads": scale.heads,
        "num_layers": scale.layers,
        "ffn_dim": width * 27 // 10,
        "added_kv_proj_dim": width,
    }
    return keys.check_config({**TRANSFORMER_CONFIG, **own}, "the benchmark's configuration")


@dataclass(frozen=True)
class RandomWeights:
    """Weights of a configuration, drawn where they are used, that keep activations near unit size."""

    config: Mapping[str, Any]

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        shapes = keys.expected_shapes(self.config)
        return {name: TensorInfo(Path(), name, "F32", shape, 4 * math.prod(shape)) for name, shape in shapes.items()}

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        generator = torch.Generator(device).manual_seed(0)
        for name, info in self.tensors.items():
            noise = torch.randn(info.shape, generator=generator, device=device)
            if name.endswith("bias"):
                yield name, 0.1 * noise
            elif noise.numel() == max(info.shape):  # gains of norms
                yield name, 1 + 0.1 * noise
            else:
                yield name, noise.div_(math.prod(info.shape[1:]) ** 0.5)


def load_plan(scale: Scale) -> LoadPlan:
    """As a checkpoint is loaded: what the published mix of precisions keeps in fp32 is kept."""
    keep = tuple(ChronoEditDiT._keep_in_fp32_modules or ())
    return LoadPlan(dtype=scale.dtype, device=torch.device(scale.device), where="random weights", keep_in_fp32=keep)


def make_bench(scale: Scale) -> Bench:
    """Ours with random weights, made where they are used, and diffusers' class on the very same tensors."""
    from diffusers import ChronoEditTransformer3DModel

    config = arguments(scale)
    ours = empty_module(lambda: ChronoEditDiT(**config))
    load_module(ours, RandomWeights(config), load_plan(scale))
    theirs = empty_module(lambda: ChronoEditTransformer3DModel(**config))
    # norm_added_q is theirs alone, and nothing is computed with it
    missing, _ = theirs.load_state_dict(ours.state_dict(), strict=False, assign=True)
    for name in missing:
        owner, _, leaf = name.rpartition(".")
        like = theirs.get_parameter(name)
        setattr(theirs.get_submodule(owner), leaf, nn.Parameter(torch.ones(like.shape, device=scale.device)))
    rope = ChronoEditTransformer3DModel(**{**config, "num_layers": 0}).rope  # its tables have no place in a checkpoint
    theirs.rope = rope.to(scale.device)
    for model in (ours, theirs):
        model.eval().requires_grad_(False)
    return Bench(scale=scale, ours=ours, theirs=theirs)


def make_inputs(bench: Bench, frames: int) -> Inputs:
    """Random ones; texts end in padding, which is zero, as the encoder's is set."""
    scale, generator = bench.scale, torch.Generator(bench.device).manual_seed(frames)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=scale.device).to(scale.dtype)

    config = arguments(scale)
    prompt, negative = draw(1, TEXT_TOKENS, config["text_dim"]), draw(1, TEXT_TOKENS, config["text_dim"])
    prompt[:, PROMPT_WORDS:], negative[:, 1:] = 0, 0
    size = (frames, scale.height // 8, scale.width // 8)
    image = draw(1, IMAGE_TOKENS, config["image_dim"])
    return Inputs(draw(1, 16, *size).float(), draw(1, 20, *size).float(), (prompt, negative), image)


def their_step(bench: Bench, inputs: Inputs) -> Tensor:
    """The guided velocity as diffusers' pipeline computes it."""
    model_input = torch.cat([inputs.latents, inputs.condition], dim=1).to(bench.scale.dtype)
    timestep = torch.tensor([500], device=bench.device)
    cond, uncond = (
        bench.theirs(model_input, timestep, text, inputs.image, return_dict=False)[0] for text in inputs.texts
    )
    return uncond + GUIDANCE_SCALE * (cond - uncond)


def prompts(bench: Bench, inputs: Inputs) -> tuple[PromptKV, PromptKV]:
    """Keys and values of both prompts; the picture's are made once."""
    lengths = [torch.tensor([count], device=bench.device) for count in (PROMPT_WORDS, 1)]
    positive, negative = (
        bench.ours.prompt_kv(text, inputs.image, text_lengths=length if bench.collapsed else None)
        for text, length in zip(inputs.texts, lengths, strict=True)
    )
    return positive, replace(negative, image=positive.image)


def our_step(bench: Bench, inputs: Inputs) -> Callable[[], Tensor]:
    """What computes the guided velocity on this rung; what is made once a request is made here."""
    if not bench.cached:
        return lambda: _uncached(bench, inputs)
    positive, negative = prompts(bench, inputs)
    sigmas = flow_sigmas(STEPS, 5.0)
    run = Run(
        transformer=bench.ours,
        condition_latents=inputs.condition,
        positive=positive,
        negative=negative,
        sigmas=sigmas,
        timesteps=torch.full_like(timesteps(sigmas, True), 500),
        scales=[GUIDANCE_SCALE] * STEPS,
        solver=solver_named("unipc"),
        course=Course(num_frames=5, num_steps=STEPS, drop_at=None, trajectory=False),
        owners=[0],
    )
    stage = Stage(None, None)
    return lambda: run.velocity(stage, inputs.latents, float(sigmas[1]), 1)


def _uncached(bench: Bench, inputs: Inputs) -> Tensor:
    model_input = torch.cat([inputs.latents, inputs.condition], dim=1).to(bench.scale.dtype)
    timestep = torch.tensor([500], device=bench.device)
    cond, uncond = (
        bench.ours(model_input, timestep, text, inputs.image, return_dict=False)[0] for text in inputs.texts
    )
    return guide(cond, uncond, GUIDANCE_SCALE)


class NotHere(Exception):
    """Raised by a rung that this machine cannot climb; says why."""


def plain(bench: Bench) -> None:
    """Ours, called as diffusers' is."""


def cached(bench: Bench) -> None:
    """Prompts and picture embedded, and their keys and values made, once a request."""
    bench.cached = True


def collapsed(bench: Bench) -> None:
    """One padded text key in place of hundreds."""
    bench.collapsed = True


def best_attention(bench: Bench) -> None:
    """The best of the exact attention kernels that can run here, where that is not torch's own choice."""
    name = use_backend(bench.ours, AUTO, bench.device, bench.scale.dtype)
    if name == "sdpa":
        raise NotHere("torch's own choice of a kernel, which the rungs before use, is the best here")


def compiled(bench: Bench) -> None:
    """The blocks compiled."""
    try:
        check_compile(bench.device, AUTO)
    except ValueError as error:
        raise NotHere(str(error)) from error
    compile_blocks(bench.ours)


def fp8_linears(bench: Bench) -> None:
    """The blocks' linear layers in fp8, uncompiled; what both are rounded to makes another result."""
    if not has_kernels(bench.device, bench.shape.width, bench.shape.width):
        raise NotHere("products in fp8 need a GPU of compute capability 8.9 or more")
    restore_blocks(bench.ours)
    quantize(bench.ours, "fp8")


RUNGS: Mapping[str, Callable[[Bench], None]] = {
    "ours": plain,
    "prompt keys once": cached,
    "padding collapsed": collapsed,
    "attention kernel": best_attention,
    "blocks compiled": compiled,
    "fp8 linears": fp8_linears,
}
"""In the order of the ladder: each changes the bench for itself and those after it."""


def step_flops(bench: Bench, frames: int, *, cached: bool, collapsed: bool) -> float:
    """What a guided step must compute."""
    shape, tokens = bench.shape, bench.shape.tokens(frames, bench.scale.height, bench.scale.width)
    texts = (PROMPT_WORDS + 1, 2) if collapsed else (TEXT_TOKENS, TEXT_TOKENS)
    attended = sum(act.forward_flops(shape, tokens, text + IMAGE_TOKENS) for text in texts)
    made = 0.0 if cached else sum(act.prompt_flops(shape, text + IMAGE_TOKENS) for text in texts)
    return attended + made


def timed(bench: Bench, step: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of one step, and its velocity."""
    _wait(bench)
    began = time.perf_counter()
    with torch.no_grad():
        velocity = step()
    _wait(bench)
    return time.perf_counter() - began, velocity


def _wait(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.synchronize(bench.device)


def climb(bench: Bench, options: Options, rung: str, frames: int) -> Row:
    """Time a rung in turn with diffusers; the first pair warms up and is not counted."""
    inputs = make_inputs(bench, frames)
    with torch.no_grad():
        ours = our_step(bench, inputs)
    pairs = []
    for turn in range(options.repeats + 1):
        theirs_s, reference = timed(bench, lambda: their_step(bench, inputs))
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
        with nullcontext() if turn else warming():  # what is compiled is compiled in the first turn
            ours_s, velocity = timed(bench, ours)
        pairs += [(ours_s, ours_s / theirs_s)] if turn else []
    seconds, quotients = (torch.tensor(values).median().item() for values in zip(*pairs, strict=True))
    flops = step_flops(bench, frames, cached=bench.cached, collapsed=bench.collapsed)
    off = (velocity.float() - reference.float()).abs().max() / reference.float().abs().max().clamp(min=1)
    return Row(
        rung=rung,
        frames=frames,
        tokens=bench.shape.tokens(frames, bench.scale.height, bench.scale.width),
        seconds=seconds,
        of_diffusers=quotients,
        flops=flops,
        bound_s=flops / bench.flops_per_s,
        peak_bytes=torch.cuda.max_memory_allocated(bench.device) if bench.device.type == "cuda" else None,
        largest_difference=off.item(),
    )


def climb_all(options: Options) -> tuple[list[Row], list[str]]:
    """All rungs that were asked for, and a line for each that cannot be climbed here."""
    bench = make_bench(SCALES[options.scale])
    bench.flops_per_s = measure_throughput(bench.device, bench.scale.dtype, seconds=1.0)
    rows, missing = [], []
    for name, change in RUNGS.items():
        if options.rungs and name not in options.rungs:
            continue
        try:
            change(bench)
        except NotHere as reason:
            missing.append(f"{name}: {reason}")
            continue
        for frames in options.frames:
            rows.append(climb(bench, options, name, frames))
            print(line(rows[-1]), flush=True)
    return rows, missing


HEAD = (
    "| rung | latent frames | tokens | s a step | of diffusers | FLOPs | at the speed of a matrix product | share of "
    "that speed | peak | largest difference |"
)


def line(row: Row) -> str:
    """The row of the table."""
    cells = [
        row.rung,
        str(row.frames),
        str(row.tokens),
        f"{row.seconds:.3g}",
        f"{row.of_diffusers:.3f}",
        f"{row.flops:.3g}",
        f"{row.bound_s:.3g} s",
        f"{row.bound_s / row.seconds:.0%}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.1f} GB",
        f"{row.largest_difference:.1g}",
    ]
    return "| " + " | ".join(cells) + " |"


def report(options: Options, rows: list[Row], missing: list[str]) -> str:
    """The result as Markdown."""
    scale = SCALES[options.scale]
    speed = rows[0].flops / rows[0].bound_s
    lines = [
        f"Command: `{' '.join(['python benchmarks/ladder.py', *sys.argv[1:]])}`  ",
        f"Machine: {machine_line(torch.get_num_threads())}; a large matrix product: {speed / 1e12:.3g} TFLOP/s  ",
        f"Commit: {commit()}  ",
        f"Transformer: random, {Shape.of(arguments(scale)).parameters / 1e9:.2f} B parameters in {scale.dtype}, "
        f"{scale.width}×{scale.height} px; medians of {options.repeats} turns.",
        "",
        HEAD,
        "|" + "---|" * (HEAD.count("|") - 1),
        *map(line, rows),
    ]
    return "\n".join(lines + [""] * bool(missing) + [f"Not here: {each}." for each in missing]) + "\n"


def main(options: Options) -> None:
    """Climb, and leave ladder.json and ladder.md."""
    if options.scale not in SCALES:
        raise SystemExit(f"there is no scale {options.scale!r}; choose from {', '.join(SCALES)}")
    unknown = [name for name in options.rungs if name not in RUNGS]
    if unknown:
        raise SystemExit(f"there is no rung {unknown[0]!r}; choose from {', '.join(RUNGS)}")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows, missing = climb_all(options)
    text = report(options, rows, missing)
    (options.output_dir / "ladder.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    (options.output_dir / "ladder.md").write_text(text, encoding="utf-8")
    if options.update:
        update(options.update, text, "ladder")
    print(f"\n{text}\nwritten: {options.output_dir / 'ladder.md'} and .json")


if __name__ == "__main__":
    main(tyro.cli(Options))
