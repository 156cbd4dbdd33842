"""Opening checkpoints: every mirror of the published layout, lazily, strictly, with errors that say what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ChronoEditPipeline, WanImageToVideoPipeline
from safetensors.torch import load_file, save_file

from chronoedit.errors import CheckpointError
from chronoedit.model import headers, hub
from chronoedit.model.checkpoint import PART_NAMES, Components, ModelSettings, locate, open_checkpoint
from chronoedit.model.random_checkpoint import write_random_checkpoint

CPU = torch.device("cpu")
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(random_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the random checkpoint that may be spoiled."""
    return Path(shutil.copytree(random_checkpoint, tmp_path / "model"))


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_state(one: torch.nn.Module, other: torch.nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert set(mine) == set(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def test_parts_load_when_they_are_read(random_checkpoint: Path) -> None:
    components = open_checkpoint(random_checkpoint, device="cpu")
    assert components.loaded == {}
    assert (components.dtype, components.device) == (torch.float32, CPU)
    kinds = {name: type(getattr(components, name)).__name__ for name in PART_NAMES}
    assert kinds == {
        "transformer": "ChronoEditDiT",
        "autoencoder": "AutoencoderKLWan",
        "text_encoder": "UMT5EncoderModel",
        "tokenizer": kinds["tokenizer"],
        "image_encoder": "CLIPVisionModel",
        "image_processor": kinds["image_processor"],
    }
    assert set(components.loaded) == set(PART_NAMES)
    assert components.transformer is components.transformer
    for name in ("transformer", "autoencoder", "text_encoder", "image_encoder"):
        module = getattr(components, name)
        assert not module.training
        assert not any(parameter.requires_grad or parameter.is_meta for parameter in module.parameters())


def test_a_released_part_loads_again(random_checkpoint_no_image: Path) -> None:
    components = open_checkpoint(random_checkpoint_no_image, device="cpu")
    first = components.autoencoder
    components.release("autoencoder")
    assert "autoencoder" not in components.loaded
    assert components.autoencoder is not first
    assert_same_state(components.autoencoder, first)
    with pytest.raises(ValueError, match="'vae' cannot be loaded again; releasable are transformer"):
        components.release("vae")


def test_without_image_branch_its_parts_are_none(random_checkpoint_no_image: Path) -> None:
    components = open_checkpoint(random_checkpoint_no_image, device="cpu")
    assert components.image_encoder is None
    assert components.image_processor is None
    assert components.transformer.config.image_dim is None


def test_parts_in_memory(random_checkpoint_no_image: Path) -> None:
    stored = open_checkpoint(random_checkpoint_no_image, device="cpu")
    parts = {name: getattr(stored, name) for name in ("transformer", "autoencoder", "text_encoder", "tokenizer")}
    settings = ModelSettings(name="mine")
    components = Components.in_memory(settings, parts, dtype=torch.float32, device="cpu")
    assert components.transformer is stored.transformer
    assert (components.image_encoder, components.settings, components.model_hash) == (None, settings, "")
    with pytest.raises(ValueError, match="missing: .*'tokenizer'.*unknown: .*'vae'"):
        Components.in_memory(settings, {"vae": None}, dtype=torch.float32, device="cpu")


def test_same_parts_as_diffusers_pipeline(random_checkpoint: Path) -> None:
    pipeline = ChronoEditPipeline.from_pretrained(random_checkpoint)
    components = open_checkpoint(random_checkpoint, device="cpu")
    assert_same_state(components.transformer, pipeline.transformer)
    assert_same_state(components.autoencoder, pipeline.vae)
    assert_same_state(components.text_encoder, pipeline.text_encoder)
    assert_same_state(components.image_encoder, pipeline.image_encoder)
    assert components.settings.flow_shift == pipeline.scheduler.config.flow_shift
    texts = ["Add sunglasses to the cat's face, please.", ""]
    options = {"padding": "max_length", "max_length": 48, "truncation": True, "return_tensors": "pt"}
    mine, theirs = components.tokenizer(texts, **options), pipeline.tokenizer(texts, **options)
    assert torch.equal(mine.input_ids, theirs.input_ids)
    assert torch.equal(mine.attention_mask, theirs.attention_mask)
    assert vars(components.image_processor).items() >= {"crop_size": components.image_processor.crop_size}.items()


def test_tokenizer_pads_as_t5_and_spells_unknown_letters_in_bytes(random_checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = open_checkpoint(random_checkpoint, device="cpu").tokenizer
    automatic = AutoTokenizer.from_pretrained(random_checkpoint / "tokenizer")
    encoded = tokenizer(["añ", ""], padding="max_length", max_length=8)
    assert encoded.input_ids == automatic(["añ", ""], padding="max_length", max_length=8).input_ids
    assert encoded.input_ids[1] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids[0])[1:5] == ["a", "<0xC3>", "<0xB1>", "</s>"]
    text = "put the red cube on the été 猫"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("index_style", ["chronoedit", "wan"])
def test_mirrors_and_shards_are_the_same_model(index_style: str, random_checkpoint: Path, tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "mirror", index_style=index_style, shards=3)
    assert len(list((folder / "transformer").glob("*.safetensors"))) == 3
    mirror = open_checkpoint(folder, device="cpu")
    assert_same_state(mirror.transformer, open_checkpoint(random_checkpoint, device="cpu").transformer)
    assert mirror.transformer.config.rope_temporal_skip_len == 8


def test_a_wan_mirror_loads_in_diffusers_too(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "mirror", index_style="wan", image_branch=False, shards=2)
    pipeline = WanImageToVideoPipeline.from_pretrained(folder)
    assert_same_state(open_checkpoint(folder, device="cpu").transformer, pipeline.transformer)


def test_same_seed_same_weights(random_checkpoint: Path, tmp_path: Path) -> None:
    again = write_random_checkpoint(tmp_path / "again")
    other = write_random_checkpoint(tmp_path / "other", seed=1)
    first = open_checkpoint(random_checkpoint, device="cpu").model_hash
    assert open_checkpoint(again, device="cpu").model_hash == first
    assert open_checkpoint(other, device="cpu").model_hash != first


def test_half_precision_keeps_what_must_stay_fp32(random_checkpoint: Path) -> None:
    components = open_checkpoint(random_checkpoint, dtype=torch.bfloat16, device="cpu")
    types = {name: parameter.dtype for name, parameter in components.transformer.named_parameters()}
    assert types["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert types["blocks.0.scale_shift_table"] == torch.float32
    assert types["condition_embedder.time_embedder.linear_1.weight"] == torch.float32
    assert {parameter.dtype for parameter in components.text_encoder.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in components.autoencoder.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in components.image_encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_types_that_cannot_compute_are_refused(random_checkpoint: Path, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="cannot be computed in; use torch.float32"):
        open_checkpoint(random_checkpoint, dtype=dtype, device="cpu")


def test_the_unused_norm_is_ignored(folder: Path, random_checkpoint: Path) -> None:
    change_weights(folder / WEIGHTS, lambda t: t.update({"blocks.0.attn2.norm_added_q.weight": torch.ones(96)}))
    mine = open_checkpoint(folder, device="cpu").transformer
    assert_same_state(mine, open_checkpoint(random_checkpoint, device="cpu").transformer)


def test_both_names_of_the_text_embedding_are_read(folder: Path, random_checkpoint: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    change_weights(path, lambda t: t.update({"encoder.embed_tokens.weight": t["shared.weight"].clone()}))
    encoder = open_checkpoint(folder, device="cpu").text_encoder
    assert_same_state(encoder, open_checkpoint(random_checkpoint, device="cpu").text_encoder)
    change_weights(path, lambda t: t.pop("shared.weight"))
    encoder = open_checkpoint(folder, device="cpu").text_encoder
    assert_same_state(encoder, open_checkpoint(random_checkpoint, device="cpu").text_encoder)
    assert encoder.encoder.embed_tokens.weight is encoder.shared.weight


def test_image_encoder_without_prefix(folder: Path, random_checkpoint: Path) -> None:
    path = folder / "image_encoder" / "model.safetensors"
    save_file({name.removeprefix("vision_model."): t.clone() for name, t in load_file(path).items()}, path)
    encoder = open_checkpoint(folder, device="cpu").image_encoder
    assert_same_state(encoder, open_checkpoint(random_checkpoint, device="cpu").image_encoder)


def test_settings_from_the_folder(folder: Path) -> None:
    settings = open_checkpoint(folder, device="cpu").settings
    assert (settings.name, settings.target_area, settings.num_inference_steps) == ("random-0", 4096, 4)
    edit_json(folder / "scheduler/scheduler_config.json", lambda c: c.update(flow_shift=3.0))
    assert open_checkpoint(folder, device="cpu").settings.flow_shift == 3.0
    edit_json(folder / "chronoedit.json", lambda c: c.update(flow_shift=2.5))
    assert open_checkpoint(folder, device="cpu").settings.flow_shift == 2.5
    assert ModelSettings(**settings.to_json()) == settings


def test_published_settings_where_the_folder_is_silent(folder: Path) -> None:
    (folder / "chronoedit.json").unlink()
    shutil.rmtree(folder / "scheduler")
    assert open_checkpoint(folder, device="cpu").settings == ModelSettings(
        name="model", target_area=921600, num_inference_steps=50, guidance_scale=5.0, flow_shift=5.0,
        reasoning_frames=29, max_sequence_length=512, negative_prompt="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 4}, "unknown settings steps; known are name, target_area"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; a whole number of at least 1"),
        ({"target_area": 1.5}, "target_area is 1.5"),
        ({"guidance_scale": 0.5}, "guidance_scale is 0.5"),
        ({"flow_shift": 0}, "flow_shift is 0"),
        ({"reasoning_frames": 28}, "reasoning_frames is 28; 4k \\+ 1"),
        ({"name": 3}, "name is 3; a text"),
    ],
)
def test_settings_that_are_wrong(folder: Path, change: dict[str, Any], message: str) -> None:
    edit_json(folder / "chronoedit.json", lambda c: c.update(change))
    with pytest.raises(CheckpointError, match=f"chronoedit.json.*{message}"):
        open_checkpoint(folder, device="cpu")


def spoil_truncate(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-100])


def spoil_append(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"xx")


def spoil_lfs(folder: Path) -> None:
    (folder / "vae/diffusion_pytorch_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def spoil_header(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[8:12] = b"oops"
    (folder / WEIGHTS).write_bytes(bytes(data))


def spoil_many_missing(folder: Path) -> None:
    change_weights(folder / WEIGHTS, lambda t: [t.pop(name) for name in list(t) if name.startswith("blocks.1.")])


def spoil_unexpected(folder: Path) -> None:
    change_weights(folder / WEIGHTS, lambda t: t.update(surprise=torch.zeros(1)))


def spoil_shape(folder: Path) -> None:
    change_weights(folder / WEIGHTS, lambda t: t.update({"proj_out.bias": torch.zeros(3)}))


def spoil_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "transformer/diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (spoil_truncate, r"\d+ bytes where its header promises \d+; the file is truncated: download it again"),
    "too long": (spoil_append, "the file is too long: download it again"),
    "empty file": (lambda f: (f / WEIGHTS).write_bytes(b""), r"\(0 bytes\) is truncated or no safetensors file"),
    "no header": (spoil_header, "its safetensors header is damaged"),
    "lfs": (spoil_lfs, "is a Git LFS pointer.*git lfs pull"),
    "missing": (
        spoil_many_missing,
        r"of 87 tensors, 32 missing \((?:blocks\.1\.[^,]+, ){10}and 22 more\); the weights",
    ),
    "unexpected": (spoil_unexpected, r"of 87 tensors, 1 unexpected \(surprise\)"),
    "shape": (spoil_shape, r"1 of a wrong shape \(proj_out.bias \[3\] instead of \[64\]\)"),
    "pickle": (spoil_pickle, "is a pickle, which can run code.*chronoedit convert"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no weights: expected diffusion_pytorch_model.safetensors or"),
    "no config": (lambda f: (f / "transformer/config.json").unlink(), "no file .*transformer/config.json"),
    "bad json": (lambda f: (f / "transformer/config.json").write_text("{"), "config.json cannot be read as JSON"),
    "json list": (lambda f: (f / "transformer/config.json").write_text("[]"), "holds list, an object was expected"),
    "no vae": (lambda f: shutil.rmtree(f / "vae"), "vae/config.json; expected a checkpoint in the published layout"),
    "no clip": (lambda f: shutil.rmtree(f / "image_encoder"), "image_encoder/config.json"),
    "other config": (
        lambda f: edit_json(f / "transformer/config.json", lambda c: c.update(num_layers=3)),
        r"of 119 tensors, 32 missing \(blocks.2.scale_shift_table",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_checkpoints_are_refused_when_opened(folder: Path, case: str) -> None:
    spoil, message = SPOILED[case]
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder, device="cpu")


@pytest.mark.parametrize(
    ("component", "part"),
    [("vae", "autoencoder"), ("text_encoder", "text_encoder"), ("image_encoder", "image_encoder")],
)
def test_other_components_are_strict_too(folder: Path, component: str, part: str) -> None:
    path = next((folder / component).glob("*.safetensors"))
    change_weights(path, lambda t: t.update(surprise=torch.zeros(1)))
    with pytest.raises(
        CheckpointError, match=rf"{component}: of \d+ tensors, 1 unexpected \((vision_model\.)?surprise\)"
    ):
        getattr(open_checkpoint(folder, device="cpu"), part)


def test_a_config_that_its_class_refuses(folder: Path) -> None:
    edit_json(folder / "vae/config.json", lambda c: c.update(novelty=1))
    with pytest.raises(CheckpointError, match="vae: its config.json does not describe this component.*novelty"):
        _ = open_checkpoint(folder, device="cpu").autoencoder


def test_missing_shards_are_named(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "sharded", shards=3, image_branch=False)
    name = "diffusion_pytorch_model-00002-of-00003.safetensors"
    (folder / "transformer" / name).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name} of 3 shards"):
        open_checkpoint(folder, device="cpu")
    index = folder / "transformer/diffusion_pytorch_model.safetensors.index.json"
    edit_json(index, lambda c: c["weight_map"].update(a="../outside.safetensors"))
    with pytest.raises(CheckpointError, match="names the shard '../outside.safetensors'; a plain file name"):
        open_checkpoint(folder, device="cpu")


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "sharded", shards=2, image_branch=False)
    second = folder / "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"
    change_weights(second, lambda t: t.update(scale_shift_table=torch.zeros(1, 2, 96)))
    with pytest.raises(CheckpointError, match="scale_shift_table is in both .*00001-of-00002.* and .*00002-of-00002"):
        open_checkpoint(folder, device="cpu")


def test_hash_follows_the_content(folder: Path, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hash_now() -> str:
        return open_checkpoint(folder, device="cpu").model_hash

    seen = [hash_now()]
    assert seen[0] == open_checkpoint(random_checkpoint, device="cpu").model_hash
    change_weights(folder / WEIGHTS, lambda t: t["proj_out.bias"].add_(1))
    seen.append(hash_now())
    edit_json(folder / "vae/config.json", lambda c: c["latents_mean"].reverse())
    seen.append(hash_now())
    edit_json(folder / "tokenizer/tokenizer.json", lambda c: c.update(truncation=None, version="1.1"))
    seen.append(hash_now())
    edit_json(folder / "chronoedit.json", lambda c: c.update(num_inference_steps=9))
    assert hash_now() == seen[-1]
    assert len(set(seen)) == 4
    monkeypatch.setattr(headers, "FINGERPRINT_WHOLE_BYTES", 1 << 17)
    monkeypatch.setattr(headers, "FINGERPRINT_BLOCK_BYTES", 1 << 8)
    sampled = hash_now()
    change_weights(folder / WEIGHTS, lambda t: [tensor.mul_(1.01) for tensor in t.values()])
    assert hash_now() != sampled


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/model", "a/b/c", "owner/model.safetensors", "no such model"])
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(CheckpointError, match="no file or folder .*; expected tiny, a folder in the published layout"):
        locate(name)


def test_base_goes_with_single_files_only(random_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="base=tiny goes with a single transformer file"):
        open_checkpoint(random_checkpoint, base="tiny")


def test_a_hub_id_is_downloaded(random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hub, "download", lambda repo_id: asked.append(repo_id) or random_checkpoint)
    components = open_checkpoint("someone/ChronoEdit-small", device="cpu")
    assert asked == ["someone/ChronoEdit-small"]
    assert components.source == "someone/ChronoEdit-small"


def test_opening_imports_neither_transformers_nor_pipelines(random_checkpoint: Path) -> None:
    code = (
        "import sys; from chronoedit.model.checkpoint import open_checkpoint\n"
        f"c = open_checkpoint({str(random_checkpoint)!r}, device='cpu'); c.model_hash\n"
        "assert 'transformers' not in sys.modules and 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
