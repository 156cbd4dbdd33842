"""An editor with LoRAs fused in: they show in the picture and in the hashes, and go without a trace."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from chronoedit.editing.editor import Editor
from chronoedit.editing.loading import EditorLoader
from chronoedit.errors import LoraError
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.request import EditResult

from .conftest import make_request


@pytest.fixture
def own_editor(random_checkpoint: Path) -> Editor:
    """An editor whose weights the test may change."""
    return Editor(open_checkpoint(random_checkpoint, device="cpu"), device="cpu")


def write_lora(path: Path, seed: int, module: str = "blocks.0.attn1.to_q") -> Path:
    generator = torch.Generator().manual_seed(seed)
    down, up = torch.randn(4, 96, generator=generator), torch.randn(96, 4, generator=generator)
    save_file({f"transformer.{module}.lora_A.weight": down, f"transformer.{module}.lora_B.weight": up}, path)
    return path


def short(editor: Editor) -> EditResult:
    return editor.edit(make_request(num_inference_steps=1, guidance_scale=1.0))


def differ(a: EditResult, b: EditResult) -> bool:
    assert a.latents is not None and b.latents is not None
    return not torch.equal(a.latents, b.latents)


def test_loras_come_and_go(own_editor: Editor, tmp_path: Path) -> None:
    first, second = write_lora(tmp_path / "a.safetensors", 1), write_lora(tmp_path / "b.safetensors", 2)
    plain = short(own_editor)
    own_editor.load_loras([(first, 1.0), (second, 0.5)])
    both = short(own_editor)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
    assert both.hashes["loras"] == hashes and both.hashes["lora_scales"] == ["1.0", "0.5"]
    assert both.hashes["model"] == plain.hashes["model"]
    own_editor.load_loras([(first, 1.0)])
    alone = short(own_editor)
    assert alone.hashes["loras"] == hashes[:1]
    assert differ(both, plain) and differ(alone, plain) and differ(alone, both)
    own_editor.unload_loras()
    after = short(own_editor)
    assert not differ(after, plain) and after.hashes["loras"] == []


def test_a_lora_that_does_not_fit_leaves_the_editor_as_it_was(own_editor: Editor, tmp_path: Path) -> None:
    good = write_lora(tmp_path / "good.safetensors", 1)
    bad = write_lora(tmp_path / "bad.safetensors", 2, module="blocks.99.attn1.to_q")
    own_editor.load_loras([(good, 1.0)])
    before = short(own_editor)
    with pytest.raises(LoraError, match=r"bad\.safetensors"):
        own_editor.load_loras([(good, 2.0), (bad, 1.0)])
    after = short(own_editor)
    assert not differ(after, before) and after.hashes == before.hashes


def test_loader_fuses_its_loras(own_editor: Editor, random_checkpoint: Path, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "a.safetensors", 1)
    loaded = EditorLoader(path=str(random_checkpoint), device="cpu", loras=((str(lora), 0.5),))()
    own_editor.load_loras([(lora, 0.5)])
    assert not differ(short(loaded), short(own_editor))
