from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch

from chronoedit.media import image_sha256
from chronoedit.request import PRESETS, EditRequest, default_reasoning_steps, image_reference, with_preset


def request(**changes: object) -> EditRequest:
    return EditRequest(**{"image": "a.png", "prompt": "make the ball red", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": None}, "prompt is a NoneType"),
        ({"height": 721}, "height 721 is not a multiple of 16; use 720 or 736"),
        ({"width": 8}, "width 8 is below 16"),
        ({"width": 640.0}, "width is 640.0"),
        ({"num_inference_steps": 0}, "num_inference_steps 0 is below 1"),
        ({"num_inference_steps": True}, "num_inference_steps is True"),
        ({"guidance_scale": 0.5}, "1 is no guidance"),
        ({"guidance_scale": float("nan")}, "finite"),
        ({"flow_shift": 0}, "above 0"),
        ({"step_cache": "second-block"}, "choose from first-block, mag"),
        ({"step_cache": True}, "give one of first-block, mag"),
        ({"step_cache": "mag:"}, "'' is no number; write mag:0.05"),
        ({"step_cache": "mag:1.5"}, "1.5 is not in 0 to 1"),
        ({"step_cache": "mag:nan"}, "nan is not in 0 to 1"),
        ({"step_cache": "first-block", "num_inference_steps": 10}, "10 steps, which differ too much to share work"),
        ({"seed": -1}, "seed -1 is below 0"),
        ({"seed": 2**63 - 1, "num_variants": 2}, "use a lower seed"),
        ({"num_variants": 0}, "num_variants 0 is below 1"),
        ({"num_variants": None}, "num_variants is None"),
        ({"reasoning": True, "num_reasoning_steps": 0}, "turn reasoning off"),
        ({"num_inference_steps": 8, "num_reasoning_steps": 9}, "num_reasoning_steps 9 is more than"),
        ({"reasoning": "yes"}, "reasoning is 'yes'; give True or False"),
        ({"return_trajectory": True}, "return_trajectory needs reasoning"),
        ({"image_embed_mode": "pad"}, "choose from crop, squash"),
        ({"noise_device": "cuda"}, "choose from cpu, device"),
        ({"image": ""}, "empty path"),
        ({"image": 3}, "image is a int"),
        ({"image": np.zeros((4, 4, 3))}, "H W 3 of uint8"),
        ({"image": np.zeros((4, 4), np.uint8)}, "H W 3 of uint8"),
        ({"image": torch.zeros(4, 4, 3)}, "3 H W"),
        ({"image": torch.full((3, 4, 4), 2.0)}, "scale them to"),
        ({"image": torch.full((3, 4, 4), float("nan"))}, "scale them to"),
    ],
)
def test_refuses_with_the_remedy(changes: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        request(**changes)
    assert message in str(error.value)


def test_reasoning_steps_imply_reasoning() -> None:
    assert request(num_reasoning_steps=3).reasoning
    assert not request(num_reasoning_steps=0).reasoning
    assert not request().reasoning
    assert request(num_inference_steps=8, num_reasoning_steps=8, return_trajectory=True).reasoning


def test_json_round_trip() -> None:
    original = request(height=720, seed=7, guidance_scale=4.5, num_reasoning_steps=3, progress=lambda p: True)
    written = json.loads(json.dumps(original.to_json()))
    assert EditRequest.from_json(written) == original
    assert "progress" not in written


def test_json_refuses_unknown_and_missing_keys() -> None:
    with pytest.raises(ValueError, match="unknown request key 'steps'"):
        EditRequest.from_json({**request().to_json(), "steps": 3})
    with pytest.raises(ValueError, match="needs 'prompt'"):
        EditRequest.from_json({"image": "a.png"})


def test_image_in_memory_is_named_by_its_pixels() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    reference = request(image=PIL.Image.fromarray(pixels)).to_json()["image"]
    assert reference.startswith("sha256:") and len(reference) == 7 + 64
    assert reference == image_reference(pixels) == "sha256:" + image_sha256(pixels)
    assert reference != image_reference(pixels.transpose(1, 0, 2))
    assert image_reference(torch.zeros(3, 2, 2)) != image_reference(torch.ones(3, 2, 2))
    assert EditRequest.from_json(request(image=pixels).to_json()).image == reference


def test_presets_fill_what_is_open() -> None:
    turbo = with_preset(request(num_inference_steps=12), "turbo")
    assert (turbo.num_inference_steps, turbo.guidance_scale, turbo.flow_shift) == (12, 1.0, 2.0)
    assert with_preset(request(), "think").reasoning
    assert with_preset(request(num_reasoning_steps=4), "think").num_reasoning_steps == 4
    assert not with_preset(request(), "quality").reasoning
    with pytest.raises(ValueError, match="without reasoning"):
        with_preset(request(reasoning=True), "quality")
    with pytest.raises(ValueError, match=", ".join(PRESETS)):
        with_preset(request(), "fast")


@pytest.mark.parametrize(("steps", "expected"), [(1, 1), (2, 1), (8, 2), (20, 4), (50, 10)])
def test_default_reasoning_steps(steps: int, expected: int) -> None:
    assert default_reasoning_steps(steps) == expected


def test_import_leaves_torch_out() -> None:
    code = "import sys, chronoedit.request; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
