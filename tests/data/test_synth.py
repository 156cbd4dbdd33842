"""The world as training records: pictures, and latents that equal those of the video autoencoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from chronoedit.data import synth
from chronoedit.data.synth import LatentPlan, LatentSet, encode_items, render_pictures, to_pixels
from chronoedit.model import autoencoder as ae
from chronoedit.model import condition
from chronoedit.model.frames import make_framewise
from chronoedit.world import sample_item

SIZE = 32
PLAN = {"first_seed": 10, "items": 5, "clip_every": 4, "size_px": SIZE}


@pytest.fixture(scope="module")
def autoencoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    autoencoder = AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4, in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=8, scale_factor_temporal=4,
    )  # fmt: skip
    make_framewise(autoencoder)
    folder = tmp_path_factory.mktemp("autoencoder")
    autoencoder.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plan(autoencoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LatentPlan:
    return LatentPlan(autoencoder=autoencoder_folder, folder=tmp_path_factory.mktemp("latents"), **PLAN)


@pytest.fixture(scope="module")
def encoded(plan: LatentPlan) -> LatentSet:
    return encode_items(plan, workers=1)


def test_pictures_are_inputs_and_later_frames(tmp_path: Path) -> None:
    path = tmp_path / "data" / "pictures.npy"
    pictures = render_pictures(path, first_seed=4, items=3, size_px=SIZE, workers=1)
    assert pictures.shape == (6, SIZE, SIZE, 3)
    for k, seed in enumerate((4, 5, 6)):
        assert np.array_equal(pictures[2 * k], sample_item(seed, size=SIZE).input)
    assert np.array_equal(pictures[1], sample_item(4, size=SIZE).target)
    written = path.stat().st_mtime_ns
    render_pictures(path, first_seed=4, items=3, size_px=SIZE, workers=1)
    assert path.stat().st_mtime_ns == written
    assert len(render_pictures(path, first_seed=4, items=1, size_px=SIZE, workers=1)) == 2


@pytest.mark.parametrize(("first_seed", "items"), [(-1, 2), (99_999, 2), (100_000, 1), (0, 0)])
def test_evaluation_seeds_are_refused(tmp_path: Path, first_seed: int, items: int) -> None:
    with pytest.raises(ValueError, match="for evaluation"):
        render_pictures(tmp_path / "x.npy", first_seed=first_seed, items=items, size_px=SIZE, workers=1)
    with pytest.raises(ValueError, match="for evaluation"):
        LatentPlan(autoencoder=tmp_path, folder=tmp_path, first_seed=first_seed, items=items, clip_every=1)


def test_latents_equal_those_of_pairs_and_clips(plan: LatentPlan, encoded: LatentSet) -> None:
    autoencoder = synth.load_framewise(plan.autoencoder)
    assert encoded.pairs.shape == (5, 2, 4, 4, 4)
    assert encoded.clips.shape == (1, 8, 4, 4, 4)
    assert encoded.clip_items.tolist() == [2]  # seed 12
    item = sample_item(12, size=SIZE)
    first, last = to_pixels(np.stack([item.input, item.target]), torch.device("cpu")).split(1)
    with torch.no_grad():
        pair = condition.encode_pair(autoencoder, first, last)[0].transpose(0, 1)
        video = to_pixels(item.frames(), torch.device("cpu")).movedim(0, 1).unsqueeze(0)
        clip = condition.encode_clip(autoencoder, video)[0].transpose(0, 1)
    assert np.allclose(encoded.pairs[2], pair.numpy(), atol=2e-3)
    assert np.allclose(encoded.clips[0], clip.numpy(), atol=2e-3)
    assert encoded.prompts == [sample_item(seed, size=SIZE).prompt for seed in range(10, 15)]
    assert encoded.captions == [sample_item(seed, size=SIZE).long_prompt for seed in range(10, 15)]


def test_shares_of_what_is_edited(plan: LatentPlan, encoded: LatentSet) -> None:
    cells = encoded.pairs.shape[-1]
    assert encoded.edited.shape == (plan.items, 2, cells, cells)
    for seed, shares in enumerate(encoded.edited, plan.first_seed):
        item = sample_item(seed, size=plan.size_px)
        for ids, share in zip((item.input_ids, item.target_ids), shares, strict=True):
            assert abs(np.isin(ids, list(item.edited)).mean() - share.mean() / 255) < 0.003


def test_the_empty_frame_is_that_of_the_condition(plan: LatentPlan, encoded: LatentSet) -> None:
    autoencoder = synth.load_framewise(plan.autoencoder)
    pixels = to_pixels(sample_item(1, size=SIZE).input[None], torch.device("cpu"))
    with torch.no_grad():
        whole = condition.image_condition(autoencoder, pixels, 29)[0, 4:]  # z t h w
    normalised = ae.normalise(autoencoder, encoded.empty[None, :, None])[0]
    assert torch.allclose(whole[:, 1:], normalised.expand(-1, 7, -1, -1), atol=2e-6)


def test_only_missing_shards_are_made(plan: LatentPlan, encoded: LatentSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "SHARD_ITEMS", 2)
    shards: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        shards.append((done, total))

    again = encode_items(plan, workers=1, on_shard=note)  # 10-11, whole with the first fixture's name, is kept
    assert shards == [(2, 3), (3, 3)]
    assert len(again.prompts) == len(again.pairs)
    shards.clear()
    (plan.folder / "000012.json").unlink()
    encode_items(plan, workers=1, on_shard=note)
    assert shards == [(3, 3)]
