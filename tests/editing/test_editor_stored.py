"""An editor of a transformer file in fp8 or GGUF: its weights stay so, and it edits as with the decoded ones."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chronoedit.editing.editor import Editor
from chronoedit.editing.loading import EditorLoader, load
from chronoedit.errors import LoraError
from chronoedit.model import keys
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.model.convert import Conversion, convert
from chronoedit.model.stored import StoredWeight
from chronoedit.request import EditResult
from chronoedit.runtime.frozen import stored_bytes

from .conftest import make_request
from .test_editor_loras import differ, write_lora
from .test_editor_precision import distance

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
FILES = ("Q4_0.gguf", "Q8_0.gguf", "fp8.safetensors")


def short(editor: Editor) -> EditResult:
    return editor.edit(make_request(num_inference_steps=2))


def in_fp8(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if not name.startswith("blocks.") or not name.endswith(".weight") or tensor.ndim != 2:
        return {name: tensor}
    scale = tensor.abs().amax() / 448
    return {
        name: (tensor / scale).to(torch.float8_e4m3fn),
        f"{name.removesuffix('.weight')}.scale_weight": scale,
    }


def write_gguf(path: Path, tensors: dict[str, Tensor]) -> None:
    kind = gguf.GGMLQuantizationType[path.stem]
    writer = gguf.GGUFWriter(str(path), "wan")
    for name, tensor in tensors.items():
        values = np.ascontiguousarray(tensor.numpy())
        if values.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(side) for side in values.shape])
            values = values.reshape(-1, values.shape[-1])
        if values.ndim == 2 and values.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def files(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random transformer under original names, in fp8 and in two types of GGUF."""
    folder = tmp_path_factory.mktemp("stored")
    original = {str(keys.to_original(name)): t for name, t in load_file(random_checkpoint / WEIGHTS).items()}
    for name in FILES:
        if name.endswith(".gguf"):
            write_gguf(folder / name, original)
    coded = {key: value for name, tensor in original.items() for key, value in in_fp8(name, tensor).items()}
    save_file(coded, folder / "fp8.safetensors")
    return folder


def decoded(path: Path, base: Path) -> Editor:
    """An editor with the same weights, decoded as they are read."""
    return Editor(open_checkpoint(path, base=base, device="cpu"), device="cpu")


@pytest.mark.parametrize("layout", ["together", "turns", "stream", "disk"])
@pytest.mark.parametrize("name", FILES)
def test_edits_are_those_of_the_decoded_weights(files: Path, random_checkpoint: Path, name: str, layout: str) -> None:
    kept = load(files / name, base=random_checkpoint, device="cpu", offload=layout)
    plain = decoded(files / name, random_checkpoint)
    assert not differ(short(kept), short(plain)) and not differ(short(kept), short(plain))
    linears = [m for m in kept.components.transformer.blocks.modules() if isinstance(m, nn.Linear)]
    assert linears and all(isinstance(layer.weight, StoredWeight) for layer in linears)
    others = {n: p for n, p in kept.components.transformer.named_parameters() if not isinstance(p, StoredWeight)}
    assert {type(p.data) for p in others.values()} == {Tensor} and "proj_out.weight" in others
    bits = {"Q4_0": 4.5, "Q8_0": 8.5, "fp8": 8}[name.split(".")[0]]
    weights = sum(layer.weight.numel() for layer in linears)
    stored = sum(stored_bytes(layer) for layer in linears) - sum(layer.bias.nbytes for layer in linears)
    assert stored == pytest.approx(weights * bits / 8, rel=1e-2)
    assert kept.hashes == plain.hashes


@pytest.mark.parametrize("layout", ["together", "stream"])
@pytest.mark.parametrize("name", FILES)
def test_loras_lie_beside_and_leave_no_trace(
    files: Path, random_checkpoint: Path, tmp_path: Path, name: str, layout: str
) -> None:
    first, second = write_lora(tmp_path / "a.safetensors", 1), write_lora(tmp_path / "b.safetensors", 2)
    kept = load(files / name, base=random_checkpoint, device="cpu", offload=layout)
    plain = decoded(files / name, random_checkpoint)
    without = short(kept)
    for loras in ([(first, 1.0)], [(first, 0.5), (second, -1.0)]):
        kept.load_loras(loras)
        plain.load_loras(loras)
        mine, theirs = short(kept), short(plain)
        assert not differ(mine, theirs) and differ(mine, without)
        assert mine.hashes == theirs.hashes
    with pytest.raises(LoraError):
        kept.load_loras([(write_lora(tmp_path / "bad.safetensors", 3, module="blocks.99.attn1.to_q"), 1.0)])
    assert not differ(short(kept), mine)
    kept.unload_loras()
    assert not differ(short(kept), without)


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
def test_another_precision_is_made_of_the_decoded_weights(
    files: Path, random_checkpoint: Path, tmp_path: Path, precision: str
) -> None:
    pytest.importorskip("torchao")
    lora = str(write_lora(tmp_path / "a.safetensors", 1))
    made = EditorLoader(
        path=str(files / "Q8_0.gguf"), base=str(random_checkpoint), device="cpu", precision=precision,
        loras=((lora, 1.0),),
    )()  # fmt: skip
    plain = decoded(files / "Q8_0.gguf", random_checkpoint)
    plain.load_loras([(lora, 1.0)])
    most = {"bf16": 0.02, "int8": 0.03, "int4": 0.3}[precision]
    assert 0 < distance(short(made), short(plain)) < most
    assert not any(isinstance(p, StoredWeight) for p in made.components.transformer.parameters())
    with pytest.raises(LoraError, match=f"stored in {precision} already"):
        made.unload_loras()


def test_converted_it_is_decoded(files: Path, random_checkpoint: Path, tmp_path: Path) -> None:
    path = convert(files / "Q4_0.gguf", tmp_path / "out", Conversion(layout="published"), base=random_checkpoint)
    kept = load(files / "Q4_0.gguf", base=random_checkpoint, device="cpu")
    assert not differ(short(load(path, device="cpu")), short(kept))
