"""What an edit is asked for and what it gives back: `EditRequest`, `EditResult`, presets, and the editor protocol."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import PIL.Image

if TYPE_CHECKING:
    import torch

IMAGE_EMBED_MODES = ("crop", "squash")
NOISE_DEVICES = ("cpu", "device")
STAGES = ("load", "encode", "compile", "denoise", "trajectory", "decode")
SIZE_MULTIPLE_PX = 16
MAX_SEED = 2**63 - 1
STEP_CACHE_THRESHOLDS = {"first-block": 0.1, "mag": 0.1}
"""The step caches, each with the threshold that it has where none is given; the rules are in `runtime.stepcache`."""
MIN_STEPS_CACHED = 11
"""Below this many steps there is no step cache: each changes the latents too much to pass for its neighbour."""

PRESETS: dict[str, dict[str, Any]] = {
    "quality": {"reasoning": False, "num_reasoning_steps": None},
    "think": {"reasoning": True, "num_reasoning_steps": None},
    "turbo": {"num_inference_steps": 8, "guidance_scale": 1.0, "flow_shift": 2.0},
}


def bucket_size(height: int, width: int, target_area: int, multiple: int) -> tuple[int, int]:
    """(height, width) near `target_area` px at the photo's aspect ratio, each cut down to a multiple.

    Agrees with the published script: `round(sqrt(area * h / w)) // multiple * multiple`, and the width likewise.
    Raises ValueError for a photo so thin that a side would be 0.
    """
    bucket_height = round(math.sqrt(target_area * height / width)) // multiple * multiple
    bucket_width = round(math.sqrt(target_area * width / height)) // multiple * multiple
    if not bucket_height or not bucket_width:
        raise ValueError(
            f"a photo of {width}x{height} is too thin for {target_area} pixels in sides of at least {multiple}; "
            "crop it, or give height and width"
        )
    return bucket_height, bucket_width


@dataclass(frozen=True)
class Progress:
    """How far an edit is: `done` of `total` parts of one of `STAGES`."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One edit, complete and valid: an instance that exists can be run by any editor.

    `image` is a path, a PIL image, an array `H W 3` of uint8, or a tensor `3 H W` of floats in [-1, 1]; a string
    `sha256:…` (from `to_json` of an image in memory) names a picture without holding it. `height` and `width` are
    pixels, multiples of 16; given alone, the other follows the aspect ratio. What is None is the model's own default,
    and None for `num_reasoning_steps` is `default_reasoning_steps`. `num_reasoning_steps` above 0 turns `reasoning`
    on. Variant k of `num_variants` is drawn from `seed + k`; without a seed one is drawn and recorded in the result.
    `guidance_until` is the share of the steps that are guided, from the first; the others take one pass less.
    `step_cache` lets similar steps share work: "first-block" or "mag", with a threshold as in "mag:0.05".
    `original_prompt` are the user's words where `prompt` was made from them; they change nothing.
    `progress` may return False to stop the edit (`EditCancelled`).

    Raises ValueError with the remedy when a field is out of range or two fields contradict each other.
    """

    image: str | Path | PIL.Image.Image | np.ndarray | torch.Tensor
    prompt: str
    negative_prompt: str = ""
    height: int | None = None
    width: int | None = None
    at_photo_size: bool = False
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_until: float = 1.0
    step_cache: str | None = None
    flow_shift: float | None = None
    seed: int | None = None
    reasoning: bool = False
    num_reasoning_steps: int | None = None
    num_variants: int = 1
    return_trajectory: bool = False
    return_latents: bool = False
    image_embed_mode: str = "crop"
    solver: str = "unipc"
    integer_timesteps: bool = True
    noise_device: str = "cpu"
    original_prompt: str | None = None
    progress: Callable[[Progress], bool | None] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_image(self.image)
        _check_texts(self)
        for side in ("height", "width"):
            _check_side(side, getattr(self, side))
        _check_integer("num_inference_steps", self.num_inference_steps, minimum=1)
        _check_integer("num_variants", self.num_variants, minimum=1, optional=False)
        _check_integer("seed", self.seed, minimum=0)
        if self.seed is not None and self.seed + self.num_variants - 1 > MAX_SEED:
            raise ValueError(f"seed {self.seed} + {self.num_variants} variants goes past {MAX_SEED}; use a lower seed")
        _check_number("guidance_scale", self.guidance_scale, minimum=1.0, hint="1 is no guidance")
        _check_number("guidance_until", self.guidance_until, minimum=0.0, exclusive=True, hint="1 guides all steps")
        if self.guidance_until > 1:
            raise ValueError(f"guidance_until {self.guidance_until:g} is above 1; 1 guides all steps")
        _check_step_cache(self.step_cache, self.num_inference_steps)
        _check_number("flow_shift", self.flow_shift, minimum=0.0, exclusive=True, hint="1 is no shift")
        for name in ("at_photo_size", "reasoning", "return_trajectory", "return_latents", "integer_timesteps"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; give True or False")
        _check_choice("image_embed_mode", self.image_embed_mode, IMAGE_EMBED_MODES)
        _check_choice("noise_device", self.noise_device, NOISE_DEVICES)
        _check_reasoning(self)

    def to_json(self) -> dict[str, Any]:
        """The request as plain JSON types; an image in memory becomes `sha256:…`, `progress` is left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("image", "progress")}
        return {"image": image_reference(self.image), **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EditRequest:
        """The request that `to_json` wrote. Raises ValueError on unknown or missing keys and invalid values."""
        known = {f.name for f in fields(cls)} - {"progress"}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown request key {unknown[0]!r}; the keys are {', '.join(sorted(known))}")
        missing = [key for key in ("image", "prompt") if key not in values]
        if missing:
            raise ValueError(f"a request needs {missing[0]!r}, and {sorted(values)} were given; add it")
        return cls(**values)


class Passes(NamedTuple):
    """Passes of an edit through the transformer, those of all variants and guidance branches: `computed` of `total`.

    The others ran the first block only, and took the rest from the step cache.
    """

    computed: int
    total: int


@dataclass(frozen=True, kw_only=True, eq=False)
class EditResult:
    """What an edit gives: pictures, video, the completed request, timings in seconds and hashes.

    `image` is variant 0 of `images`. `video` is variant 0 decoded, uint8 `T H W 3`, from the input frame to the edit
    (5 frames); `trajectory`, when asked for, uint8 `T H W 3`, the reasoning frames followed by the edit. `latents`,
    when asked for, are the final ones, `b 16 t h w`. `request` has every default filled in, the seed included.
    `timings_s` has one entry a stage and "total". `hashes` holds "image", "model" and the list "loras". `passes` is
    None where there is no transformer.
    """

    image: PIL.Image.Image
    images: list[PIL.Image.Image]
    video: np.ndarray
    trajectory: np.ndarray | None
    latents: torch.Tensor | None
    request: EditRequest
    timings_s: dict[str, float]
    hashes: dict[str, str | list[str]]
    passes: Passes | None = None


class ImageEditor(Protocol):
    """Anything that edits: `chronoedit.Editor`, or a baseline in the evaluation."""

    def edit(self, request: EditRequest) -> EditResult:
        """Run one edit."""

    def reconstruct(self, image: PIL.Image.Image) -> PIL.Image.Image:
        """The picture through the autoencoder alone, as the best that any edit could look."""


class EditorFactory(Protocol):
    """A picklable callable that makes an editor: training and evaluation are handed one, and never load a model."""

    def __call__(self) -> ImageEditor:
        """Make the editor."""


def default_reasoning_steps(num_inference_steps: int) -> int:
    """A fifth of the steps, at least 1: ChronoEdit paper (arXiv 2510.04290), where 10 of 50 scores best."""
    return max(1, round(num_inference_steps / 5))


def parse_step_cache(text: str) -> tuple[str, float]:
    """Name and threshold of a step cache, "NAME" or "NAME:X". Raises ValueError for what is neither."""
    name, colon, number = text.partition(":")
    if name not in STEP_CACHE_THRESHOLDS:
        raise ValueError(f"step_cache {text!r} is unknown; choose from {', '.join(STEP_CACHE_THRESHOLDS)}")
    if not colon:
        return name, STEP_CACHE_THRESHOLDS[name]
    try:
        threshold = float(number)
    except ValueError as error:
        raise ValueError(f"step_cache {text!r}: {number!r} is no number; write {name}:0.05") from error
    if not 0 <= threshold <= 1:
        raise ValueError(f"step_cache {text!r}: {number} is not in 0 to 1; 0 reuses nothing")
    return name, threshold


def with_preset(request: EditRequest, name: str) -> EditRequest:
    """The request with the preset's values where it leaves them open; what the request says itself stays.

    Raises ValueError when there is no such preset, or when `quality`, which is without reasoning, meets a request
    that asks for it.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; choose from {', '.join(PRESETS)}")
    preset = PRESETS[name]
    if request.reasoning and preset.get("reasoning") is False:
        raise ValueError(f"preset {name!r} is without reasoning, which the request asks for; use the preset 'think'")
    unset = {f.name: f.default for f in fields(request)}
    open_values = {k: v for k, v in preset.items() if getattr(request, k) == unset[k]}
    return replace(request, **open_values)


def image_reference(image: str | Path | PIL.Image.Image | np.ndarray | torch.Tensor) -> str:
    """A path as it is; a picture in memory as `sha256:` and the hash of its shape and pixels."""
    if isinstance(image, (str, Path)):
        return str(image)
    if isinstance(image, PIL.Image.Image):
        pixels = np.asarray(image)
    elif isinstance(image, np.ndarray):
        pixels = image
    else:
        pixels = image.detach().float().cpu().numpy()
    header = f"{pixels.dtype}{pixels.shape}".encode()
    return "sha256:" + hashlib.sha256(header + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _check_image(image: object) -> None:
    if isinstance(image, (str, Path)):
        if str(image) in ("", "."):
            raise ValueError("image is an empty path; give the path of a picture")
    elif isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image is an array {image.shape} of {image.dtype}; give H W 3 of uint8")
    elif _is_tensor(image):
        _check_tensor(image)
    elif not isinstance(image, PIL.Image.Image):
        raise ValueError(f"image is a {type(image).__name__}; give a path, a PIL image, an array or a tensor")


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")  # a tensor cannot exist before torch is imported
    return torch is not None and isinstance(value, torch.Tensor)


def _check_tensor(image: Any) -> None:
    if not image.is_floating_point() or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(f"image is a tensor {tuple(image.shape)} of {image.dtype}; give 3 H W of floats in [-1, 1]")
    low, high = float(image.min()), float(image.max())
    if not (low >= -1 and high <= 1):  # also refuses NaN
        raise ValueError(f"image is a tensor with values from {low:g} to {high:g}; scale them to [-1, 1]")


def _check_texts(request: EditRequest) -> None:
    for name in ("prompt", "negative_prompt", "solver"):
        if not isinstance(getattr(request, name), str):
            raise ValueError(f"{name} is a {type(getattr(request, name)).__name__}; give a string")
    if not request.prompt.strip():
        raise ValueError('prompt is empty; say what to change, for example "make the ball red"')


def _check_side(name: str, value: int | None) -> None:
    _check_integer(name, value, minimum=SIZE_MULTIPLE_PX)
    if value is not None and value % SIZE_MULTIPLE_PX:
        below = value // SIZE_MULTIPLE_PX * SIZE_MULTIPLE_PX
        raise ValueError(
            f"{name} {value} is not a multiple of {SIZE_MULTIPLE_PX}; use {below} or {below + SIZE_MULTIPLE_PX}"
        )


def _check_integer(name: str, value: int | None, *, minimum: int, optional: bool = True) -> None:
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; give an integer of at least {minimum}")
    if value < minimum:
        raise ValueError(f"{name} {value} is below {minimum}; use {minimum} or more")


def _check_number(name: str, value: float | None, *, minimum: float, exclusive: bool = False, hint: str) -> None:
    if value is None:
        return
    bound = f"{'above' if exclusive else 'of at least'} {minimum:g} ({hint})"
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; give a finite number {bound}")
    if value < minimum or (exclusive and value == minimum):
        raise ValueError(f"{name} {value:g} is too low; use a number {bound}")


def _check_step_cache(text: str | None, steps: int | None) -> None:
    if text is None:
        return
    if not isinstance(text, str):
        raise ValueError(f"step_cache is {text!r}; give one of {', '.join(STEP_CACHE_THRESHOLDS)}")
    parse_step_cache(text)
    if steps is not None and steps < MIN_STEPS_CACHED:
        raise ValueError(
            f"step_cache {text!r} with {steps} steps, which differ too much to share work; leave it out, or use "
            f"{MIN_STEPS_CACHED} steps or more"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown; choose from {', '.join(choices)}")


def _check_reasoning(request: EditRequest) -> None:
    steps, total = request.num_reasoning_steps, request.num_inference_steps
    _check_integer("num_reasoning_steps", steps, minimum=0)
    if steps == 0 and request.reasoning:
        raise ValueError("num_reasoning_steps 0 with reasoning on; use 1 or more, or turn reasoning off")
    if steps is not None and total is not None and steps > total:
        raise ValueError(f"num_reasoning_steps {steps} is more than num_inference_steps {total}; use at most {total}")
    if steps:
        object.__setattr__(request, "reasoning", True)  # frozen: the one derived field, set while it is made
    if request.return_trajectory and not request.reasoning:
        raise ValueError("return_trajectory needs reasoning; turn reasoning on, or do not ask for the trajectory")
