"""How an editor uses its autoencoder: tiles, the type of the decoder, the order of the numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from chronoedit.editing.coding import Coding
from chronoedit.editing.loading import load
from chronoedit.model import autoencoder as ae
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.model.condition import encode_pair
from chronoedit.world import sample_item

from .conftest import make_request


def edited(checkpoint: Path, coding: Coding | None) -> Any:
    editor = load(checkpoint, device="cpu", coding=coding)
    return editor.edit(make_request(reasoning=True, return_trajectory=True, height=64, width=96))


def test_an_edit_in_tiles_is_the_edit(random_checkpoint: Path) -> None:
    whole, tiles = edited(random_checkpoint, None), edited(random_checkpoint, Coding(tile_px=32))
    torch.testing.assert_close(tiles.latents, whole.latents, atol=1e-4, rtol=1e-4)
    for ours, theirs in ((tiles.image, whole.image), (tiles.trajectory, whole.trajectory)):
        assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1


def test_a_picture_goes_through_in_tiles(random_checkpoint: Path) -> None:
    photo = Image.fromarray(sample_item(0, size=96).input)
    whole, tiles = (
        load(random_checkpoint, device="cpu", coding=coding).reconstruct(photo) for coding in (None, Coding(tile_px=32))
    )
    assert np.abs(np.asarray(tiles, int) - np.asarray(whole, int)).max() <= 1


def test_the_decoder_has_its_type_and_the_encoder_its_own(random_checkpoint: Path) -> None:
    model = open_checkpoint(random_checkpoint, device="cpu").autoencoder
    Coding(decode_dtype=torch.bfloat16).prepare(model)
    assert (
        {each.dtype for each in model.decoder.parameters()} == {torch.bfloat16} == {model.post_quant_conv.weight.dtype}
    )
    assert {each.dtype for each in model.encoder.parameters()} == {torch.float32} == {model.quant_conv.weight.dtype}
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = encode_pair(model, pixels, pixels)
    assert latents.dtype == ae.decode(model, latents).dtype == torch.float32
    Coding().prepare(model)  # on a CPU
    assert model.post_quant_conv.weight.dtype == torch.float32


def test_bf16_changes_no_picture_visibly() -> None:
    """Of the embedded model: 60 dB against float32, where rounding to 8 bits alone leaves 59; at most 4 grey levels."""
    exact = open_checkpoint("tiny", device="cpu").autoencoder
    rounded = copy.deepcopy(exact)
    ae.set_decode_dtype(rounded, torch.bfloat16)
    for seed in range(4):
        picture = sample_item(seed, size=96).target
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        latents = encode_pair(exact, pixels, pixels)
        error = ae.decode(rounded, latents) - ae.decode(exact, latents)
        assert 10 * torch.log10(4 / error.square().mean()) > 60
        assert float(error.abs().max()) * 127.5 < 4


def test_channels_last_are_the_same_numbers(random_checkpoint: Path) -> None:
    model = open_checkpoint(random_checkpoint, device="cpu").autoencoder
    video = torch.rand(1, 3, 5, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = ae.encode(model, video)
    pixels = ae.decode(model, latents)
    ae.use_channels_last(model)
    assert model.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(ae.encode(model, video), latents, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(ae.decode(model, latents), pixels, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"), [({"tile_px": 0}, "tiles of 0 px"), ({"decode_dtype": torch.int8}, "decode_dtype is")]
)
def test_what_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Coding(**changes)
