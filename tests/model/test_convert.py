"""Conversions there and back, bit for bit, and what happens to outputs that exist or cannot be written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from chronoedit.errors import CheckpointError, OutputError
from chronoedit.model import keys
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.model.convert import Conversion, convert, layout_for
from chronoedit.model.random_checkpoint import write_random_checkpoint

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
PUBLISHED = Conversion(layout="published")
ORIGINAL = Conversion(layout="original")


def transformer_weights(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in (folder / "transformer").glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name


def mixed_types(folder: Path) -> Path:
    """The folder with a transformer in bf16, but for some fp32 parameters and one NaN, as real ones have them."""
    weights = {name: t if t.ndim == 1 else t.bfloat16() for name, t in load_file(folder / WEIGHTS).items()}
    weights["proj_out.bias"][0] = float("nan")
    save_file(weights, folder / WEIGHTS)
    return folder


def test_to_original_names_and_back(random_checkpoint: Path, tmp_path: Path) -> None:
    folder = mixed_types(Path(shutil.copytree(random_checkpoint, tmp_path / "model")))
    expected = transformer_weights(folder)
    single = convert(folder, tmp_path / "wan.safetensors", ORIGINAL)
    assert set(load_file(single)) == {keys.to_original(name) for name in expected}
    back = convert(single, tmp_path / "back", PUBLISHED, base=folder)
    assert_same_bits(transformer_weights(back), expected)
    again = convert(back, tmp_path / "again.safetensors", ORIGINAL)
    assert_same_bits(load_file(again), load_file(single))


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_prefix_and_unused_norm(prefix: str, random_checkpoint: Path, tmp_path: Path) -> None:
    conversion = Conversion(layout="original", prefix=prefix, unused_norm=True)
    single = convert(random_checkpoint, tmp_path / "comfy.safetensors", conversion)
    names = set(load_file(single))
    assert all(name.startswith(prefix) for name in names)
    added = {f"{prefix}blocks.{block}.cross_attn.norm_q_img.weight" for block in range(2)}
    assert added <= names
    assert len(names) == len(transformer_weights(random_checkpoint)) + 2
    back = convert(single, tmp_path / "back", PUBLISHED, base=random_checkpoint)
    assert_same_bits(transformer_weights(back), transformer_weights(random_checkpoint))


def test_a_wan_mirror_in_shards_becomes_the_published_layout(tmp_path: Path) -> None:
    mirror = write_random_checkpoint(tmp_path / "mirror", index_style="wan", shards=3)
    seen: list[tuple[int, int]] = []
    output = convert(mirror, tmp_path / "new" / "published", PUBLISHED, progress=lambda *done: seen.append(done))
    assert seen[-1] == (87, 87)
    assert_same_bits(transformer_weights(output), transformer_weights(mirror))
    assert [path.name for path in (output / "transformer").glob("*.safetensors")] == [Path(WEIGHTS).name]
    index = json.loads((output / "model_index.json").read_text())
    assert index["_class_name"] == "ChronoEditPipeline"
    assert index["transformer"] == ["diffusers", "ChronoEditTransformer3DModel"]
    assert json.loads((output / "transformer/config.json").read_text())["_class_name"] == index["transformer"][1]
    for name in ("vae", "text_encoder", "image_encoder"):
        for path in (mirror / name).iterdir():
            assert (output / name / path.name).read_bytes() == path.read_bytes()
    mine, theirs = open_checkpoint(output, device="cpu"), open_checkpoint(mirror, device="cpu")
    assert mine.settings == theirs.settings


def test_shards_of_a_given_size(random_checkpoint: Path, tmp_path: Path) -> None:
    limit = 300_000
    output = convert(random_checkpoint, tmp_path / "o", Conversion(layout="published", max_shard_bytes=limit))
    files = sorted((output / "transformer").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0].name == f"diffusion_pytorch_model-00001-of-{len(files):05d}.safetensors"
    assert all(sum(t.numel() * 4 for t in load_file(path).values()) <= limit for path in files)
    assert_same_bits(transformer_weights(output), transformer_weights(random_checkpoint))
    open_checkpoint(output, device="cpu")


def test_another_type(random_checkpoint: Path, tmp_path: Path) -> None:
    conversion = Conversion(layout="published", dtype=torch.bfloat16)
    output = convert(random_checkpoint, tmp_path / "half", conversion)
    expected = {name: tensor.bfloat16() for name, tensor in transformer_weights(random_checkpoint).items()}
    assert_same_bits(transformer_weights(output), expected)


def test_gguf_and_fp8_are_decoded(random_checkpoint: Path, tmp_path: Path) -> None:
    weights = transformer_weights(random_checkpoint)
    coded = {str(keys.to_original(name)): tensor for name, tensor in weights.items()}
    coded["blocks.0.ffn.0.weight"] = (coded["blocks.0.ffn.0.weight"] / 2).to(torch.float8_e4m3fn)
    coded["blocks.0.ffn.0.scale_weight"] = torch.tensor(2.0)
    save_file(coded, tmp_path / "fp8.safetensors")
    output = convert(tmp_path / "fp8.safetensors", tmp_path / "o", PUBLISHED, base=random_checkpoint)
    found = transformer_weights(output)
    expected = {**weights, "blocks.0.ffn.net.0.proj.weight": coded["blocks.0.ffn.0.weight"].float() * 2}
    assert_same_bits(found, expected)


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
def test_pth_becomes_safetensors(nested: str | None, random_checkpoint: Path, tmp_path: Path) -> None:
    weights = transformer_weights(random_checkpoint)
    state = {str(keys.to_original(name)): tensor for name, tensor in weights.items()}
    torch.save(state if nested is None else {nested: state, "step": 3}, tmp_path / "wan.pth")
    single = convert(tmp_path / "wan.pth", tmp_path / "wan.safetensors", ORIGINAL)
    assert_same_bits(load_file(single), state)
    output = convert(tmp_path / "wan.pth", tmp_path / "o", PUBLISHED, base=random_checkpoint)
    assert_same_bits(transformer_weights(output), weights)


def test_pth_of_the_published_trainer(random_checkpoint: Path, tmp_path: Path) -> None:
    """What its own script makes of its checkpoints: all under net., patches by a linear layer, counters beside."""
    weights = transformer_weights(random_checkpoint)
    state = {f"net.{keys.to_original(name)}": tensor for name, tensor in weights.items()}
    state["net.patch_embedding.weight"] = state["net.patch_embedding.weight"].flatten(1)
    state |= {"net.accum_iteration": torch.tensor(7), "net.blocks.0.self_attn.attn_op._extra_state": torch.ones(1)}
    torch.save(state, tmp_path / "model.pth")
    output = convert(tmp_path / "model.pth", tmp_path / "o", PUBLISHED, base=random_checkpoint)
    assert_same_bits(transformer_weights(output), weights)


class Trap:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"head.head.weight": Trap()}, "cannot be read as plain tensors"),
        ([torch.zeros(1)], "holds no table of tensors by name"),
        ({"a": torch.zeros(1)}, "holds no transformer of this kind"),
        ({"head.head.weight": torch.zeros(1, dtype=torch.int8)}, "1 tensors are of no floating-point type"),
    ],
)
def test_pth_that_is_refused(content: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "bad.pth", tmp_path / "o.safetensors", ORIGINAL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth"]


def test_truncated_pth(tmp_path: Path) -> None:
    torch.save({"head.head.weight": torch.zeros(1000)}, tmp_path / "bad.pth")
    (tmp_path / "bad.pth").write_bytes((tmp_path / "bad.pth").read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="bad.pth cannot be read as plain tensors"):
        convert(tmp_path / "bad.pth", tmp_path / "o.safetensors", ORIGINAL)


def test_a_single_file_needs_a_base_for_the_published_layout(random_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="give a folder that has them .--base FOLDER"):
        convert(random_checkpoint / WEIGHTS, tmp_path / "o", PUBLISHED)
    assert not (tmp_path / "o").exists()


def test_names_without_an_original_are_reported(random_checkpoint: Path, tmp_path: Path) -> None:
    save_file({**transformer_weights(random_checkpoint), "surprise": torch.zeros(1)}, tmp_path / "s.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors have no original name \(surprise\); nothing was written"):
        convert(tmp_path / "s.safetensors", tmp_path / "o.safetensors", ORIGINAL)


def test_outputs_that_exist(random_checkpoint: Path, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "precious.txt").write_text("kept")
    with pytest.raises(OutputError, match="occupied exists and is not empty; choose another folder"):
        convert(random_checkpoint, occupied, PUBLISHED)
    assert (occupied / "precious.txt").read_text() == "kept"
    with pytest.raises(OutputError, match="is the input itself"):
        convert(random_checkpoint, random_checkpoint, PUBLISHED)
    with pytest.raises(OutputError, match="is a folder; give a file"):
        (tmp_path / "dir.safetensors").mkdir()
        convert(random_checkpoint, tmp_path / "dir.safetensors", ORIGINAL)
    with pytest.raises(ValueError, match="must end in .safetensors"):
        convert(random_checkpoint, tmp_path / "o.gguf", ORIGINAL)
    (tmp_path / "empty").mkdir()
    convert(random_checkpoint, tmp_path / "empty", PUBLISHED)
    open_checkpoint(tmp_path / "empty", device="cpu")


@pytest.mark.parametrize("layout", ["published", "original"])
def test_full_disk_leaves_what_was_there(
    layout: str, random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    output = tmp_path / ("o.safetensors" if layout == "original" else "o")
    if layout == "original":
        output.write_text("old")
    with pytest.raises(OutputError, match="No space left on device.*free some space or choose another output"):
        convert(random_checkpoint, output, Conversion(layout=layout))
    assert [path.name for path in tmp_path.iterdir()] == (["o.safetensors"] if layout == "original" else [])
    if layout == "original":
        assert output.read_text() == "old"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "new"}, "layout is 'new'; choose one of published, original"),
        ({"layout": "original", "dtype": torch.int8}, "is no type of weights"),
        ({"layout": "original", "prefix": "model"}, "does not end in a dot; use 'model.'"),
        ({"layout": "published", "prefix": "model."}, "belong to original names"),
        ({"layout": "published", "unused_norm": True}, "belong to original names"),
        ({"layout": "published", "max_shard_bytes": 0}, "at least 1 is expected"),
    ],
)
def test_options_that_are_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conversion(**options)


def test_layout_by_the_output() -> None:
    assert layout_for(Path("a/b.safetensors")) == "original"
    assert layout_for(Path("a/b")) == "published"
