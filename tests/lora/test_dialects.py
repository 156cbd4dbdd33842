"""The spellings of LoRA files: to our names, and from them to every dialect and back."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from chronoedit.errors import LoraError
from chronoedit.lora.dialects import LORA_DIALECTS, PEFT_METADATA, LoraLayer, LoraWeights, dialect_of

A, B = torch.arange(8.0).reshape(2, 4), torch.arange(6.0).reshape(3, 2)
FILES: dict[str, tuple[str, dict[str, Tensor]]] = {
    "diffusers": (
        "diffusers",
        {"transformer.blocks.0.attn1.to_q.lora_A.weight": A, "transformer.blocks.0.attn1.to_q.lora_B.weight": B},
    ),
    "PEFT with adapter name": (
        "diffusers",
        {
            "transformer.blocks.0.attn1.to_q.lora_A.default.weight": A,
            "transformer.blocks.0.attn1.to_q.lora_B.default.weight": B,
        },
    ),
    "ComfyUI, PEFT factors": (
        "comfyui",
        {
            "diffusion_model.blocks.0.self_attn.q.lora_A.weight": A,
            "diffusion_model.blocks.0.self_attn.q.lora_B.weight": B,
        },
    ),
    "ComfyUI, down and up": (
        "comfyui",
        {
            "diffusion_model.blocks.0.self_attn.q.lora_down.weight": A,
            "diffusion_model.blocks.0.self_attn.q.lora_up.weight": B,
        },
    ),
    "DiffSynth": (
        "diffsynth",
        {"blocks.0.self_attn.q.lora_A.default.weight": A, "blocks.0.self_attn.q.lora_B.default.weight": B},
    ),
}
OTHER_MODULES = {
    "blocks.1.cross_attn.k_img": "blocks.1.attn2.add_k_proj",
    "blocks.1.cross_attn.o": "blocks.1.attn2.to_out.0",
    "blocks.1.ffn.0": "blocks.1.ffn.net.0.proj",
    "blocks.1.ffn.2": "blocks.1.ffn.net.2",
    "head.head": "proj_out",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
}


def weights(alpha: float | None = None) -> LoraWeights:
    layers = {ours: LoraLayer(A + index, B - index, alpha) for index, ours in enumerate(OTHER_MODULES.values())}
    differences = {"blocks.0.norm2.weight": torch.ones(4), "blocks.0.attn1.to_q.bias": torch.zeros(4)}
    return LoraWeights(layers, differences)


@pytest.mark.parametrize("case", FILES)
def test_each_spelling_is_told_and_read(case: str) -> None:
    name, tensors = FILES[case]
    dialect = dialect_of(tensors)
    assert dialect.name == name
    read = dialect.to_ours(tensors, {})
    assert list(read.layers) == ["blocks.0.attn1.to_q"]
    layer = read.layers["blocks.0.attn1.to_q"]
    assert torch.equal(layer.down, A)
    assert torch.equal(layer.up, B)
    assert (layer.rank, layer.scaling, read.unknown) == (2, 1.0, ())


@pytest.mark.parametrize(("original", "ours"), OTHER_MODULES.items())
def test_modules_of_the_original(original: str, ours: str) -> None:
    tensors = {f"diffusion_model.{original}.lora_down.weight": A, f"diffusion_model.{original}.lora_up.weight": B}
    assert list(dialect_of(tensors).to_ours(tensors, {}).layers) == [ours]


def test_alpha_and_differences() -> None:
    stem = "diffusion_model.blocks.0"
    tensors = {
        f"{stem}.self_attn.q.lora_down.weight": A,
        f"{stem}.self_attn.q.lora_up.weight": B,
        f"{stem}.self_attn.q.alpha": torch.tensor(8.0),
        f"{stem}.norm3.diff": torch.ones(4),
        f"{stem}.norm3.diff_b": torch.zeros(4),
    }
    read = dialect_of(tensors).to_ours(tensors, {})
    assert read.layers["blocks.0.attn1.to_q"].scaling == 4.0
    assert set(read.differences) == {"blocks.0.norm2.weight", "blocks.0.norm2.bias"}


def test_alphas_in_the_metadata_of_peft() -> None:
    tensors = {
        f"transformer.blocks.{block}.attn1.to_q.lora_{factor}.weight": tensor
        for block in (0, 1)
        for factor, tensor in (("A", A), ("B", B))
    }
    settings = {"transformer.lora_alpha": 6, "transformer.alpha_pattern": {"blocks.1.attn1.to_q": 1}}
    read = dialect_of(tensors).to_ours(tensors, {PEFT_METADATA: json.dumps(settings)})
    assert [layer.scaling for layer in read.layers.values()] == [3.0, 0.5]


@pytest.mark.parametrize("setting", ["use_rslora", "use_dora"])
def test_variants_that_cannot_be_fused(setting: str) -> None:
    tensors = FILES["diffusers"][1]
    metadata = {PEFT_METADATA: json.dumps({f"transformer.{setting}": True})}
    with pytest.raises(LoraError, match=f"made with {setting}, which cannot be fused"):
        dialect_of(tensors).to_ours(tensors, metadata)


def test_metadata_that_is_no_json() -> None:
    with pytest.raises(LoraError, match=f"{PEFT_METADATA} is no JSON"):
        dialect_of(FILES["diffusers"][1]).to_ours(FILES["diffusers"][1], {PEFT_METADATA: "{"})


@pytest.mark.parametrize("alpha", [None, 2.0, 6.0])
@pytest.mark.parametrize("name", LORA_DIALECTS)
def test_to_every_dialect_and_back(name: str, alpha: float | None) -> None:
    mine = weights(alpha)
    tensors = LORA_DIALECTS[name].from_ours(mine)
    assert dialect_of(tensors).name == name
    back = LORA_DIALECTS[name].to_ours(tensors, {})
    assert back.unknown == ()
    assert set(back.layers) == set(mine.layers)
    for module, layer in mine.layers.items():
        assert torch.equal(back.layers[module].down, layer.down)
        change = back.layers[module].up * back.layers[module].scaling
        assert torch.equal(change, layer.up * layer.scaling)  # exact: a power of two, or a carried alpha
    assert set(back.differences) == set(mine.differences)
    assert all(torch.equal(back.differences[key], mine.differences[key]) for key in mine.differences)


def test_alpha_is_folded_within_one_rounding_in_bf16() -> None:
    generator = torch.Generator().manual_seed(0)
    up = torch.randn(64, 3, generator=generator).bfloat16()
    mine = LoraWeights({"proj_out": LoraLayer(torch.ones(3, 4), up, alpha=2.0)})
    tensors = LORA_DIALECTS["diffusers"].from_ours(mine)
    folded = tensors["transformer.proj_out.lora_B.weight"]
    exact = up.double() * (2 / 3)
    assert ((folded.double() - exact).abs() <= exact.abs() * 2.0**-8).all()


def test_unknown_keys_are_kept_apart() -> None:
    tensors = {**FILES["diffusers"][1], "text_encoder.layers.0.lora_A.weight": A, "transformer.blocks.0.odd.alpha": A}
    read = dialect_of(tensors).to_ours(tensors, {})
    assert read.unknown == ("text_encoder.layers.0.lora_A.weight", "transformer.blocks.0.odd.alpha")
    with pytest.raises(LoraError, match="2 keys have no place in another dialect"):
        LORA_DIALECTS["comfyui"].from_ours(read)


def test_half_a_pair_is_damage() -> None:
    tensors = {"transformer.blocks.0.attn1.to_q.lora_A.weight": A}
    with pytest.raises(LoraError, match=r"1 modules have one factor of two \(blocks.0.attn1.to_q\)"):
        dialect_of(tensors).to_ours(tensors, {})


def test_no_dialect_shows_the_first_ten_keys() -> None:
    with pytest.raises(
        LoraError, match=r"none of the 12 keys .*\(diffusers, comfyui, kohya, diffsynth\).*key00, .*and 2 more"
    ):
        dialect_of([f"key{index:02d}" for index in range(12)])
