"""An editor whose weights are stored in fewer bits: near the plain one, LoRAs fused before, or refused."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import torch
from torch import nn

from chronoedit.apps.options import ModelFlags
from chronoedit.editing.editor import Editor
from chronoedit.editing.loading import EditorLoader, load
from chronoedit.errors import LoraError
from chronoedit.request import EditResult
from chronoedit.runtime.frozen import is_quantised, stored_bytes
from chronoedit.runtime.quantize import PRECISIONS

from .conftest import make_request
from .test_editor_loras import differ, write_lora

pytest.importorskip("torchao")


def edit(editor: Editor) -> EditResult:
    return editor.edit(make_request(num_inference_steps=2))


def distance(a: EditResult, b: EditResult) -> float:
    assert a.latents is not None and b.latents is not None
    return float((a.latents - b.latents).norm() / b.latents.norm())


@pytest.mark.parametrize(("precision", "most"), [("bf16", 0.02), ("int8", 0.02), ("fp8", 0.1), ("int4", 0.3)])
@pytest.mark.parametrize("offload", [False, True])
def test_fewer_bits_are_near(random_checkpoint: Path, precision: str, most: float, offload: bool) -> None:
    plain = load(random_checkpoint, device="cpu")
    small = load(random_checkpoint, device="cpu", precision=precision, offload=offload)
    exact, near = edit(plain), edit(small)
    assert 0 < distance(near, exact) < most
    assert not differ(edit(small), near)  # a second edit does not make them smaller once more
    sizes = [stored_bytes(editor.components.transformer.blocks) for editor in (small, plain)]
    assert sizes[0] < 0.6 * sizes[1]
    linears = [layer for layer in small.components.transformer.blocks.modules() if isinstance(layer, nn.Linear)]
    assert all(is_quantised(layer.weight) == (precision != "bf16") for layer in linears)
    ends = [p for name, p in small.components.transformer.named_parameters() if not name.startswith("blocks.")]
    assert all(p.dtype == torch.float32 for p in ends)


def test_loras_are_fused_before(random_checkpoint: Path, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "a.safetensors", 1)
    plain = EditorLoader(path=str(random_checkpoint), device="cpu", loras=((str(lora), 1.0),))()
    small = EditorLoader(path=str(random_checkpoint), device="cpu", precision="int8", loras=((str(lora), 1.0),))()
    without = edit(load(random_checkpoint, device="cpu", precision="int8"))
    with_lora = edit(small)
    assert distance(with_lora, edit(plain)) < 0.02 < distance(with_lora, without)
    for change in (lambda: small.load_loras([(lora, 0.5)]), small.unload_loras):
        with pytest.raises(LoraError, match="stored in int8 already"):
            change()


def test_what_cannot_be_computed_is_refused_before_loading(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int4 weights cannot be computed with on mps"):
        load(tmp_path / "no model here", device="mps", precision="int4")
    with pytest.raises(ValueError, match="precision 'int3' is unknown"):
        load(tmp_path / "no model here", device="cpu", precision="int3")


def test_the_flag_has_every_precision() -> None:
    hint = typing.get_type_hints(ModelFlags)["precision"]
    (names,) = (typing.get_args(each) for each in typing.get_args(hint) if each is not type(None))
    assert set(names) == set(PRECISIONS)
