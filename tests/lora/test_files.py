"""LoRA files written in every dialect, merged, described; adapters of other kinds and from text-to-video."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from chronoedit.errors import LoraError
from chronoedit.lora.adapters import Lora, fuse, read_lora
from chronoedit.lora.dialects import LORA_DIALECTS, PEFT_METADATA, LoraLayer, LoraWeights
from chronoedit.lora.files import describe, merge, trigger_words, write_lora
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.model.dit import ChronoEditDiT

SHAPES = {
    "blocks.0.attn1.to_q": (96, 96),
    "blocks.1.attn2.to_k": (96, 96),
    "blocks.1.ffn.net.0.proj": (128, 96),
    "condition_embedder.time_proj": (576, 96),
}


def weights(seed: int, *, alpha: float | None = None, rank: int = 4, dtype: torch.dtype = torch.float32) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) / 8).to(dtype)

    layers = {name: LoraLayer(random(rank, i), random(o, rank), alpha) for name, (o, i) in SHAPES.items()}
    return LoraWeights(layers, {"blocks.0.norm2.weight": random(96)})


def stored(made: LoraWeights, path: Path, dialect: str = "comfyui", metadata: dict[str, str] | None = None) -> Lora:
    write_lora(made, path, dialect, metadata)
    return read_lora(path)


def deltas(made: LoraWeights) -> dict[str, Tensor]:
    changes = {n: layer.scaling * (layer.up.double() @ layer.down.double()) for n, layer in made.layers.items()}
    return {**changes, **{name: tensor.double() for name, tensor in made.differences.items()}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("through", LORA_DIALECTS)
def test_round_trips_keep_every_bit_where_alpha_is_carried(tmp_path: Path, through: str, dtype: torch.dtype) -> None:
    first = stored(weights(0, alpha=3.0, dtype=dtype), tmp_path / "a.safetensors")
    other = stored(first.weights, tmp_path / "b.safetensors", through)
    assert other.dialect == through
    back = stored(other.weights, tmp_path / "c.safetensors")
    if through in ("comfyui", "kohya"):
        one, two = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "c.safetensors")
        assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)
    rounding = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-23
    for name, layer in first.weights.layers.items():  # alpha / r = 0.75 is folded into up
        exact = layer.up.double() * layer.scaling
        found = back.weights.layers[name].up.double() * back.weights.layers[name].scaling
        assert ((found - exact).abs() <= exact.abs() * rounding).all()
        assert torch.equal(back.weights.layers[name].down, layer.down)


def test_kohya_names_that_cannot_be_taken_apart(tmp_path: Path) -> None:
    stem = "lora_unet_blocks_12_cross_attn_k_img"
    tensors = {f"{stem}.lora_down.weight": torch.ones(2, 5), f"{stem}.lora_up.weight": torch.ones(6, 2)}
    save_file({**tensors, f"{stem}.alpha": torch.tensor(1.0)}, tmp_path / "k.safetensors")
    lora = read_lora(tmp_path / "k.safetensors")
    assert (lora.dialect, list(lora.weights.layers)) == ("kohya", ["blocks.12.attn2.add_k_proj"])
    assert lora.weights.layers["blocks.12.attn2.add_k_proj"].scaling == 0.5
    write_lora(lora.weights, tmp_path / "again.safetensors", "kohya")
    assert set(load_file(tmp_path / "again.safetensors")) == {*tensors, f"{stem}.alpha"}


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("LoKr", "lora_unet_blocks_0_self_attn_q.lokr_w1"),
        ("LoHa", "lora_unet_blocks_0_self_attn_q.hada_w1_a"),
        ("DoRA", "diffusion_model.blocks.0.self_attn.q.dora_scale"),
        ("DoRA", "base_model.model.blocks.0.attn1.to_q.lora_magnitude_vector.default.weight"),
    ],
)
def test_other_kinds_of_adapters_are_refused_by_name(tmp_path: Path, kind: str, key: str) -> None:
    down = "diffusion_model.blocks.0.self_attn.q.lora_down.weight"
    save_file({key: torch.ones(2, 2), down: torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(LoraError, match=f"1 of 2 keys are of a {kind}, which is not supported.*{key[:20]}"):
        read_lora(tmp_path / "x.safetensors")


def test_files_saved_by_peft_take_alpha_from_beside(tmp_path: Path) -> None:
    stem = "base_model.model.blocks.0.attn1.to_q"
    factors = {f"{stem}.lora_A.weight": torch.ones(2, 4), f"{stem}.lora_B.weight": torch.ones(4, 2)}
    path = tmp_path / "adapter_model.safetensors"
    save_file(factors, path)
    with pytest.raises(LoraError, match=r"its alpha is in an adapter_config.json"):
        read_lora(path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": 2}))
    assert read_lora(path).weights.layers["blocks.0.attn1.to_q"].scaling == 4.0


def test_merged_is_the_sum(tmp_path: Path) -> None:
    one = stored(weights(1, alpha=2.0), tmp_path / "1.safetensors")
    two = stored(weights(2, rank=6), tmp_path / "2.safetensors", "diffusers")
    made = merge([(one, 1.0), (two, -0.4)])
    assert {layer.rank for layer in made.layers.values()} == {10}
    a, b = deltas(one.weights), deltas(two.weights)
    for name, change in deltas(made).items():
        torch.testing.assert_close(change, a[name] - 0.4 * b[name], rtol=0, atol=1e-6)


def test_merging_one_keeps_it(tmp_path: Path) -> None:
    one = stored(weights(1, alpha=2.0), tmp_path / "1.safetensors")
    assert merge([(one, 1.0)]).layers == one.weights.layers


def test_what_does_not_merge(tmp_path: Path) -> None:
    one = stored(weights(1), tmp_path / "1.safetensors")
    odd = LoraWeights({"blocks.0.attn1.to_q": LoraLayer(torch.ones(2, 8), torch.ones(96, 2))})
    with pytest.raises(LoraError, match=r"do not fit together: blocks.0.attn1.to_q"):
        merge([(one, 1.0), (stored(odd, tmp_path / "2.safetensors"), 1.0)])
    with pytest.raises(ValueError, match="scale is nan"):
        merge([(one, float("nan"))])
    with pytest.raises(ValueError, match="no LoRA was given"):
        merge([])


def test_description(tmp_path: Path) -> None:
    made = weights(3, alpha=2.0)
    found = describe(stored(made, tmp_path / "a.safetensors", "kohya", {"ss_trigger_words": '["blk", "star"]'}))
    assert (found.dialect, found.ranks, found.alphas) == ("kohya", {4: 4}, {"2": 4})
    assert (found.differences, found.dtypes, found.trigger_words) == (1, ["float32"], "blk, star")
    expected = sum(float(change.square().sum()) for change in deltas(made).values()) ** 0.5
    assert found.delta_norm == pytest.approx(expected, rel=1e-6)
    nothing = LoraWeights({"proj_out": LoraLayer(torch.ones(2, 4), torch.zeros(4, 2))})
    assert describe(stored(nothing, tmp_path / "0.safetensors")).delta_norm == 0


def test_trigger_words_as_programs_write_them() -> None:
    assert trigger_words({"modelspec.trigger_phrase": "upscale it"}) == "upscale it"
    assert trigger_words({"trigger_words": "7"}) == "7"
    assert trigger_words({"format": "pt"}) is None


def test_settings_of_peft_are_not_counted_twice(tmp_path: Path) -> None:
    stem = "transformer.blocks.0.attn1.to_q"
    tensors = {f"{stem}.lora_A.weight": torch.ones(2, 4), f"{stem}.lora_B.weight": torch.ones(4, 2)}
    settings = {PEFT_METADATA: json.dumps({"transformer.lora_alpha": 8}), "trigger_words": "star"}
    save_file(tensors, tmp_path / "a.safetensors", metadata=settings)
    lora = read_lora(tmp_path / "a.safetensors")
    again = stored(lora.weights, tmp_path / "b.safetensors", "diffusers", dict(lora.metadata))
    assert torch.equal(deltas(again.weights)["blocks.0.attn1.to_q"], deltas(lora.weights)["blocks.0.attn1.to_q"])
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "trigger_words": "star"}


def test_unknown_dialect(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no LoRA dialect 'a1111'; choose one of diffusers, comfyui, kohya, diffsynth"):
        write_lora(weights(0), tmp_path / "a.safetensors", "a1111")


def test_text_to_video_leaves_the_picture_alone(
    random_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dit: ChronoEditDiT = copy.deepcopy(open_checkpoint(random_checkpoint, device="cpu").transformer)
    before = {name: parameter.detach().clone() for name, parameter in dit.named_parameters()}
    stem = "diffusion_model"
    tensors = {
        f"{stem}.blocks.0.cross_attn.k.lora_down.weight": torch.ones(2, 96),
        f"{stem}.blocks.0.cross_attn.k.lora_up.weight": torch.ones(96, 2),
        f"{stem}.patch_embedding.lora_down.weight": torch.ones(2, 16, 1, 2, 2),
        f"{stem}.patch_embedding.lora_up.weight": torch.ones(96, 2, 1, 1, 1),
    }
    save_file(tensors, tmp_path / "t2v.safetensors")
    with caplog.at_level(logging.WARNING, logger="chronoedit"):
        assert fuse(dit, [(read_lora(tmp_path / "t2v.safetensors"), 1.0)]) == 2
    assert "nothing for the image branch" in caplog.text
    assert "leaves 20 condition channels as they are" in caplog.text
    change = dit.patch_embedding.weight - before["patch_embedding.weight"]
    assert torch.equal(change[:, 16:], torch.zeros_like(change[:, 16:])) and (change[:, :16] - 2).abs().max() < 1e-5
    image = "blocks.0.attn2.add_k_proj.weight"
    assert torch.equal(dit.get_parameter(image), before[image])
