"""What the tests of editing share: photos, editors of a random checkpoint, and a count of what the model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from chronoedit.editing.editor import Editor
from chronoedit.model.checkpoint import Components, open_checkpoint
from chronoedit.request import EditRequest

SIDE_PX = 64
"""The random checkpoint's own area: 64 · 64 pixels, 16 tokens a latent frame."""


def make_photo(seed: int = 0, width: int = SIDE_PX, height: int = SIDE_PX) -> PIL.Image.Image:
    """A smooth random picture: noise of 4 x 4 blown up, so that resizing keeps it recognisable."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)


def make_request(**changes: object) -> EditRequest:
    """A short edit of photo 0; `changes` are fields of the request."""
    fields = {
        "image": make_photo(),
        "prompt": "remove the red ball",
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "seed": 7,
        "return_latents": True,
    }
    return EditRequest(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def components(random_checkpoint: Path) -> Components:
    """The random checkpoint with image branch, in memory once for all tests; do not change its weights."""
    return open_checkpoint(random_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def plain_components(random_checkpoint_no_image: Path) -> Components:
    """The same without image branch, as the embedded model is."""
    return open_checkpoint(random_checkpoint_no_image, device="cpu")


@pytest.fixture
def editor(components: Components) -> Editor:
    """An editor of its own cache, so that each test begins with nothing encoded."""
    return Editor(components, device="cpu")


class Calls:
    """Forward counts by component; `batch_sizes` and `frames` of each forward of the transformer, in order."""

    def __init__(self) -> None:
        self.count = {"text_encoder": 0, "image_encoder": 0, "encode": 0, "decode": 0}
        self.batch_sizes: list[int] = []
        self.frames: list[int] = []


@pytest.fixture
def counted(components: Components, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Counts what `components` does during the test."""
    calls = Calls()

    def counting(name: str, function: Callable) -> Callable:
        def wrapper(*args: object, **kwargs: object) -> object:
            calls.count[name] += 1
            return function(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(components.text_encoder, "forward", counting("text_encoder", components.text_encoder.forward))
    monkeypatch.setattr(
        components.image_encoder, "forward", counting("image_encoder", components.image_encoder.forward)
    )
    for name in ("encode", "decode"):
        monkeypatch.setattr(components.autoencoder, name, counting(name, getattr(components.autoencoder, name)))
    forward = components.transformer.forward

    def recorded(hidden_states: object, *args: object, **kwargs: object) -> object:
        calls.batch_sizes.append(hidden_states.shape[0])  # type: ignore[attr-defined]
        calls.frames.append(hidden_states.shape[2])  # type: ignore[attr-defined]
        return forward(hidden_states, *args, **kwargs)

    monkeypatch.setattr(components.transformer, "forward", recorded)
    return calls
