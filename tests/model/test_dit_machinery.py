"""The machinery of diffusers and torch on ChronoEditDiT: each equals the plain forward within the bound it states."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from diffusers.models.transformers.transformer_chronoedit import ChronoEditTransformer3DModel
from torch import Tensor

from chronoedit.model.attention import AttentionKernel
from chronoedit.model.dit import ChronoEditBlock, ChronoEditDiT


@pytest.fixture
def dit(random_dit: Callable[..., ChronoEditDiT]) -> ChronoEditDiT:
    return random_dit(image=True)


@pytest.fixture(scope="module")
def inputs(dit_inputs: Any) -> Any:
    return dit_inputs(image=True, text_len=32)


@torch.no_grad()
def plain(dit: ChronoEditDiT, inputs: Any) -> Tensor:
    return dit(*inputs.plain, text_lengths=inputs.lengths).sample


@torch.no_grad()
def with_prompt_kv(dit: ChronoEditDiT, inputs: Any) -> Tensor:
    kv = dit.prompt_kv(inputs.text, inputs.image_embeds, text_lengths=inputs.lengths)
    return dit(inputs.hidden_states, inputs.timestep, prompt_kv=kv).sample


def test_gradient_checkpointing(dit: ChronoEditDiT, inputs: Any, assert_close: Any) -> None:
    """Output and gradients within 1e-6, whether the prompt comes as states or as keys and values."""

    def run(*, keys: bool) -> list[Tensor]:
        dit.zero_grad()
        prompt = {"text_lengths": inputs.lengths}
        if keys:
            kv = dit.prompt_kv(inputs.text, inputs.image_embeds, **prompt)
            out = dit(inputs.hidden_states, inputs.timestep, prompt_kv=kv).sample
        else:
            out = dit(*inputs.plain, **prompt).sample
        out.square().mean().backward()
        return [out.detach(), *(parameter.grad.clone() for parameter in dit.parameters())]

    expected = run(keys=False)
    dit.train()
    dit.enable_gradient_checkpointing()
    assert dit.is_gradient_checkpointing
    for keys in (False, True):
        for ours, reference in zip(run(keys=keys), expected, strict=True):
            assert_close(ours, reference, 1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("image", "bound"), [(False, 1e-5), (True, 0.01)], ids=["no image branch", "image branch"])
def test_bf16(random_dit: Any, dit_config: Any, dit_inputs: Any, assert_close: Any, image: bool, bound: float) -> None:
    """Within `bound` of the reference in bf16, norms and modulation fp32 in both; within 0.03 of our own fp32.

    With the image branch the reference projects slices of one tensor, which its bf16 kernels round once more.
    """
    dit, inputs = random_dit(image=image), dit_inputs(image=image)
    fp32 = plain(dit, inputs)
    reference = ChronoEditTransformer3DModel(**dit_config(image=image)).eval()
    reference.load_state_dict(dit.state_dict())
    for model in (dit, reference):
        for name, parameter in model.named_parameters():
            if not any(part in name for part in ChronoEditDiT._keep_in_fp32_modules):
                parameter.data = parameter.data.bfloat16()
    x, t, *prompt = inputs.plain
    x, (text, image_embeds) = x.bfloat16(), (None if y is None else y.bfloat16() for y in prompt)
    out = dit(x, t, text, image_embeds).sample
    assert out.dtype == torch.bfloat16
    assert_close(out, reference(x, t, text, image_embeds).sample, bound)
    assert_close(out, fp32, 0.03)
    kv = dit.prompt_kv(text, image_embeds, text_lengths=inputs.lengths)
    assert kv.text[0].key.dtype == torch.bfloat16
    assert_close(dit(x, t, prompt_kv=kv).sample, fp32, 0.03)


@pytest.mark.parametrize(
    "way", [{"offload_type": "block_level", "num_blocks_per_group": 1}, {"offload_type": "leaf_level"}]
)
def test_group_offload(dit: ChronoEditDiT, inputs: Any, way: dict[str, Any]) -> None:
    """Equal bit for bit, prompt keys and values too."""
    expected = plain(dit, inputs)
    dit.enable_group_offload(onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), **way)
    assert torch.equal(plain(dit, inputs), expected)
    assert torch.equal(with_prompt_kv(dit, inputs), expected)


def test_group_offload_to_disk(dit: ChronoEditDiT, inputs: Any, tmp_path: Path) -> None:
    """Equal bit for bit, though between forwards the weights are in files alone."""
    expected = plain(dit, inputs)
    dit.enable_group_offload(
        onload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        offload_to_disk_path=str(tmp_path),
    )
    assert os.listdir(tmp_path)
    assert torch.equal(plain(dit, inputs), expected)
    assert torch.equal(with_prompt_kv(dit, inputs), expected)


def test_layerwise_casting(dit: ChronoEditDiT, inputs: Any) -> None:
    """Equal bit for bit to the plain forward of weights that were rounded once to the storage type."""
    stored = torch.float8_e4m3fn
    rounded = copy.deepcopy(dit)
    for name, parameter in rounded.named_parameters():
        kept = ("norm", "patch_embedding", "condition_embedder", "scale_shift_table", "proj_out")
        if name.startswith("blocks.") and not any(part in name for part in kept):
            parameter.data = parameter.data.to(stored).float()
    dit.enable_layerwise_casting(storage_dtype=stored, compute_dtype=torch.float32)
    assert dit.blocks[0].attn1.to_q.weight.dtype == stored
    assert dit.blocks[0].scale_shift_table.dtype == dit.blocks[0].attn1.norm_q.weight.dtype == torch.float32
    assert torch.equal(plain(dit, inputs), plain(rounded, inputs))
    assert torch.equal(with_prompt_kv(dit, inputs), plain(rounded, inputs))


def test_lora_adapter(dit: ChronoEditDiT, inputs: Any, assert_close: Any) -> None:
    """Within 1e-5 of the plain forward with the update added to the weights; scaled by attention_kwargs; removable."""
    names = [
        "attn1.to_q",
        "attn1.to_out.0",
        "attn2.to_k",
        "attn2.to_v",
        "attn2.add_k_proj",
        "ffn.net.0.proj",
        "ffn.net.2",
    ]
    fused, before = copy.deepcopy(dit), plain(dit, inputs)
    half = copy.deepcopy(dit)
    lora: dict[str, Tensor] = {}
    for block in range(2):
        for name in (f"blocks.{block}.{name}" for name in names):
            weight = dit.get_submodule(name).weight
            down, up = 0.3 * torch.randn(4, weight.shape[1]), 0.3 * torch.randn(weight.shape[0], 4)
            lora |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
            fused.get_submodule(name).weight.data += up @ down
            half.get_submodule(name).weight.data += 0.5 * up @ down
    dit.load_lora_adapter(lora, adapter_name="style")
    expected = plain(fused, inputs)
    assert (expected - before).abs().max() > 0.1
    assert_close(plain(dit, inputs), expected, 1e-5)
    assert_close(with_prompt_kv(dit, inputs), expected, 1e-5)
    with torch.no_grad():
        scaled = dit(*inputs.plain, text_lengths=inputs.lengths, attention_kwargs={"scale": 0.5}).sample
    assert_close(scaled, plain(half, inputs), 1e-5)
    assert_close(plain(dit, inputs), expected, 1e-5)
    dit.unload_lora()
    assert torch.equal(plain(dit, inputs), before)


def test_first_block_cache(dit: ChronoEditDiT, inputs: Any) -> None:
    """Equal bit for bit while nothing is skipped, and after the cache is off again."""
    assert TransformerBlockRegistry.get(ChronoEditBlock).return_hidden_states_index == 0
    expected = plain(dit, inputs)
    dit.enable_cache(FirstBlockCacheConfig(threshold=0.0))
    calls: list[None] = []
    handle = dit.blocks[1].ffn.register_forward_hook(lambda *_: calls.append(None))
    with dit.cache_context("cond"):
        assert torch.equal(plain(dit, inputs), expected)
        plain(dit, inputs)
    assert len(calls) == 1, "the second forward, of the same latents, should have skipped the second block"
    dit.disable_cache()
    assert torch.equal(plain(dit, inputs), expected)
    handle.remove()


def test_save_and_load(dit: ChronoEditDiT, inputs: Any, tmp_path: Path) -> None:
    """Written by diffusers' class, read by ours, bit for bit; in bf16 the modules that stay fp32 do."""
    dit.save_pretrained(tmp_path / "ours")
    reference = ChronoEditTransformer3DModel.from_pretrained(tmp_path / "ours")
    reference.save_pretrained(tmp_path / "reference")
    back = ChronoEditDiT.from_pretrained(tmp_path / "reference").eval()
    assert torch.equal(plain(back, inputs), plain(dit, inputs))
    half = ChronoEditDiT.from_pretrained(tmp_path / "ours", torch_dtype=torch.bfloat16)
    assert half.dtype == half.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert half.blocks[0].scale_shift_table.dtype == half.blocks[0].norm2.weight.dtype == torch.float32


def test_built_on_meta_and_given_weights(dit: ChronoEditDiT, dit_config: Any, inputs: Any) -> None:
    """No state beside the parameters: a model built without memory computes the same once it has the weights."""
    with torch.device("meta"):
        empty = ChronoEditDiT(**dit_config(image=True)).eval()
    empty.load_state_dict(dit.state_dict(), assign=True, strict=True)
    assert not list(empty.buffers())
    assert torch.equal(plain(empty, inputs), plain(dit, inputs))


def test_attention_backend_can_be_set(dit: ChronoEditDiT, inputs: Any, assert_close: Any) -> None:
    """Another kernel of torch within 1e-5; every attention of the model gets it."""
    expected = plain(dit, inputs)
    before, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        dit.set_attention_backend("_native_math")
        kernels = [module.processor for module in dit.modules() if hasattr(module, "processor")]
        assert len(kernels) == 4
        assert all(isinstance(k, AttentionKernel) and k._attention_backend for k in kernels)
        assert_close(plain(dit, inputs), expected, 1e-5)
    finally:
        dit.reset_attention_backend()
        _AttentionBackendRegistry.set_active_backend(before)  # which diffusers changes for the whole process
    assert all(kernel._attention_backend is None for kernel in kernels)
