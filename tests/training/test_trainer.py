"""The embedded model's training, end to end on a tiny scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chronoedit.data.synth import to_pixels
from chronoedit.model.autoencoder import encode
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.model.condition import image_condition
from chronoedit.training import trainer as trainer_module
from chronoedit.training.trainer import Sources, Trainer, train_embedded
from chronoedit.world import sample_item

from .conftest import CPU, SIZE, embedded_recipe, silent


@pytest.fixture(scope="module")
def finished(trained_autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    train_embedded(embedded_recipe(6), autoencoder=trained_autoencoder, folder=folder, device=CPU, log=silent)
    return folder


@pytest.fixture(scope="module")
def trainer(trained_autoencoder: Path, finished: Path) -> Trainer:
    recipe = embedded_recipe(6)
    train, validation = (
        trainer_module._encoded(recipe, trained_autoencoder, finished, part, silent) for part in ("train", "validation")
    )
    sources = Sources(trained_autoencoder, finished / "model" / "tokenizer", train, validation)
    return Trainer(recipe, sources, CPU)


def test_the_model_opens_in_the_published_layout(finished: Path) -> None:
    components = open_checkpoint(finished / "model")
    settings = components.settings
    assert (settings.name, settings.target_area, settings.max_sequence_length) == ("tiny", SIZE**2, 40)
    assert (settings.num_inference_steps, settings.guidance_scale, settings.flow_shift) == (16, 1.5, 3.0)
    config = components.transformer.config
    assert (config.in_channels, config.out_channels, config.image_dim) == (36, 16, None)
    assert len(components.tokenizer) == components.text_encoder.config.vocab_size
    stored = open_checkpoint(finished / "model", dtype=torch.bfloat16).transformer
    assert stored.proj_out.weight.dtype == torch.bfloat16
    assert stored.proj_out.weight.abs().max() > 0  # it starts at zero


def test_training_sees_the_condition_of_inference(trainer: Trainer) -> None:
    item = sample_item(0, size=SIZE)
    pixels = to_pixels(item.input[None], CPU)
    with torch.no_grad():
        for num_frames, latents in ((5, 2), (29, 8)):
            expected = image_condition(trainer.autoencoder, pixels, num_frames)
            first = encode(trainer.autoencoder, pixels.unsqueeze(2))
            video = torch.cat([first, torch.randn(1, 16, latents - 1, *first.shape[-2:])], dim=2)
            assert torch.allclose(trainer._condition(video), expected, atol=1e-5)


def test_resumed_equals_uninterrupted(trained_autoencoder: Path, finished: Path, tmp_path: Path) -> None:
    def stop_at_four(record: dict[str, Any]) -> None:
        if record.get("step") == 4:
            raise KeyboardInterrupt

    noisy = embedded_recipe(6, validate_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        train_embedded(noisy, autoencoder=trained_autoencoder, folder=tmp_path, device=CPU, log=stop_at_four)
    train_embedded(embedded_recipe(6), autoencoder=trained_autoencoder, folder=tmp_path, device=CPU, log=silent)
    for part in ("transformer/diffusion_pytorch_model", "text_encoder/model"):
        name = f"model/{part}.safetensors"
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_the_loss_falls_on_a_batch_that_repeats(trainer: Trainer) -> None:
    figures = [trainer.step(0, 0.0) for _ in range(25)]
    name = next(key for key in figures[0] if key.startswith("loss"))
    assert figures[-1][name] < 0.8 * figures[0][name]


def test_what_is_edited_is_told_of_the_items_of_a_batch_that_repeats(trainer: Trainer) -> None:
    figures = [trainer.step(1, 0.0)["loss_grounding"] for _ in range(25)]
    assert figures[-1] < 0.8 * figures[0]


def test_validation_is_repeatable_and_leaves_the_weights(trainer: Trainer) -> None:
    before = trainer.transformer.proj_out.weight.detach().clone()
    first, second = trainer.validate(), trainer.validate()
    assert first == second
    assert torch.equal(before, trainer.transformer.proj_out.weight)
    assert {"val_0.2", "val_0.5", "val_0.8", "val_1.0", "val_edit", "val_clips_0.8"} == first.keys()


def test_clips_know_their_item(trainer: Trainer) -> None:
    """The prompt of a clip is its item's, and its first and last latents are the pair's."""
    for clip, item in zip(trainer.train.clips, trainer.train.clip_items, strict=True):
        pair = trainer.train.pairs[item]
        assert np.array_equal(clip[0], pair[0])
        assert np.array_equal(clip[-1], pair[-1])
        assert trainer.train.prompts[item] == sample_item(int(item), size=SIZE).prompt


def test_the_log_is_json_lines(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 6
    assert records[-1]["val_0.5"] > 0
