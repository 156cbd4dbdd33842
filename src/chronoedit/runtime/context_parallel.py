"""One video over several processes: each holds a part of its tokens, and in self-attention a part of the heads.

This is Ulysses (Jacobs 2023, arXiv 2309.14509) over *tokens*, whose number need not divide by the processes. It acts
on a transformer from outside, by hooks, and is differentiable: the gradients that a process gets are its tokens' share,
whose sum over the group is the gradient of the loss that each of them computes.

Shapes: b batch, s tokens, r of them on this process, n heads, m of them on this process, h channels of a head.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chronoedit.model.attention import KV, AttentionKernel
from chronoedit.model.dit import ChronoEditBlock, ChronoEditDiT


def share_tokens(transformer: ChronoEditDiT, group: dist.ProcessGroup) -> TokenSplit:
    """Let the processes of `group`, which all call `transformer` with the same arguments, share its tokens.

    Each still gets the whole velocity; the split says which tokens are this one's. Raises ValueError when the heads
    cannot be shared out evenly.
    """
    heads, count = transformer.config.num_attention_heads, dist.get_world_size(group)
    if heads % count:
        raise ValueError(f"{heads} heads cannot be shared out to {count} processes; use a number that divides {heads}")
    split = TokenSplit(group)
    for index, block in enumerate(transformer.blocks):
        block.register_forward_pre_hook(split.into_first_block if index == 0 else split.into_block)
        attention = cast(ChronoEditBlock, block).attn1
        attention.processor = UlyssesKernel(split, attention.processor)
    transformer.proj_out.register_forward_hook(split.out_of_head)
    return split


class TokenSplit:
    """Which tokens each process of a group has; they follow from their number, which the rotary table shows."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)
        self.sizes: list[int] = []

    def into_first_block(self, block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """A block's arguments, for this process's tokens of all of them."""
        x, prompt, modulation, rotary = self.into_block(block, arguments)
        return self.own(x), prompt, modulation, rotary

    def into_block(self, block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """A block's arguments, whose tokens are this process's already."""
        x, prompt, modulation, rotary = arguments
        total = rotary.shape[1]
        self.sizes = [total // self.count + (k < total % self.count) for k in range(self.count)]
        return x, prompt, modulation, self.own(rotary)

    def out_of_head(self, head: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        """All tokens, on all processes."""
        return Gather.apply(output, self)

    def own(self, tokens: Tensor) -> Tensor:
        """This process's tokens, of all, b s d; their number is that of the last pass."""
        start = sum(self.sizes[: self.rank])
        return tokens[:, start : start + self.sizes[self.rank]]

    def total(self, x: Tensor) -> Tensor:
        """The sum of the processes' tensors, on all of them."""
        x = x.clone()
        dist.all_reduce(x, group=self.group)
        return x


class UlyssesKernel(AttentionKernel):
    """Self-attention with the tokens of all processes, for this process's share of the heads."""

    def __init__(self, split: TokenSplit, kernel: AttentionKernel) -> None:
        self.split = split
        self._attention_backend = kernel._attention_backend

    def __call__(self, query: Tensor, kv: KV, bias: Tensor | None = None) -> Tensor:
        """Attention of `b r n h` on the same tokens' keys and those of the other processes, as `b r (n h)`."""
        count, sizes = self.split.count, self.split.sizes
        r, m = query.shape[1], query.shape[2] // count
        stacked = torch.stack([query, *kv]).unflatten(3, (count, m))  # 3 b r count m h
        by_process = stacked.permute(3, 2, 0, 1, 4, 5).flatten(0, 1)  # (count r) 3 b m h
        whole = Exchange.apply(by_process, [r] * count, sizes, self.split.group)  # s 3 b m h
        q, k, v = whole.permute(1, 2, 0, 3, 4)  # b s m h each
        out = super().__call__(q, KV(k, v), bias).unflatten(2, (m, -1))  # b s m h
        back = Exchange.apply(out.transpose(0, 1), sizes, [r] * count, self.split.group)  # (count r) b m h
        return back.unflatten(0, (count, r)).permute(2, 1, 0, 3, 4).flatten(2)  # b r (n h)


def exchange(x: Tensor, given: list[int], taken: list[int], group: dist.ProcessGroup) -> Tensor:
    """All-to-all along the first axis: pieces of the `given` lengths go out, one a process, `taken` ones come in."""
    out = x.new_empty(sum(taken), *x.shape[1:])
    dist.all_to_all_single(out, x.contiguous(), taken, given, group=group)
    return out


class Exchange(torch.autograd.Function):
    """`exchange`, whose gradient is the exchange back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, given: list[int], taken: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.given, ctx.taken, ctx.group = given, taken, group
        return exchange(x, given, taken, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return exchange(gradient, ctx.taken, ctx.given, ctx.group), None, None, None


class Gather(torch.autograd.Function):
    """The tokens b r d of all processes, b s d; the gradient that a process gets is that of its own tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, split: TokenSplit) -> Tensor:
        ctx.start, ctx.size = sum(split.sizes[: split.rank]), split.sizes[split.rank]
        copies = x.transpose(0, 1).repeat(split.count, 1, 1)  # (count r) b d: gathering knows no unequal sizes
        return exchange(copies, [ctx.size] * split.count, split.sizes, split.group).transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[:, ctx.start : ctx.start + ctx.size], None
