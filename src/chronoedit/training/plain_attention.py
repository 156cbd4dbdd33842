"""Attention as two matrix products, for training in bf16 on a CPU.

There, torch's own kernel takes longer than in fp32, most of it backwards; everywhere else it is the better one. The
products hold all logits at once, `b n s k`, which a small model can afford.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chronoedit.model.attention import KV, Attention, AttentionKernel


class PlainAttention(AttentionKernel):
    """The same as `AttentionKernel` up to rounding, for any device."""

    def __call__(self, query: Tensor, kv: KV, bias: Tensor | None = None) -> Tensor:
        """Attention of `b s n h` on `b k n h`, as `b s (n h)`."""
        q, k, v = (x.to(kv.value.dtype).transpose(1, 2) for x in (query, *kv))  # b n s h, b n k h
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # b n s k
        if bias is not None:
            logits = logits + bias.to(logits.dtype)
        return (logits.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)  # b s (n h)


def use_plain_attention(transformer: nn.Module, precision: str, device: torch.device) -> None:
    """Let a transformer use it where it is the faster one, in place."""
    if precision == "bf16" and device.type == "cpu":
        for module in transformer.modules():
            if isinstance(module, Attention):
                module.processor = PlainAttention()
