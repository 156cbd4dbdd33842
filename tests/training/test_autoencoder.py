"""The autoencoder's training: it learns, resumes, and writes what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from chronoedit.data.synth import to_pixels
from chronoedit.model import autoencoder as ae
from chronoedit.model.frames import decode_frames, encode_frames
from chronoedit.training.autoencoder import train_autoencoder, train_frames
from chronoedit.world import sample_item

from .conftest import CPU, SIZE, autoencoder_recipe, silent


def pixels(count: int) -> torch.Tensor:
    return to_pixels(np.stack([sample_item(seed, size=SIZE).input for seed in range(count)]), CPU)


def test_it_learns(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    recipe = autoencoder_recipe(40)
    train_frames(recipe, tmp_path, CPU, records.append)
    untrained = recipe.model.build()
    images = pixels(4)
    with torch.no_grad():
        blank = decode_frames(untrained, encode_frames(untrained, images)[:, :16])
    baseline = -10 * torch.log10((blank.clamp(-1, 1) - images).square().mean() / 4)
    assert records[-1]["psnr"] > float(baseline) + 3
    assert {"psnr", "psnr_detail", "psnr_noisy", "loss", "steps_per_s"} <= records[-1].keys()


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = train_frames(autoencoder_recipe(4), tmp_path / "whole", CPU, silent)

    def stop(record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    recipe = autoencoder_recipe(4)
    early = json.loads(json.dumps({"validate_every_s": 0.0}))
    object.__setattr__(recipe.frames.optimisation, "validate_every_s", early["validate_every_s"])
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train_frames(recipe, tmp_path / "parts", CPU, stop)
    parts = train_frames(autoencoder_recipe(4), tmp_path / "parts", CPU, silent)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_written_autoencoder_normalises_its_latents(trained_autoencoder: Path) -> None:
    autoencoder = AutoencoderKLWan.from_pretrained(trained_autoencoder).eval()
    images = pixels(6)
    with torch.no_grad():
        latents = torch.cat([ae.encode(autoencoder, image[None, :, None]) for image in images])
    assert latents.shape == (6, 16, 1, SIZE // 8, SIZE // 8)
    assert latents.mean(dim=(0, 2, 3, 4)).abs().max() < 1
    assert 0.2 < latents.std() < 2
    assert autoencoder.config.latents_std != [1.0] * 16


def test_the_same_command_adds_nothing(trained_autoencoder: Path) -> None:
    weights = trained_autoencoder / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    train_autoencoder(autoencoder_recipe(12), trained_autoencoder.parent, CPU, silent)
    assert weights.read_bytes() == before
