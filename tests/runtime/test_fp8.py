"""Products in fp8 against the exact products of what both sides are rounded to; torch has such a kernel for CPUs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from chronoedit.runtime.fp8 import E4M3_MAX, Float8Linear, fp8_product, has_kernels
from chronoedit.runtime.quantize import _store


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Rows scaled to e4m3 by their largest magnitude, and back."""
    scale = rows.abs().amax(dim=1, keepdim=True) / E4M3_MAX
    return (rows / scale).to(torch.float8_e4m3fn).float() * scale


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    linear.requires_grad_(False)
    _store(linear, "fp8")
    linear.__class__ = Float8Linear
    return linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_is_that_of_the_rounded_sides(layer: nn.Linear, dtype: torch.dtype) -> None:
    weight = layer.weight.dequantize(torch.float32)  # type: ignore[attr-defined]
    inputs = torch.randn(2, 9, 64).mul(torch.logspace(-3, 3, 9)[:, None]).to(dtype)  # rows of very different size
    expected = rounded(inputs.float().flatten(0, 1)).unflatten(0, (2, 9)) @ weight.T + layer.bias
    product = layer(inputs)
    assert product.dtype == dtype and product.shape == (2, 9, 48)
    off = (product.float() - expected).abs().amax(-1) / expected.abs().amax(-1)
    assert off.max() < 2 * torch.finfo(torch.bfloat16).eps


def test_a_row_of_zeros_stays_zero(layer: nn.Linear) -> None:
    weight = layer.weight
    zeros = fp8_product(torch.zeros(3, 64), weight.qdata, weight.scale, None)  # type: ignore[attr-defined]
    assert torch.equal(zeros, torch.zeros(3, 48))


def test_with_gradients_it_is_the_frozen_layer(layer: nn.Linear) -> None:
    inputs = torch.randn(5, 64, requires_grad=True)
    weight = layer.weight.dequantize(torch.float32)  # type: ignore[attr-defined]
    assert torch.equal(layer(inputs), F.linear(inputs, weight, layer.bias))
    layer(inputs).sum().backward()
    assert torch.allclose(inputs.grad, weight.sum(0).expand(5, 64), atol=1e-5)  # type: ignore[arg-type]


def test_a_cpu_keeps_to_exact_inputs() -> None:
    assert not has_kernels(torch.device("cpu"), 64, 64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_kernels_are_used() -> None:
    device = torch.device("cuda")
    if not has_kernels(device, 64, 64):
        pytest.skip("this GPU has no fp8 kernels")
    assert not has_kernels(device, 60, 64)
    linear = nn.Linear(64, 48).to(device).requires_grad_(False)
    exact = linear.weight.clone()
    inputs = torch.randn(7, 64, device=device, dtype=torch.bfloat16)
    _store(linear, "fp8")
    assert isinstance(linear, Float8Linear)
    expected = F.linear(inputs.float(), exact, linear.bias)
    assert (linear(inputs).float() - expected).norm() / expected.norm() < 0.05
