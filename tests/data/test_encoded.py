"""Encoded training sets: what the transformer is given at inference, made once, kept on disk, checked when read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chronoedit.cache import TensorCache
from chronoedit.data.encoded import Encoder
from chronoedit.data.export import Export, export_world
from chronoedit.data.formats import open_records
from chronoedit.data.loader import Bucket, Geometry
from chronoedit.data.records import frames
from chronoedit.errors import OutputError
from chronoedit.model.checkpoint import Components, open_checkpoint
from chronoedit.model.condition import encode_clip, image_condition


@pytest.fixture(scope="module")
def components(random_checkpoint: Path) -> Components:
    return open_checkpoint(random_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    export_world(Export(count=3, first_seed=30, clip_share=0.34), folder)
    return folder


def encoder_in(folder: Path, components: Components) -> Encoder:
    return Encoder(components=components, cache=TensorCache(folder), geometry=Geometry(height=32, width=32))


def test_the_same_as_at_inference_and_made_once(
    world: Path, components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = open_records(world).records
    encoder = encoder_in(tmp_path, components)
    stages: list[str] = []
    examples = encoder.encode(records, lambda stage, done, total: stages.append(stage))
    assert {example.bucket for example in examples} == {Bucket(2, 32, 32), Bucket(8, 32, 32)}
    assert stages == ["video"] * 3 + ["text"] * (len({r.prompt for r in records}) + 1)
    clip = next(k for k, example in enumerate(examples) if example.bucket.latent_frames == 8)
    found = encoder.load(examples[clip])
    video = torch.from_numpy(encoder.geometry.fit(frames(records[clip]))).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(found.latents[None], encode_clip(components.autoencoder, video))
        expected = image_condition(components.autoencoder, video[:, :, 0], 29)
    torch.testing.assert_close(found.condition[None], expected)
    assert found.latents.shape[1] == found.condition.shape[1] == 8
    assert found.image is not None and found.image.ndim == 2
    assert found.text.shape[0] < components.settings.max_sequence_length

    def fail(*args: object) -> None:
        raise AssertionError("encoded again")

    for name in ("_latents", "_condition", "_text", "_image"):
        monkeypatch.setattr(Encoder, name, fail)
    again = encoder_in(tmp_path, components)
    assert again.encode(records) == examples
    assert torch.equal(again.load(examples[clip]).latents, found.latents)


def test_encoders_leave_memory(world: Path, components: Components, tmp_path: Path) -> None:
    encoder_in(tmp_path, components).encode(open_records(world).records)
    assert not {"autoencoder", "text_encoder", "image_encoder"} & components.loaded.keys()


def test_cache_is_whole_or_says_so(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, shard_bytes=100)
    values = {f"k{n}": torch.full((20,), float(n)) for n in range(5)}
    for key, value in values.items():
        cache.put(key, value)
    cache.put("bf16", torch.ones(3, dtype=torch.bfloat16))
    assert len(TensorCache(tmp_path)) == 4  # full shards are there before flush
    cache.flush()
    again = TensorCache(tmp_path)
    assert len(again) == 6 and all(torch.equal(again.get(key), value) for key, value in values.items())
    assert again.get("bf16").dtype == torch.bfloat16
    with pytest.raises(KeyError):
        again.get("other")
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    damaged = TensorCache(tmp_path)
    with pytest.raises(OutputError, match="another checksum; delete it"):
        for key in (*values, "bf16"):
            damaged.get(key)
    shard.write_bytes(bytes(data[:-10]))
    with pytest.raises(OutputError, match="cannot be read"):
        TensorCache(tmp_path)


def test_foreign_files_in_the_cache_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(OutputError, match="is no shard of this cache"):
        TensorCache(tmp_path)


def test_pixels_name_what_is_stored(world: Path, components: Components, tmp_path: Path) -> None:
    records = open_records(world).records
    encoder = encoder_in(tmp_path, components)
    key = encoder._with_video(records[0]).latents
    other = Encoder(components=components, cache=encoder.cache, geometry=Geometry(height=48, width=32))
    assert other._with_video(records[0]).latents != key
