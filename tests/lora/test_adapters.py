"""LoRAs in the weights: what they add, against PEFT; taken out to the last bit; and none that silently does nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from chronoedit.errors import LoraError
from chronoedit.lora.adapters import Lora, fuse, read_lora, unfuse
from chronoedit.lora.dialects import PEFT_METADATA
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.model.stored import FP8, StoredWeight

MODULES = {
    "blocks.0.attn1.to_q": (96, 96),
    "blocks.1.attn2.to_out.0": (96, 96),
    "blocks.1.ffn.net.0.proj": (128, 96),
    "blocks.1.ffn.net.2": (96, 128),
}


@pytest.fixture(scope="module")
def loaded(random_checkpoint_no_image: Path) -> ChronoEditDiT:
    """The transformer as it was loaded; shared, so never changed."""
    transformer: ChronoEditDiT = open_checkpoint(random_checkpoint_no_image, device="cpu").transformer
    return transformer


@pytest.fixture
def dit(loaded: ChronoEditDiT) -> ChronoEditDiT:
    return copy.deepcopy(loaded)


def factors(seed: int = 0, rank: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A LoRA in diffusers' spelling."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, (wide, narrow) in MODULES.items():
        down, up = torch.randn(rank, narrow, generator=generator), torch.randn(wide, rank, generator=generator)
        tensors[f"transformer.{module}.lora_A.weight"] = (down / 10).to(dtype)
        tensors[f"transformer.{module}.lora_B.weight"] = (up / 10).to(dtype)
    return tensors


def saved(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> Lora:
    save_file(tensors, path, metadata=metadata)
    return read_lora(path)


def bits(dit: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in dit.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("alpha", [None, 2])
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_fused_weights_are_those_of_peft(
    dit: ChronoEditDiT, loaded: ChronoEditDiT, tmp_path: Path, alpha: int | None, scale: float
) -> None:
    metadata = None if alpha is None else {PEFT_METADATA: json.dumps({"transformer.lora_alpha": alpha})}
    assert fuse(dit, [(saved(factors(), tmp_path / "a.safetensors", metadata), scale)]) == len(MODULES)
    reference = copy.deepcopy(loaded)
    network_alphas = {f"transformer.{m}.alpha": alpha for m in MODULES} if alpha else None
    reference.load_lora_adapter(factors(), network_alphas=network_alphas, adapter_name="a")
    reference.fuse_lora(lora_scale=scale)
    reference.unload_lora()
    fused = bits(dit)
    for name, weight in bits(reference).items():
        torch.testing.assert_close(fused[name], weight, rtol=0, atol=1e-6, msg=name)
        assert torch.equal(fused[name], loaded.get_parameter(name)) == (name.removesuffix(".weight") not in MODULES)


def test_original_names_change_the_same_weights(dit: ChronoEditDiT, loaded: ChronoEditDiT, tmp_path: Path) -> None:
    renamed = {"attn1.to_q": "self_attn.q", "attn2.to_out.0": "cross_attn.o", "net.0.proj": "0", "net.2": "2"}
    original = {}
    for key, tensor in factors().items():
        stem = key.replace("transformer.", "diffusion_model.")
        for ours, theirs in renamed.items():
            stem = stem.replace(ours, theirs)
        original[stem.replace("lora_A", "lora_down").replace("lora_B", "lora_up")] = tensor
        if "lora_A" in key:
            original[stem.replace("lora_A.weight", "alpha")] = torch.tensor(4.0)
    fuse(dit, [(saved(original, tmp_path / "o.safetensors"), 1.0)])
    other = copy.deepcopy(loaded)
    fuse(other, [(saved(factors(), tmp_path / "d.safetensors"), 1.0)])
    assert same(bits(dit), bits(other))
    assert not same(bits(dit), bits(loaded))


def test_several_add_up_with_their_scales(dit: ChronoEditDiT, loaded: ChronoEditDiT, tmp_path: Path) -> None:
    loras = [(saved(factors(seed), tmp_path / f"{seed}.safetensors"), scale) for seed, scale in ((1, 1.0), (2, -0.5))]
    fuse(dit, loras)
    for module in MODULES:
        expected = loaded.get_parameter(f"{module}.weight").double()
        for lora, scale in loras:
            layer = lora.weights.layers[module]
            expected = expected + scale * layer.up.double() @ layer.down.double()
        torch.testing.assert_close(dit.get_parameter(f"{module}.weight").double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unfusing_is_exact(dit: ChronoEditDiT, tmp_path: Path, dtype: torch.dtype) -> None:
    dit.to(dtype)
    before = bits(dit)
    unfuse(dit)
    assert same(bits(dit), before)
    first = saved(factors(1), tmp_path / "1.safetensors")
    second = saved(factors(2), tmp_path / "2.safetensors")
    fuse(dit, [(first, 1.0), (second, 0.3)])
    assert {parameter.dtype for parameter in dit.parameters()} == {dtype}
    fuse(dit, [(second, 1.0)])
    only_second = bits(dit)
    unfuse(dit)
    assert same(bits(dit), before)
    fuse(dit, [(second, 1.0)])
    assert same(bits(dit), only_second)
    fuse(dit, [])
    assert same(bits(dit), before)


def test_whole_differences_are_added(dit: ChronoEditDiT, loaded: ChronoEditDiT, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    names = {"norm3.diff": "norm2.weight", "norm3.diff_b": "norm2.bias", "self_attn.q.diff_b": "attn1.to_q.bias"}
    tensors = {f"diffusion_model.blocks.0.{name}": torch.randn(96, generator=generator) for name in names}
    assert fuse(dit, [(saved(tensors, tmp_path / "d.safetensors"), 0.5)]) == 3
    for name, ours in names.items():
        expected = loaded.get_parameter(f"blocks.0.{ours}") + 0.5 * tensors[f"diffusion_model.blocks.0.{name}"]
        assert torch.equal(dit.get_parameter(f"blocks.0.{ours}"), expected)


def test_stored_weights_keep_it_beside(dit: ChronoEditDiT, tmp_path: Path) -> None:
    """Factors and differences of weights that stay in fp8 add up to what they do to the same weights decoded."""
    kept, plain = copy.deepcopy(dit), dit
    for name, weight in plain.named_parameters():
        if name.startswith("blocks.") and name.endswith(".weight") and weight.ndim == 2:
            codes = weight.data.to(torch.float8_e4m3fn)
            owner = kept.get_submodule(name.removesuffix(".weight"))
            owner.weight = torch.nn.Parameter(StoredWeight(FP8, {"codes": codes}, codes.shape, torch.float32), False)
            weight.data = codes.float()
    stem = "diffusion_model.blocks.0"
    differences = {f"{stem}.self_attn.k.diff": torch.randn(96, 96), f"{stem}.self_attn.k.diff_b": torch.randn(96)}
    loras = [
        (saved(factors(), tmp_path / "f.safetensors"), 0.7),
        (saved(differences, tmp_path / "d.safetensors"), -0.5),
    ]

    def as_used(dit: ChronoEditDiT) -> dict[str, Tensor]:
        return {n: p.dequantize() if isinstance(p, StoredWeight) else p.data for n, p in dit.named_parameters()}

    before = bits(plain)
    assert same(as_used(kept), before)
    assert fuse(kept, loras) == fuse(plain, loras) == len(MODULES) + 2
    assert same(as_used(kept), bits(plain)) and not same(bits(plain), before)
    unfuse(kept)
    assert same(as_used(kept), before)


def test_convolution_weights(dit: ChronoEditDiT, loaded: ChronoEditDiT, tmp_path: Path) -> None:
    down, up = torch.randn(2, 36, 1, 2, 2), torch.randn(96, 2, 1, 1, 1)
    stem = "diffusion_model.patch_embedding"
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    fuse(dit, [(saved(tensors, tmp_path / "c.safetensors"), 1.0)])
    expected = loaded.patch_embedding.weight + torch.einsum("or,rithw->oithw", up.flatten(1), down)
    torch.testing.assert_close(dit.patch_embedding.weight, expected, rtol=0, atol=1e-5)


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    lora = saved(factors(rank=8, dtype=torch.bfloat16), tmp_path / "a.safetensors")
    assert (lora.dialect, lora.ranks, len(lora.sha256)) == ("diffusers", {8: 4}, 64)
    assert saved(factors(1), tmp_path / "b.safetensors").sha256 != lora.sha256


def test_nothing_changes_when_one_of_several_fails(dit: ChronoEditDiT, tmp_path: Path) -> None:
    good = saved(factors(), tmp_path / "good.safetensors")
    foreign = {"transformer.blocks.7.attn1.to_q.lora_A.weight": torch.ones(1, 96),
               "transformer.blocks.7.attn1.to_q.lora_B.weight": torch.ones(96, 1)}  # fmt: skip
    bad = saved(foreign, tmp_path / "bad.safetensors")
    fuse(dit, [(good, 1.0)])
    fused = bits(dit)
    with pytest.raises(LoraError, match=r"1 keys are not in this model, 0 are.*blocks.7.attn1.to_q.weight"):
        fuse(dit, [(good, 1.0), (bad, 1.0)])
    assert same(bits(dit), fused)


def test_keys_that_match_in_part_are_an_error(dit: ChronoEditDiT, tmp_path: Path) -> None:
    image = {
        f"transformer.blocks.{i}.attn2.add_k_proj.lora_{f}.weight": torch.ones(2, 2) for i in range(12) for f in "AB"
    }
    lora = saved({**factors(), **image}, tmp_path / "image.safetensors")
    with pytest.raises(LoraError, match=r"12 keys are not in this model, 4 are.*image branch.*and 2 more"):
        fuse(dit, [(lora, 1.0)])


def test_unknown_keys_beside_known_ones_are_an_error(dit: ChronoEditDiT, tmp_path: Path) -> None:
    lora = saved({**factors(), "text_encoder.q.lora_A.weight": torch.ones(2, 2)}, tmp_path / "t.safetensors")
    with pytest.raises(LoraError, match=r"1 keys are not in this model, 4 are.*text_encoder.q.lora_A.weight"):
        fuse(dit, [(lora, 1.0)])


def test_another_shape_is_an_error(dit: ChronoEditDiT, tmp_path: Path) -> None:
    tensors = {
        "transformer.proj_out.lora_A.weight": torch.ones(2, 5120),
        "transformer.proj_out.lora_B.weight": torch.ones(64, 2),
    }
    with pytest.raises(LoraError, match=r"another shape \(proj_out.weight \[64, 5120\] for \[64, 96\]\); wrong model"):
        fuse(dit, [(saved(tensors, tmp_path / "w.safetensors"), 1.0)])


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_scales_that_are_no_numbers(dit: ChronoEditDiT, tmp_path: Path, scale: float) -> None:
    with pytest.raises(ValueError, match="the LoRA scale is"):
        fuse(dit, [(saved(factors(), tmp_path / "a.safetensors"), scale)])


def test_files_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="no file .*missing.safetensors"):
        read_lora(tmp_path / "missing.safetensors")
    (tmp_path / "lora.pt").write_bytes(b"x")
    with pytest.raises(LoraError, match="is a pickle"):
        read_lora(tmp_path / "lora.pt")
    saved(factors(), tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-10])
    with pytest.raises(LoraError, match="the file is truncated: download it again"):
        read_lora(tmp_path / "cut.safetensors")
    with pytest.raises(LoraError, match=r"other.safetensors: none of the 1 keys is of a known LoRA dialect.*lora_te_x"):
        saved({"lora_te_x": torch.ones(1)}, tmp_path / "other.safetensors")
