"""How a dataclass field becomes a flag, and the groups of flags that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from chronoedit.request import PRESETS, STEP_CACHE_THRESHOLDS, EditRequest, with_preset

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""A flag that is given or not, without its `--no-` twin."""

DEFAULT_MODEL = "tiny"
ATTENTION = "auto"
TASKS = {
    "upscale": (
        "The user want to enhance image clarity and resolution while keeping the content identical. "
        "super-resolution, high detail, 4K clarity, same composition, natural texture."
    )
}
"""Prompts that a published LoRA was trained with, word for word as its guide gives them."""


def option(help: str, *, shown: str | None = None, short: str | None = None, also: tuple[str, ...] = ()) -> Any:
    """The tyro annotation of one flag.

    `shown` stands for its value in the help, `short` is its letter, `also` are other names for it.
    """
    aliases = ([f"-{short}"] if short else []) + [f"--{name}" for name in also]
    return tyro.conf.arg(help=help, metavar=shown, help_behavior_hint="", aliases=aliases or None)


@dataclass(frozen=True, kw_only=True)
class FileFlags:
    """Pictures in and out."""

    input: Annotated[Path | None, option("the picture to edit", shown="FILE", short="i")] = None
    output: Annotated[
        Path,
        option(
            "picture (.png .jpg .webp), or video (.mp4) with its last frame beside it as .png", shown="FILE", short="o"
        ),
    ] = Path("output.mp4")
    output_image: Annotated[Path | None, option("where to put that last frame instead", shown="FILE")] = None
    like: Annotated[Path | None, option("repeat the edit that wrote this picture", shown="FILE")] = None


@dataclass(frozen=True, kw_only=True)
class PromptFlags:
    """What to change."""

    prompt: Annotated[str | None, option("the change, in words", shown="TEXT", short="p")] = None
    negative_prompt: Annotated[str, option("what to avoid (best left out)", shown="TEXT")] = ""
    task: Annotated[
        str | None, option(f"{', '.join(TASKS)}: fills in the prompt that its LoRA expects", shown="NAME")
    ] = None
    variants: Annotated[
        int, option("how many; the next have seed + 1, ... and are written as NAME-1.png, ...", shown="N")
    ] = 1

    def text(self) -> str:
        """The prompt, or that of the task. Raises ValueError when there is none, or both."""
        if self.task is not None and self.task not in TASKS:
            raise ValueError(f"there is no task {self.task!r}; choose from {', '.join(TASKS)}")
        if self.task is not None and self.prompt is not None:
            raise ValueError(f"--task {self.task} brings its own prompt; leave --prompt out, or --task")
        if self.task is not None:
            return TASKS[self.task]
        if self.prompt is None:
            raise ValueError("no prompt was given; say what to change with --prompt TEXT (-p)")
        return self.prompt

    def explain(self, model: ModelFlags) -> list[str]:
        """What to tell the user of a task that lacks its LoRA."""
        if self.task is None or model.lora_path:
            return []
        return [f"--task {self.task}: its prompt is meant for a LoRA, and none was given with --lora-path"]


@dataclass(frozen=True, kw_only=True)
class SamplingFlags:
    """How it is computed; what is left out comes from the model's folder."""

    preset: Annotated[str | None, option(f"{', '.join(PRESETS)}: fills in flags that are not given", shown="NAME")] = (
        None
    )
    seed: Annotated[int | None, option("same seed, same result (default: drawn, and told)", shown="N")] = None
    num_inference_steps: Annotated[int | None, option("denoising steps", shown="N")] = None
    guidance_scale: Annotated[float | None, option("weight of the prompt; 1 is no guidance", shown="X")] = None
    guidance_until: Annotated[float, option("share of the steps that are guided; 0.5: the first half", shown="X")] = 1.0
    step_cache: Annotated[
        str | None, option(f"{', '.join(STEP_CACHE_THRESHOLDS)}: alike steps share work; X: how much", shown="NAME[:X]")
    ] = None
    flow_shift: Annotated[float | None, option("shift of the noise schedule", shown="X")] = None
    height: Annotated[int | None, option("px, a multiple of 16; alone: width follows the photo", shown="PX")] = None
    width: Annotated[int | None, option("px, a multiple of 16; alone: height follows the photo", shown="PX")] = None
    at_photo_size: Annotated[Switch, option("resize the result to the photo's own size")] = False


@dataclass(frozen=True, kw_only=True)
class ReasoningFlags:
    """Temporal reasoning: imagine the frames between, then drop them."""

    enable_temporal_reasoning: Annotated[Switch, option("turn it on, for a fifth of the steps")] = False
    num_temporal_reasoning_steps: Annotated[
        int | None, option("turn it on, for so many steps (all of them: never dropped)", shown="N")
    ] = None


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The model and where it runs."""

    model_path: Annotated[
        str | None, option("'tiny' (embedded, default), folder, or hub id", shown="MODEL", also=("model-id",))
    ] = None
    base: Annotated[
        str | None, option("where MODEL is one transformer file: the model with the other parts", shown="MODEL")
    ] = None
    lora_path: Annotated[tuple[Path, ...], option("LoRA files, fused into the model", shown="FILE...")] = ()
    lora_scale: Annotated[
        tuple[float, ...], option("one for each LoRA, or one for all (default: 1)", shown="X...")
    ] = ()
    device: Annotated[str | None, option("cpu, cuda, cuda:1, ... (default: GPU if there is one)", shown="NAME")] = None
    offload_model: Annotated[Switch, option("parts take turns on the GPU: less memory, slower")] = False
    layout: tyro.conf.Suppress[tyro.conf.Fixed[str | None]] = None  # no flag: what --memory comes to
    precision: Annotated[
        Literal["bf16", "fp8", "int8", "int4"] | None, option("store the transformer's weights so: less memory")
    ] = None
    vae_tiling: Annotated[
        int | None,
        option("autoencoder in tiles of so many px: less memory, the same picture (--memory auto does)", shown="PX"),
    ] = None
    attention: Annotated[str, option("its kernel; `chronoedit doctor` lists those there are", shown="NAME")] = ATTENTION
    compile: Annotated[Switch, option("compile the transformer's blocks before the first step")] = False

    @property
    def offload(self) -> bool | str:
        """As `chronoedit.load` takes it."""
        return self.offload_model if self.layout is None else self.layout

    def check(self) -> None:
        """Raise ValueError for LoRAs that do not exist, scales that do not match them, or tiles that cannot be."""
        if self.vae_tiling is not None and (self.vae_tiling < 16 or self.vae_tiling % 16):
            raise ValueError(f"--vae-tiling {self.vae_tiling}: tiles are a multiple of 16 px; use 512 or 256")
        for path in self.lora_path:
            if not path.is_file():
                raise ValueError(f"there is no LoRA file {path}; check --lora-path")
        if len(self.lora_scale) > 1 and len(self.lora_scale) != len(self.lora_path):
            raise ValueError(
                f"{len(self.lora_scale)} values of --lora-scale for {len(self.lora_path)} of --lora-path; "
                "give one for each, or one for all"
            )
        if self.lora_scale and not self.lora_path:
            raise ValueError("--lora-scale without --lora-path; name the LoRA file too")

    def loras(self) -> tuple[tuple[str, float], ...]:
        """Each LoRA's path with its scale."""
        scales = self.lora_scale or (1.0,)
        scales = scales * len(self.lora_path) if len(scales) == 1 else scales
        return tuple((str(path), scale) for path, scale in zip(self.lora_path, scales, strict=True))


@dataclass(frozen=True, kw_only=True)
class MemoryFlags:
    """How the memory there is is used."""

    memory: Annotated[
        Literal["auto", "off", "turns", "stream", "disk"],
        option(
            "turns: parts take turns; stream: the transformer block by block; disk: weights from their files; auto: "
            "the first that fits, and what cannot fit is refused; off: it is tried as it is"
        ),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class PublishedFlags:
    """Flags of the published program that change nothing here."""

    disable_guardrails: Annotated[Switch, option("there are none to disable: no filter looks at the picture")] = False

    def explain(self) -> list[str]:
        """What to tell the user of the flags that were given."""
        if not self.disable_guardrails:
            return []
        return [
            "--disable-guardrails: nothing to disable, no filter looks at pictures or prompts here; "
            "you answer for the rights of the people in them"
        ]


def build_request(
    image: Path,
    prompt: str,
    negative_prompt: str,
    sampling: SamplingFlags,
    reasoning: ReasoningFlags,
    variants: int = 1,
) -> EditRequest:
    """The request that flags ask for. Raises ValueError with the remedy, in terms of flags."""
    try:
        request = EditRequest(
            image=image,
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=sampling.height,
            width=sampling.width,
            at_photo_size=sampling.at_photo_size,
            num_inference_steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
            guidance_until=sampling.guidance_until,
            step_cache=sampling.step_cache,
            flow_shift=sampling.flow_shift,
            seed=sampling.seed,
            reasoning=reasoning.enable_temporal_reasoning,
            num_reasoning_steps=reasoning.num_temporal_reasoning_steps,
            num_variants=variants,
        )
        return request if sampling.preset is None else with_preset(request, sampling.preset)
    except ValueError as error:
        raise ValueError(_with_flag_names(str(error))) from error


def _with_flag_names(message: str) -> str:
    """A message of the library with the two names that are others here."""
    renamed = message.replace("num_reasoning_steps", "num_temporal_reasoning_steps")
    return renamed.replace("num_variants", "variants")
