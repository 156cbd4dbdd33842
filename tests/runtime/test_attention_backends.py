"""Attention kernels by name: each that can run here computes softmax(QKᵀ)V; the others are refused before loading."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import PIL.Image
import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor

from chronoedit.editing.loading import load
from chronoedit.model.attention import KV, AttentionKernel
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.request import EditRequest
from chronoedit.runtime import attention_backends
from chronoedit.runtime.attention_backends import AUTOMATIC, BACKENDS, able, choose, use_backend, why_not

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BOUNDS = {torch.float32: 5e-6, torch.bfloat16: 0.02, torch.float16: 0.005}
"""Largest difference from fp64, relative to max(1, max|reference|): half types round products and the result."""
INEXACT_BOUND = 0.1

SHAPES = [(64, 64), (37, 37), (130, 21), (37, 257), (5, 1)]
"""Tokens and keys: self-attention, even and odd; text, image, and a single key."""


def attend(query: Tensor, kv: KV, bias: Tensor | None) -> Tensor:
    """The mathematics in fp64, `b s (n h)`."""
    q, k, v = (x.double().transpose(1, 2) for x in (query, *kv))  # b n s h
    logits = q @ k.mT / q.shape[-1] ** 0.5
    logits = logits if bias is None else logits + bias.double()
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


def largest_difference(
    name: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, int], bias: bool
) -> float:
    generator, (tokens, keys) = torch.Generator().manual_seed(tokens_seed(shape)), shape
    query, key, value = (
        torch.randn(2, length, 3, 64, generator=generator).to(device, dtype) for length in (tokens, keys, keys)
    )
    added = torch.randn(2, 1, 1, keys, generator=generator).to(device) if bias else None
    kernel = AttentionKernel()
    kernel._attention_backend = BACKENDS[name].kernel
    with torch.no_grad():
        out = kernel(query, KV(key, value), added)
    expected = attend(query, KV(key, value), added)
    assert out.dtype == dtype
    return float((out.double() - expected).abs().max() / max(1.0, float(expected.abs().max())))


def tokens_seed(shape: tuple[int, int]) -> int:
    return 1000 * shape[0] + shape[1]


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_every_kernel_of_the_cpu_agrees(dtype: torch.dtype, shape: tuple[int, int], bias: bool) -> None:
    names = able(CPU, dtype, 64)
    assert {"sdpa", "math", "flash"} <= set(names)
    for name in names:
        assert largest_difference(name, CPU, dtype, shape, bias) <= BOUNDS[dtype], name


@pytest.mark.gpu
@pytest.mark.parametrize("name", BACKENDS)
def test_every_kernel_of_a_gpu_agrees(name: str) -> None:
    for dtype in BOUNDS:
        reason = why_not(name, CUDA, dtype, 64)
        if reason is not None and "computes in" not in reason:
            pytest.skip(f"{name}: {reason}")
        bound = BOUNDS[dtype] if BACKENDS[name].exact else INEXACT_BOUND
        for shape, bias in product(SHAPES if reason is None else (), (False, True)):
            assert largest_difference(name, CUDA, dtype, shape, bias) <= bound, (dtype, shape, bias)


def test_the_bound_finds_another_result() -> None:
    """The comparison is no formality: attention without the bias is far outside of it."""
    query, kv = torch.randn(1, 37, 2, 64), KV(torch.randn(1, 21, 2, 64), torch.randn(1, 21, 2, 64))
    bias = torch.randn(1, 1, 1, 21)
    assert (AttentionKernel()(query, kv) - attend(query, kv, bias)).abs().max() > 100 * BOUNDS[torch.float32]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """A machine with a GPU of this capability and these packages, as far as the table asks for them."""
    machine: dict[str, object] = {"capability": (9, 0), "packages": {}}

    def version(package: str) -> str:
        found = machine["packages"].get(package)  # type: ignore[attr-defined]
        if found is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: machine["capability"])
    monkeypatch.setattr(attention_backends.importlib.metadata, "version", version)
    monkeypatch.setattr(attention_backends, "_check_attention_backend_requirements", lambda kernel: None)
    yield machine


@pytest.mark.parametrize(
    ("capability", "packages", "dtype", "head_dim", "expected"),
    [
        ((9, 0), {"flash_attn_3": "3.0.0b1"}, torch.bfloat16, 128, "flash3"),
        ((9, 0), {}, torch.bfloat16, 128, "cudnn"),
        ((10, 0), {"flash_attn_3": "3.0.0b1"}, torch.bfloat16, 128, "cudnn"),
        ((8, 0), {"flash_attn_3": "3.0.0b1", "sageattention": "2.2.0"}, torch.float16, 128, "cudnn"),
        ((8, 0), {}, torch.bfloat16, 20, "sdpa"),
        ((8, 0), {}, torch.float32, 128, "sdpa"),
        ((7, 5), {"sageattention": "2.2.0", "flash_attn": "2.8.0"}, torch.float16, 128, "sdpa"),
    ],
)
def test_auto_takes_the_fastest_that_can_run(
    gpu: dict[str, object],
    capability: tuple[int, int],
    packages: dict[str, str],
    dtype: torch.dtype,
    head_dim: int,
    expected: str,
) -> None:
    gpu |= {"capability": capability, "packages": packages}
    assert choose(CUDA, dtype, head_dim) == expected


def test_auto_is_exact_and_can_always_be_had() -> None:
    assert all(BACKENDS[name].exact and BACKENDS[name].compiles for name in AUTOMATIC)
    assert not BACKENDS["sage"].exact
    for device in (CPU, torch.device("mps")):
        assert choose(device, torch.float32) == "sdpa"


def test_why_not(gpu: dict[str, object]) -> None:
    half = torch.bfloat16
    assert "on cuda, not on cpu" in str(why_not("cudnn", CPU, half))
    assert "flash_attn, 2.6.3 or newer, is not installed" in str(why_not("flash2", CUDA, half))
    gpu["packages"] = {"flash_attn": "2.5.9", "sageattention": "2.2.0"}
    assert "flash_attn 2.5.9 is too old" in str(why_not("flash2", CUDA, half))
    assert "bfloat16 or float16, not in float32" in str(why_not("sage", CUDA, torch.float32))
    assert "heads of 48 channels" in str(why_not("sage", CUDA, half, 48))
    assert why_not("sage", CUDA, half, 64) is None
    gpu["capability"] = (8, 6)
    assert "compute capability 9.x, this device has 8.6" in str(why_not("flash3", CUDA, half))
    gpu["capability"] = (7, 0)
    assert "8.0 or later, this device has 7.0" in str(why_not("cudnn", CUDA, half))


def test_a_package_that_cannot_be_imported_is_told(gpu: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kernel: AttentionBackendName) -> None:
        raise RuntimeError("not usable")

    monkeypatch.setattr(attention_backends, "_check_attention_backend_requirements", refuse)
    gpu["packages"] = {"flash_attn": "2.8.0"}
    assert "2.8.0 is installed, but cannot be imported" in str(why_not("flash2", CUDA, torch.bfloat16))


def test_what_cannot_run_is_refused_before_loading(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"'flash3' cannot run here: .* not on cpu; choose one of auto, sdpa, flash, math"
    ):
        load(tmp_path / "no model here", device="cpu", attention="flash3")
    with pytest.raises(ValueError, match=r"attention 'fast' is unknown; choose one of auto, flash3, cudnn, sdpa"):
        load(tmp_path / "no model here", device="cpu", attention="fast")


def test_it_is_set_for_this_model_alone() -> None:
    """Every attention gets it, the process's default stays, and the velocity is the same to 1e-5."""
    torch.manual_seed(0)
    config = {"num_attention_heads": 2, "attention_head_dim": 16, "text_dim": 8, "freq_dim": 8, "ffn_dim": 16}
    dit = ChronoEditDiT(**config, num_layers=2).eval()
    before = _AttentionBackendRegistry.get_active_backend()
    inputs = torch.randn(1, 16, 2, 4, 6), torch.tensor([500]), torch.randn(1, 5, 8)
    velocities = {}
    for name in able(CPU, torch.float32, 16):
        assert use_backend(dit, name, CPU, torch.float32) == name
        kernels = {block.attn1.processor._attention_backend for block in dit.blocks}
        assert kernels == {block.attn2.processor._attention_backend for block in dit.blocks} == {BACKENDS[name].kernel}
        with torch.no_grad():
            velocities[name] = dit(*inputs).sample
    assert _AttentionBackendRegistry.get_active_backend() == before
    assert use_backend(dit, "auto", CPU, torch.float32) == "sdpa"
    scale = max(1.0, float(velocities["sdpa"].abs().max()))
    for velocity in velocities.values():
        assert (velocity - velocities["sdpa"]).abs().max() <= 1e-5 * scale


def test_an_editor_uses_what_it_was_told(random_checkpoint: Path) -> None:
    editor = load(random_checkpoint, device="cpu", attention="math")
    editor.edit(EditRequest(image=PIL.Image.new("RGB", (64, 64)), prompt="a red ball", num_inference_steps=1))
    kernels = {block.attn1.processor._attention_backend for block in editor.components.transformer.blocks}
    assert kernels == {AttentionBackendName._NATIVE_MATH}
