"""The whole edit against diffusers' ChronoEditPipeline, from the same initial noise, on one random checkpoint.

What is compared: the final latents, fp32, 8 steps, guidance 5, shift 5, integer timesteps, with the same tokenizer,
UMT5, CLIP and AutoencoderKLWan objects in both; the transformer is diffusers' own class there and ours here, with one
state dict. The pipeline runs from the picture and the prompts, so that encoding, condition, schedule, guidance,
solver and the drop are all in the comparison.

The drop: diffusers' pipeline cuts the latents, the condition, both entries of its scheduler's `model_outputs` and its
`last_sample` at the start of step `num_temporal_reasoning_steps`, which is right (every tensor of the history, and
before the model is called); so it serves as the reference for the drop too. It decodes the edit from [0, -1].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, ChronoEditPipeline, ChronoEditTransformer3DModel, UniPCMultistepScheduler

from chronoedit.editing.editor import Editor
from chronoedit.model.checkpoint import Components

from .conftest import SIDE_PX, make_photo, make_request

STEPS = 8
TOLERANCE = 1e-4
CASES = {"no reasoning": (None, 2), "drop at 3 of 8": (3, 8), "never drop": (8, 8)}


@pytest.fixture(scope="module")
def pipeline(random_checkpoint: Path, components: Components) -> ChronoEditPipeline:
    transformer = ChronoEditTransformer3DModel.from_pretrained(random_checkpoint / "transformer")
    pipe = ChronoEditPipeline(
        tokenizer=components.tokenizer,
        text_encoder=components.text_encoder,
        image_encoder=components.image_encoder,
        image_processor=components.image_processor,
        transformer=transformer.eval(),
        vae=AutoencoderKLWan.from_pretrained(random_checkpoint / "vae").eval(),
        scheduler=UniPCMultistepScheduler.from_pretrained(random_checkpoint / "scheduler"),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def published(pipe: ChronoEditPipeline, noise: torch.Tensor, reasoning_steps: int | None, output: str) -> object:
    return pipe(
        image=make_photo(),
        prompt="remove the red ball",
        negative_prompt="blue cat",
        height=SIDE_PX,
        width=SIDE_PX,
        num_frames=29,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        latents=noise,
        output_type=output,
        enable_temporal_reasoning=reasoning_steps is not None,
        num_temporal_reasoning_steps=reasoning_steps or 0,
    ).frames


def initial(latent_frames: int) -> torch.Tensor:
    shape = (1, 16, latent_frames, SIDE_PX // 8, SIDE_PX // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("collapse_padding", [True, False], ids=["collapsed pads", "all pads"])
@pytest.mark.parametrize("case", CASES)
def test_final_latents_equal_the_published_pipeline(
    pipeline: ChronoEditPipeline, components: Components, case: str, collapse_padding: bool
) -> None:
    reasoning_steps, latent_frames = CASES[case]
    noise = initial(latent_frames)
    reference = published(pipeline, noise, reasoning_steps, "latent")
    request = make_request(
        num_inference_steps=STEPS,
        num_reasoning_steps=reasoning_steps,
        guidance_scale=5.0,
        negative_prompt="blue cat",
    )
    editor = Editor(components, device="cpu", collapse_padding=collapse_padding)
    latents = editor.edit(request, noise=noise).latents
    assert latents.shape == reference.shape
    bound = TOLERANCE * max(1.0, float(reference.abs().max()))
    assert float((latents - reference).abs().max()) <= bound


def test_pixels_equal_the_published_pipeline(pipeline: ChronoEditPipeline, editor: Editor) -> None:
    """The 5 decoded frames of a plain edit, and the 25 reasoning frames where nothing was dropped, as uint8 ± 1."""
    plain = published(pipeline, initial(2), None, "np")[0]
    request = make_request(num_inference_steps=STEPS, guidance_scale=5.0, negative_prompt="blue cat")
    ours = editor.edit(request, noise=initial(2))
    assert np.abs(ours.video / 255.0 - plain).max() <= 1.5 / 255
    whole = published(pipeline, initial(8), STEPS, "np")[0]  # 25 frames, then 4 of the edit
    request = make_request(
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        negative_prompt="blue cat",
        num_reasoning_steps=STEPS,
        return_trajectory=True,
    )
    shown = editor.edit(request, noise=initial(8))
    expected = np.concatenate([whole[:25], whole[-1:]])
    assert shown.trajectory is not None
    assert np.abs(shown.trajectory / 255.0 - expected).max() <= 1.5 / 255
