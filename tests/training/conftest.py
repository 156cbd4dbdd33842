"""A tiny autoencoder and embedded model, trained for a few steps once for all tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from chronoedit.training.autoencoder import AutoencoderModel, AutoencoderRecipe, FrameStage, PictureData
from chronoedit.training.recipes import Budget, Optimisation
from chronoedit.training.text import TextModel
from chronoedit.training.trainer import EmbeddedRecipe, Flow, LatentData, TransformerModel

CPU = torch.device("cpu")
SIZE = 32


def silent(record: dict[str, Any]) -> None:
    """A log that keeps nothing."""


def autoencoder_recipe(steps: int) -> AutoencoderRecipe:
    return AutoencoderRecipe(
        model=AutoencoderModel(base_dim=4, decoder_base_dim=4),
        data=PictureData(items=6, validation_items=2, size_px=SIZE, workers=1),
        frames=FrameStage(
            budget=Budget(max_steps=steps),
            optimisation=Optimisation(
                learning_rate=1e-2, warmup_steps=3, batch_size=8, ema_decay=0.8, checkpoint_every_s=0.0
            ),
            crop_px=16,
        ),
    )


def embedded_recipe(steps: int, **optimisation: Any) -> EmbeddedRecipe:
    settings = {"learning_rate": 3e-3, "warmup_steps": 2, "batch_size": 4, "checkpoint_every_s": 0.0}
    return EmbeddedRecipe(
        data=LatentData(items=8, clip_every=3, validation_items=4, size_px=SIZE, workers=1),
        budget=Budget(max_steps=steps),
        optimisation=Optimisation(**{**settings, **optimisation}),
        transformer=TransformerModel(num_heads=1, head_dim=48, num_layers=2, ffn_dim=64, input_layers=1, input_heads=1),
        text=TextModel(d_model=24, num_layers=1, num_heads=2, d_kv=12, d_ff=32, vocab_size=120, max_sequence_length=40),
        flow=Flow(clip_share=0.4, clip_batch=2, grounding_weight=0.5),
    )


@pytest.fixture(scope="session")
def trained_autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an autoencoder that was trained for a few steps; shared, so never written to."""
    from chronoedit.training.autoencoder import train_autoencoder

    return train_autoencoder(autoencoder_recipe(12), tmp_path_factory.mktemp("autoencoder"), CPU, silent)
