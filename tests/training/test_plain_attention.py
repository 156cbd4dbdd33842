"""Attention as matrix products: the same as the kernel's, and used where it is meant to be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chronoedit.model.attention import KV, Attention, AttentionKernel
from chronoedit.training.plain_attention import PlainAttention, use_plain_attention
from chronoedit.training.trainer import TransformerModel


def drawn(dtype: torch.dtype, keys: int = 5) -> tuple[Tensor, KV]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 7, 3, 8, generator=generator, dtype=torch.float32)
    key, value = (torch.randn(2, keys, 3, 8, generator=generator) for _ in range(2))
    return query.to(dtype), KV(key.to(dtype), value.to(dtype))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_it_equals_the_kernel(dtype: torch.dtype, tolerance: float, biased: bool) -> None:
    query, kv = drawn(dtype)
    bias = torch.tensor([[0.0, 1.5, 0.3, -torch.inf, 0.0], [0.0] * 5])[:, None, None] if biased else None
    expected = AttentionKernel()(query.float(), KV(*(x.float() for x in kv)), bias)
    torch.testing.assert_close(PlainAttention()(query, kv, bias).float(), expected, atol=tolerance, rtol=tolerance)


def test_gradients_equal_the_kernels() -> None:
    query, kv = drawn(torch.float32)
    inputs = [query, *kv]
    both = []
    for kernel in (AttentionKernel(), PlainAttention()):
        leaves = [x.detach().requires_grad_() for x in inputs]
        both.append(torch.autograd.grad(kernel(leaves[0], KV(*leaves[1:])).square().sum(), leaves))
    for expected, found in zip(*both, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("precision", "plain"), [("bf16", True), ("fp32", False)])
def test_it_is_used_in_bf16_on_a_cpu_alone(precision: str, plain: bool) -> None:
    transformer = TransformerModel(num_heads=2, num_layers=2, ffn_dim=64, input_layers=1, input_heads=1).build(4, 32)
    use_plain_attention(transformer, precision, torch.device("cpu"))
    processors = [each.processor for each in transformer.modules() if isinstance(each, Attention)]
    assert len(processors) == 4  # of two blocks, to themselves and to the prompt
    assert all(isinstance(each, PlainAttention) == plain for each in processors)
