"""Sample edits: those of the editor, the same each time, and training goes on as if there had been none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chronoedit.cache import TensorCache
from chronoedit.data.encoded import Encoder, Example
from chronoedit.data.export import Export, export_world
from chronoedit.data.formats import open_records
from chronoedit.data.loader import Geometry
from chronoedit.data.records import frames
from chronoedit.editing.editor import Editor
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.request import EditRequest
from chronoedit.training.lora import Adapter, add_factors
from chronoedit.training.samples import MAX_SAMPLES, Samples
from chronoedit.training.state import step_generator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    export_world(Export(count=4, first_seed=40, clip_share=0.25), folder)
    return folder


def encoded(data: Path, model: str | Path, side: int) -> tuple[Encoder, list[Example]]:
    components = open_checkpoint(model, device="cpu")
    geometry = Geometry(height=side, width=side)
    encoder = Encoder(components=components, cache=TensorCache(data / f"cache{side}"), geometry=geometry)
    return encoder, encoder.encode(open_records(data).records)


def test_pairs_and_clips_on_one_sheet(data: Path, random_checkpoint: Path) -> None:
    encoder, examples = encoded(data, random_checkpoint, 32)
    examples.sort(key=lambda example: -example.bucket.latent_frames)
    assert [example.bucket.latent_frames for example in examples] == [8, 2, 2, 2]
    samples = Samples(encoder, [*examples, *examples], num_inference_steps=1)
    sheet = samples.draw(encoder.components.transformer, CPU)
    assert len(samples.examples) == MAX_SAMPLES
    assert sheet.width == (1 + 8 + 1) * (32 + 8) + 8  # input, eight frames, target
    assert sheet.height > 4 * (32 + 8)
    assert "autoencoder" not in encoder.components.loaded
    again = samples.draw(encoder.components.transformer, CPU)
    assert np.array_equal(np.asarray(sheet), np.asarray(again))
    with pytest.raises(ValueError, match="need an example"):
        Samples(encoder, [])


def test_a_transformer_in_training_is_left_as_it_was(data: Path, random_checkpoint: Path) -> None:
    encoder, examples = encoded(data, random_checkpoint, 32)
    transformer = encoder.components.transformer
    add_factors(transformer, Adapter(rank=2, targets=("q", "v")), seed=0)
    transformer.enable_gradient_checkpointing()
    transformer.train()
    transformer.blocks[0].eval()  # a part that is not in training stays so
    modes = [module.training for module in transformer.modules()]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    samples = Samples(encoder, examples[:1], num_inference_steps=2, compute="bf16")
    samples.draw(transformer, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in transformer.modules()] == modes
    assert all(parameter.grad is None for parameter in transformer.parameters())
    assert transformer.gradient_checkpointing and torch.is_grad_enabled()


def test_the_embedded_model_edits_as_the_editor_does(data: Path) -> None:
    encoder, examples = encoded(data, "tiny", 128)
    records = {record.row: record for record in open_records(data).records}
    pair = next(example for example in examples if example.bucket.latent_frames == 2)
    ((first, sample, last),) = Samples(encoder, [pair]).rows(encoder.components.transformer, CPU)

    before, *_, after = frames(records[pair.row])
    request = EditRequest(image=before, prompt=records[pair.row].prompt, height=128, width=128, seed=0)
    noise = torch.randn((1, 16, 2, 16, 16), generator=step_generator(0, 0, "samples"))
    edited = Editor(encoder.components).edit(request, noise=noise).image
    assert difference(sample, edited) < 0.5  # of 255: the prompt's padding is collapsed in both, other batches round
    assert difference(first, before) < 8 and difference(last, after) < 8
    assert difference(sample, after) < difference(before, after)


def difference(one: Image.Image | np.ndarray, other: Image.Image | np.ndarray) -> float:
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())
