"""The decoder learns what lies between latent frames; the encoder, and so all latents, stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan

from chronoedit.training.autoencoder import train_autoencoder
from chronoedit.training.decoder import ClipSource, ClipStage, train_decoder
from chronoedit.training.recipes import Budget, Optimisation

from .conftest import CPU, SIZE, autoencoder_recipe, silent


def stage(steps: int, **optimisation: Any) -> ClipStage:
    settings = {"learning_rate": 5e-3, "warmup_steps": 2, "batch_size": 2, "checkpoint_every_s": 0.0, "ema_decay": 0.5}
    return ClipStage(
        budget=Budget(max_steps=steps),
        optimisation=Optimisation(**{**settings, **optimisation}),
        clips=8,
        window=3,
        crop_px=16,
        latent_noise=0.0,
    )


def load(folder: Path) -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(folder).train()


def source(folder: Path) -> ClipSource:
    return ClipSource(folder, first_seed=50, size_px=SIZE, workers=1, seed=0)


def test_only_the_decoder_changes_and_clips_get_better(trained_autoencoder: Path, tmp_path: Path) -> None:
    before, records = load(trained_autoencoder), []
    after = train_decoder(
        load(trained_autoencoder), stage(40, validate_every_s=0.0), source(tmp_path), CPU, records.append
    )
    for name, parameter in after.encoder.named_parameters():
        assert torch.equal(parameter, before.encoder.get_parameter(name))
    assert torch.equal(after.post_quant_conv.weight, before.post_quant_conv.weight)
    past = after.decoder.conv_in.weight[:, :, 0]
    assert before.decoder.conv_in.weight[:, :, 0].abs().max() == 0
    assert past.abs().max() > 0  # it looks back now
    assert records[-1]["psnr_clips"] > records[0]["psnr_clips"]
    assert records[-1]["psnr_edit"] > records[0]["psnr_edit"] - 0.5


def test_resumed_equals_uninterrupted(trained_autoencoder: Path, tmp_path: Path) -> None:
    whole = train_decoder(load(trained_autoencoder), stage(4), source(tmp_path / "whole"), CPU, silent)

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_decoder(load(trained_autoencoder), stage(4, validate_every_s=0.0), source(tmp_path / "parts"), CPU, stop)
    parts = train_decoder(load(trained_autoencoder), stage(4), source(tmp_path / "parts"), CPU, silent)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_it_is_a_stage_of_the_recipe(tmp_path: Path) -> None:
    recipe = replace(autoencoder_recipe(2), decoder_clips=stage(2))
    folder = train_autoencoder(recipe, tmp_path, CPU, silent)
    assert load(folder).decoder.conv_in.weight[:, :, :-1].abs().max() > 0
    assert (tmp_path / "decoder_clips" / "log.jsonl").exists()


def test_a_window_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 and 5"):
        replace(stage(2), window=1)
