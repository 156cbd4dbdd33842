"""Encoded training sets: what the transformer is given at inference, made once, kept on disk, checked when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def damage(shard: Path, kept: int | None = None) -> None:
    """Change the last byte of a file, or cut it."""
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.unlink()  # what was read from it before is still mapped
    shard.write_bytes(bytes(data[:kept]))


def test_a_damaged_tensor_is_found_and_the_whole_ones_beside_it_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = {f"k{n}": torch.full((20,), float(n)) for n in range(3)}
    cache = TensorCache(tmp_path)
    for key, value in values.items():
        cache.put(key, value)
    cache.flush()
    (shard,) = tmp_path.glob("*.safetensors")
    damage(shard)
    damaged = TensorCache(tmp_path)
    with pytest.raises(OutputError, match="a tensor has another checksum.; the same command finds that when it starts"):
        damaged.get("k2")
    assert [damaged.holds(key) for key in values] == [True, True, False]
    assert "another checksum): it is moved aside, and 1 of 3 of its tensors are made anew" in caplog.text
    assert "k2" not in damaged and torch.equal(damaged.get("k1"), values["k1"])
    damaged.put("k2", values["k2"])
    damaged.flush()
    again = TensorCache(tmp_path)
    assert len(again) == 3 and all(torch.equal(again.get(key), value) for key, value in values.items())
    assert [path.name for path in tmp_path.glob("*.damaged")] == [f"{shard.name}.damaged"]


def test_a_shard_that_is_cut_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TensorCache(tmp_path)
    cache.put("a", torch.ones(5))
    cache.flush()
    (shard,) = tmp_path.glob("*.safetensors")
    damage(shard, kept=-10)
    assert len(TensorCache(tmp_path)) == 0 and "all of its tensors are made anew" in caplog.text
    assert not shard.exists() and shard.with_name(f"{shard.name}.damaged").exists()


def test_a_damaged_set_is_made_anew_as_it_was(world: Path, components: Components, tmp_path: Path) -> None:
    records = open_records(world).records
    encoder = encoder_in(tmp_path, components)
    examples = encoder.encode(records)
    truth = [encoder.load(example) for example in examples]
    for shard in tmp_path.glob("*.safetensors"):
        damage(shard)
    again = encoder_in(tmp_path, components)
    assert again.encode(records) == examples
    for example, before in zip(examples, truth, strict=True):
        after = again.load(example)
        assert torch.equal(after.latents, before.latents) and torch.equal(after.condition, before.condition)
        assert torch.equal(after.text, before.text)


def fill(folder: Path, own: str, go: Any) -> None:
    """Write half of what the other process writes, and some of one's own, in many small shards."""
    go.wait()
    cache = TensorCache(folder, shard_bytes=400)
    for n in range(60):
        cache.put(f"both{n}" if n % 2 else f"{own}{n}", torch.full((50,), float(n)))
    cache.flush()
    assert all(float(cache.get(f"both{n}" if n % 2 else f"{own}{n}")[0]) == n for n in range(60))


def test_two_processes_fill_one_cache_at_once(tmp_path: Path) -> None:
    context = torch.multiprocessing.get_context("spawn")
    go = context.Barrier(2)
    fillers = [context.Process(target=fill, args=(tmp_path, own, go)) for own in ("a", "b")]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()
    assert [filler.exitcode for filler in fillers] == [0, 0]
    cache = TensorCache(tmp_path)
    for own in ("a", "b"):
        assert all(float(cache.get(f"both{n}" if n % 2 else f"{own}{n}")[-1]) == n for n in range(60))
    assert not list(tmp_path.glob("*.damaged")) and not list(tmp_path.glob(".*"))


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
