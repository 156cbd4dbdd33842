"""`chronoedit lora`: info, convert, merge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chronoedit.apps.main import main

STEM = "blocks.0.self_attn.q"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"diffusion_model.{STEM}.lora_down.weight": torch.randn(2, 6, generator=generator),
        f"diffusion_model.{STEM}.lora_up.weight": torch.randn(6, 2, generator=generator),
        f"diffusion_model.{STEM}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "lora.safetensors", metadata={"trigger_words": "star"})
    return tmp_path / "lora.safetensors"


def test_info(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lora", "info", str(lora)]) == 0
    text = capsys.readouterr().out
    for line in ("dialect: comfyui", "ranks: 2 (1 modules)", "alphas: 1 (1 modules)", "trigger words: star"):
        assert f"  {line}\n" in text
    assert main(["lora", "info", str(lora), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["modules"] == ["blocks.0.attn1.to_q"]


def test_convert_there_and_back(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, back = tmp_path / "kohya.safetensors", tmp_path / "back.safetensors"
    assert main(["lora", "convert", str(lora), "--to", "kohya", "--output", str(there)]) == 0
    assert "kohya, from comfyui" in capsys.readouterr().out
    assert "lora_unet_blocks_0_self_attn_q.lora_down.weight" in load_file(there)
    assert main(["lora", "convert", str(there), "--to", "comfyui", "-o", str(back)]) == 0
    one, two = load_file(lora), load_file(back)
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_merge(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "merged.safetensors"
    assert main(["lora", "merge", str(lora), str(lora), "--scale", "1", "0.5", "--output", str(output)]) == 0
    made, source = load_file(output), load_file(lora)
    up, down = (made[f"transformer.blocks.0.attn1.to_q.lora_{factor}.weight"] for factor in "BA")
    stem = f"diffusion_model.{STEM}"
    expected = 1.5 * 0.5 * source[f"{stem}.lora_up.weight"] @ source[f"{stem}.lora_down.weight"]
    torch.testing.assert_close(up @ down, expected)
    capsys.readouterr()
    assert main(["lora", "info", str(output)]) == 0
    assert "trigger words: star\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["convert", "LORA", "--to", "a1111", "-o", "x.safetensors"], 2, "choose one of diffusers, comfyui, kohya"),
        (["convert", "none.safetensors", "--to", "kohya", "-o", "x.safetensors"], 1, "no file none.safetensors"),
        (["merge", "LORA", "--scale", "1", "2", "-o", "x.safetensors"], 2, "2 values of --scale for 1 LoRAs"),
    ],
)
def test_what_is_refused(
    lora: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lora", *(str(lora) if word == "LORA" else word for word in words)]) == code
    assert message in capsys.readouterr().err
