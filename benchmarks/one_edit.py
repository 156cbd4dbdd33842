"""One edit in a process of its own, by our editor or by diffusers' pipeline; its cost is the last line, as JSON.

A fresh process, because the peak of memory is the process's. Times count from before the checkpoint is opened to the
picture; the imports are not counted. Both engines are given the same picture, noise, steps, guidance and precision.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
import tyro

PROMPT = "Pick up the small red ball with the robot arm, lift it over the table, and leave everything else as it is."
GUIDANCE_SCALE = 5.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """Which engine, at which size, and where to leave the picture; `reasoning` keeps all frames through all steps."""

    engine: Literal["ours", "diffusers"]
    checkpoint: Path
    height: int
    width: int
    steps: int
    picture: Path
    reasoning: bool = False
    seed: int = 0


@dataclass
class Cost:
    """Where the seconds went: the end of every denoising step, and the sum of the decoder's calls."""

    step_ends_s: list[float] = field(default_factory=list)
    decode_s: float = 0.0

    def step_s(self) -> float:
        """The median time of a step, from one step's end to the next: the first is warm-up and not counted."""
        return float(np.median(np.diff(self.step_ends_s)))


def input_picture(case: Case) -> PIL.Image.Image:
    """A smooth random picture of exactly the case's size, so that neither engine resizes it."""
    coarse = np.random.default_rng(case.seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PIL.Image.fromarray(coarse).resize((case.width, case.height), PIL.Image.Resampling.BICUBIC)


def initial_noise(case: Case) -> torch.Tensor:
    """Standard normal latents, 1 16 t h w, with t = 8 for reasoning and 2 without."""
    frames = 8 if case.reasoning else 2
    generator = torch.Generator().manual_seed(case.seed)
    return torch.randn(1, 16, frames, case.height // 8, case.width // 8, generator=generator)


def timed(call: Callable[..., Any], cost: Cost) -> Callable[..., Any]:
    """`call`, with its seconds added to the decoder's."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        out = call(*args, **kwargs)
        cost.decode_s += time.perf_counter() - start
        return out

    return wrapped


def edit_ours(case: Case, image: PIL.Image.Image, noise: torch.Tensor, cost: Cost) -> np.ndarray:
    """Our edit, uint8 H W 3."""
    import chronoedit
    from chronoedit.request import Progress

    def note(progress: Progress) -> None:
        if progress.stage == "denoise" and progress.done > 0:
            cost.step_ends_s.append(time.perf_counter())

    editor = chronoedit.load(str(case.checkpoint), dtype=torch.float32, device="cpu")
    request = chronoedit.EditRequest(
        image=image,
        prompt=PROMPT,
        height=case.height,
        width=case.width,
        num_inference_steps=case.steps,
        num_reasoning_steps=case.steps if case.reasoning else None,
        guidance_scale=GUIDANCE_SCALE,
        seed=case.seed,
        progress=note,
    )
    result = editor.edit(request, noise=noise)
    cost.decode_s = result.timings_s["decode"]
    return np.asarray(result.image)


def edit_diffusers(case: Case, image: PIL.Image.Image, noise: torch.Tensor, cost: Cost) -> np.ndarray:
    """The same edit by diffusers' pipeline, uint8 H W 3."""
    from diffusers import ChronoEditPipeline

    def note(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        cost.step_ends_s.append(time.perf_counter())
        return tensors

    pipeline = ChronoEditPipeline.from_pretrained(str(case.checkpoint), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.decode = timed(pipeline.vae.decode, cost)
    frames = pipeline(
        image=image,
        prompt=PROMPT,
        height=case.height,
        width=case.width,
        num_frames=29 if case.reasoning else 5,
        num_inference_steps=case.steps,
        guidance_scale=GUIDANCE_SCALE,
        enable_temporal_reasoning=case.reasoning,
        num_temporal_reasoning_steps=case.steps if case.reasoning else 0,
        latents=noise,
        callback_on_step_end=note,
        output_type="np",
    ).frames[0]
    return (frames[-1] * 255).round().astype(np.uint8)


def peak_bytes() -> int:
    """The most memory that this process has held (Linux: ru_maxrss is in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def import_everything() -> None:
    """Import what either engine needs, in both processes: libraries import their parts on first use."""
    from diffusers import ChronoEditPipeline, ChronoEditTransformer3DModel, UniPCMultistepScheduler  # noqa: F401
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel, UMT5EncoderModel  # noqa: F401

    import chronoedit.editing.loading  # noqa: F401


def main(case: Case) -> None:
    """Run the case and print its cost."""
    import_everything()
    edit = {"ours": edit_ours, "diffusers": edit_diffusers}[case.engine]
    cost, image, noise = Cost(), input_picture(case), initial_noise(case)
    before_bytes = peak_bytes()
    start = time.perf_counter()
    picture = edit(case, image, noise, cost)
    whole_s = time.perf_counter() - start
    np.save(case.picture, picture)
    print(
        json.dumps(
            {
                "whole_s": whole_s,
                "step_s": cost.step_s(),
                "decode_s": cost.decode_s,
                "peak_bytes": peak_bytes(),
                "before_bytes": before_bytes,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Case))
