"""Transformers alone in one file: each naming and number format against the folder that it was made from."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from chronoedit.errors import CheckpointError
from chronoedit.model import keys
from chronoedit.model.checkpoint import open_checkpoint

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
QUANTIZED = gguf.GGMLQuantizationType.Q8_0


@pytest.fixture(scope="module")
def weights(random_checkpoint: Path) -> dict[str, Tensor]:
    """The random transformer under our names."""
    return load_file(random_checkpoint / WEIGHTS)


def original(weights: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{keys.to_original(name)}": tensor for name, tensor in weights.items()}


def loaded(path: Path, base: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return dict(open_checkpoint(path, base=base, device="cpu", dtype=dtype).transformer.state_dict())


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_original_names(prefix: str, weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path) -> None:
    tensors = original(weights, prefix)
    for block in range(2):  # carried by the original, used by nothing
        tensors[f"{prefix}blocks.{block}.cross_attn.norm_q_img.weight"] = torch.ones(96)
    save_file(tensors, tmp_path / "wan.safetensors")
    assert_equal(loaded(tmp_path / "wan.safetensors", random_checkpoint), weights)


def test_our_names_in_one_file(weights: dict[str, Tensor], random_checkpoint: Path) -> None:
    components = open_checkpoint(random_checkpoint / WEIGHTS, base=random_checkpoint, device="cpu")
    assert_equal(dict(components.transformer.state_dict()), weights)
    assert components.settings.name == "random-0"
    assert components.text_encoder is not None
    assert components.model_hash not in ("", open_checkpoint(random_checkpoint, device="cpu").model_hash)


def write_gguf(
    path: Path, tensors: dict[str, Tensor], quantized: gguf.GGMLQuantizationType, flatten: bool, multiple: int = 32
) -> None:
    """A GGUF file as users have it: large matrices quantised, the rest in fp32; flat where axes are too many."""
    writer = gguf.GGUFWriter(str(path), "wan")
    for name, tensor in tensors.items():
        values = tensor.numpy()
        if flatten and values.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(side) for side in values.shape])
            values = values.reshape(-1, values.shape[-1])
        if values.ndim == 2 and values.shape[1] % multiple == 0:
            writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(values), quantized), raw_dtype=quantized)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_gguf(kind: str, weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path) -> None:
    quantized = gguf.GGMLQuantizationType[kind]
    write_gguf(tmp_path / "wan.gguf", original(weights), quantized, flatten=kind == "Q8_0")
    found = loaded(tmp_path / "wan.gguf", random_checkpoint)
    assert set(found) == set(weights)
    for name, tensor in weights.items():
        expected = tensor
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            decoded = gguf.dequantize(gguf.quantize(tensor.numpy(), quantized), quantized)
            expected = torch.from_numpy(np.array(decoded, dtype=np.float32))
        assert torch.equal(found[name], expected), name
        most = {"Q4_0": 0.1, "Q4_1": 0.1, "Q5_0": 0.05, "Q5_1": 0.05}.get(kind, 0.02)
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=most, msg=name)


def test_gguf_with_a_prefix_in_bf16(weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", original(weights, "model.diffusion_model."), gguf.GGMLQuantizationType.F32, False)
    found = loaded(tmp_path / "a.gguf", random_checkpoint, torch.bfloat16)
    assert torch.equal(found["proj_out.weight"], weights["proj_out.weight"].bfloat16())
    assert torch.equal(found["blocks.0.scale_shift_table"], weights["blocks.0.scale_shift_table"])


def test_truncated_gguf(weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "wan.gguf"
    write_gguf(path, original(weights), QUANTIZED, flatten=False)
    data = path.read_bytes()
    for length in (0, 3, 30, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="is truncated or no GGUF file"):
            open_checkpoint(path, base=random_checkpoint, device="cpu")


@pytest.mark.parametrize("scale", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("per_row", [False, True])
def test_fp8_with_scales(
    scale: str, per_row: bool, weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path
) -> None:
    tensors: dict[str, Tensor] = {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    expected = dict(weights)
    for name, tensor in original(weights).items():
        if ".ffn." not in name or not name.endswith(".weight"):
            tensors[name] = tensor
            continue
        scales = tensor.abs().amax(1) / 448 if per_row else tensor.abs().amax() / 448
        coded = (tensor / (scales[:, None] if per_row else scales)).to(torch.float8_e4m3fn)
        stem = name.removesuffix(".weight")
        tensors |= {name: coded, f"{stem}.{scale}": scales, f"{stem}.scale_input": torch.ones(1)}
        expected[str(keys.to_ours(name))] = coded.float() * (scales[:, None] if per_row else scales)
    save_file(tensors, tmp_path / "fp8.safetensors")
    assert_equal(loaded(tmp_path / "fp8.safetensors", random_checkpoint), expected)


def test_plain_fp8(weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path) -> None:
    coded = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in original(weights).items()}
    save_file(coded, tmp_path / "fp8.safetensors")
    expected = {name: tensor.to(torch.float8_e4m3fn).float() for name, tensor in weights.items()}
    assert_equal(loaded(tmp_path / "fp8.safetensors", random_checkpoint), expected)


def test_scales_of_another_format_are_refused(
    weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path
) -> None:
    tensors = {**original(weights), "blocks.0.ffn.0.weight_scale": torch.ones(1)}
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"1 scales belong to no fp8 weight \(blocks.0.ffn.net.0.proj.weight\)"):
        open_checkpoint(tmp_path / "other.safetensors", base=random_checkpoint, device="cpu")


def test_fp8_as_comfyui_writes_it_now(weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path) -> None:
    """A scale a weight, and beside it what is to be done with it, in JSON."""
    tensors, expected = {}, dict(weights)
    said = torch.frombuffer(bytearray(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    for name, tensor in original(weights, "model.diffusion_model.").items():
        if ".ffn." not in name or not name.endswith(".weight"):
            tensors[name] = tensor
            continue
        stem, scale = name.removesuffix(".weight"), tensor.abs().amax() / 448
        coded = (tensor / scale).to(torch.float8_e4m3fn)
        tensors |= {name: coded, f"{stem}.weight_scale": scale, f"{stem}.comfy_quant": said.clone()}
        expected[str(keys.to_ours(name.removeprefix("model.diffusion_model.")))] = coded.float() * scale
    save_file(tensors, tmp_path / "fp8.safetensors")
    assert_equal(loaded(tmp_path / "fp8.safetensors", random_checkpoint), expected)


def test_scales_of_blocks_are_refused(weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path) -> None:
    name = "blocks.0.ffn.0"
    tensors = original(weights)
    tensors |= {f"{name}.weight": tensors[f"{name}.weight"].to(torch.float8_e4m3fn)}
    tensors |= {f"{name}.weight_scale": torch.ones(4, 3)}
    save_file(tensors, tmp_path / "blocks.safetensors")
    with pytest.raises(CheckpointError, match=r"the scales of 1 fp8 weights are neither one number nor one a row"):
        open_checkpoint(tmp_path / "blocks.safetensors", base=random_checkpoint, device="cpu")


def test_a_gguf_type_that_cannot_be_decoded_is_refused_unread(
    weights: dict[str, Tensor], random_checkpoint: Path, tmp_path: Path
) -> None:
    wide = {name: tensor.repeat(1, 8) if tensor.ndim == 2 else tensor for name, tensor in original(weights).items()}
    write_gguf(tmp_path / "wan.gguf", wide, gguf.GGMLQuantizationType.TQ2_0, flatten=False, multiple=256)
    with pytest.raises(CheckpointError, match=r"wan.gguf is quantised as TQ2_0, which cannot be decoded here; use"):
        open_checkpoint(tmp_path / "wan.gguf", base=random_checkpoint, device="cpu")


def test_a_file_needs_a_base(random_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a transformer alone; give a folder .*base=FOLDER"):
        open_checkpoint(random_checkpoint / WEIGHTS, device="cpu")


def test_a_base_of_another_size(weights: dict[str, Tensor], random_checkpoint_no_image: Path, tmp_path: Path) -> None:
    save_file(original(weights), tmp_path / "wan.safetensors")
    with pytest.raises(CheckpointError, match=r"wan.safetensors: of 69 tensors, 18 unexpected \("):
        open_checkpoint(tmp_path / "wan.safetensors", base=random_checkpoint_no_image, device="cpu")


@pytest.mark.parametrize("name", ["model.pth", "model.ckpt", "model.bin"])
def test_pickles_are_refused_unread(name: str, random_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    with pytest.raises(
        CheckpointError, match=f"{name} is a pickle, which can run code when opened.*chronoedit convert"
    ):
        open_checkpoint(tmp_path / name, base=random_checkpoint, device="cpu")


def test_other_files_are_refused(random_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"notes.txt is no transformer file; expected .safetensors or .gguf"):
        open_checkpoint(tmp_path / "notes.txt", base=random_checkpoint, device="cpu")
    vae = random_checkpoint / "vae" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(CheckpointError, match="holds no transformer of this kind: neither head.head.weight"):
        open_checkpoint(vae, base=random_checkpoint, device="cpu")
