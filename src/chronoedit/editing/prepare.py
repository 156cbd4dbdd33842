"""A request made ready to run: the photo read, its size chosen, every default filled in.

Sizes are pixels, (height, width) unless a name says otherwise; `multiple` is the side of one token in pixels.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from chronoedit.editing.finite import check_finite
from chronoedit.editing.reason import Course, plan_course
from chronoedit.media import image_sha256
from chronoedit.model.autoencoder import latent_shape
from chronoedit.model.checkpoint import Components, ModelSettings
from chronoedit.request import EditRequest, bucket_size, default_reasoning_steps, parse_step_cache
from chronoedit.runtime.stepcache import step_cache
from chronoedit.sampling.solvers import solver_named

SEEDS = 2**31
"""A drawn seed is below this, so that it can be typed and that seed + variant stays valid."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedEdit:
    """One edit ready to run.

    `request` is complete; `picture` is the photo at the size of the edit; `photo_size` is (width, height) of the
    photo as it came; `image_sha256` names the given image, `pixels_sha256` the resized pixels (the cache's key);
    `latent_shape` is z t h w.
    """

    request: EditRequest
    course: Course
    picture: PIL.Image.Image
    photo_size: tuple[int, int]
    image_sha256: str
    pixels_sha256: str
    latent_shape: tuple[int, int, int, int]

    @property
    def pixels(self) -> Tensor:
        """The picture as 1 3 H W, fp32 in [-1, 1]."""
        return to_pixels(self.picture)


def prepare(request: EditRequest, photo: PIL.Image.Image, components: Components) -> PreparedEdit:
    """The request completed and its photo, as `load_image` read it, at the edit's size.

    Raises ValueError for a size, a number of steps or a solver that cannot be.
    """
    solver_named(request.solver)
    settings = components.settings
    height, width = edit_size(request, photo.size, settings.target_area, token_side(components))
    complete = replace(fill_defaults(request, settings), height=height, width=width)
    course = plan_course(complete, settings.reasoning_frames)
    picture = fit(photo, height, width)
    autoencoder = components.autoencoder
    return PreparedEdit(
        request=complete,
        course=course,
        picture=picture,
        photo_size=photo.size,
        image_sha256=image_sha256(request.image),
        pixels_sha256=pixels_sha256(picture),
        latent_shape=(autoencoder.config.z_dim, *latent_shape(autoencoder, course.num_frames, height, width)),
    )


def token_side(components: Components) -> int:
    """The side of one token in pixels (16 as published): what the autoencoder and the patches cut a picture into."""
    _, patch_height, patch_width = components.transformer.config.patch_size
    return components.autoencoder.config.scale_factor_spatial * math.lcm(patch_height, patch_width)


def fill_defaults(request: EditRequest, settings: ModelSettings) -> EditRequest:
    """The request with what it leaves open taken from the model's settings, and a seed drawn where it has none.

    Raises ValueError for a step cache that the steps or the model do not allow.
    """
    steps = request.num_inference_steps or settings.num_inference_steps
    reasoning_steps = request.num_reasoning_steps
    if request.reasoning and reasoning_steps is None:
        reasoning_steps = default_reasoning_steps(steps)
    if request.step_cache is not None:
        step_cache(request.step_cache, settings)
    return replace(
        request,
        num_inference_steps=steps,
        num_reasoning_steps=reasoning_steps,
        guidance_scale=settings.guidance_scale if request.guidance_scale is None else request.guidance_scale,
        step_cache=None if request.step_cache is None else "{}:{!r}".format(*parse_step_cache(request.step_cache)),
        flow_shift=settings.flow_shift if request.flow_shift is None else request.flow_shift,
        negative_prompt=request.negative_prompt or settings.negative_prompt,
        seed=draw_seed() if request.seed is None else request.seed,
    )


def draw_seed() -> int:
    """A seed for a request that has none."""
    return random.SystemRandom().randrange(SEEDS)


def edit_size(request: EditRequest, photo_size: tuple[int, int], target_area: int, multiple: int) -> tuple[int, int]:
    """(height, width) of the edit for a photo of (width, height): as asked for, else by aspect ratio, else the bucket.

    Raises ValueError when a given side is no multiple of the model's token side, or a derived side would be none.
    """
    photo_width, photo_height = photo_size
    for name, side in (("height", request.height), ("width", request.width)):
        if side is not None and side % multiple:
            below = max(side // multiple, 1) * multiple
            raise ValueError(f"{name} {side} is not a multiple of {multiple}; use {below} or {below + multiple}")
    if request.height is not None and request.width is not None:
        return request.height, request.width
    if request.height is not None:
        return request.height, _nearest(request.height * photo_width / photo_height, multiple)
    if request.width is not None:
        return _nearest(request.width * photo_height / photo_width, multiple), request.width
    return bucket_size(photo_height, photo_width, target_area, multiple)


def fit(picture: PIL.Image.Image, height: int, width: int) -> PIL.Image.Image:
    """The picture at a size, by Lanczos as diffusers' processor does; untouched when it has that size."""
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), PIL.Image.Resampling.LANCZOS)


def to_pixels(picture: PIL.Image.Image) -> Tensor:
    """An RGB picture as 1 3 H W, fp32 in [-1, 1]."""
    array = np.array(picture, dtype=np.float32)  # H W 3
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 255 * 2 - 1  # 1 3 H W


def to_frames(video: Tensor) -> np.ndarray:
    """A video 3 T H W in [-1, 1] as uint8 T H W 3, rounded to the nearest level. Raises NotFinite."""
    check_finite(video[None], "the decoded pictures", "(decode")
    levels = (video.detach().float().cpu() / 2 + 0.5).clamp(0, 1) * 255
    return levels.round().to(torch.uint8).permute(1, 2, 3, 0).numpy()  # T H W 3


def pixels_sha256(picture: PIL.Image.Image) -> str:
    """SHA-256 of an RGB picture's size and pixels, whatever file it came from."""
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def _nearest(side: float, multiple: int) -> int:
    rounded = round(side / multiple) * multiple
    if not rounded:
        raise ValueError(f"the other side would be {side:.1f} px, below {multiple}; give a larger size, or both sides")
    return rounded
