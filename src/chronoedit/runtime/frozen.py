"""Linear layers whose frozen weight is stored otherwise than it is used: quantised, in bf16, or in main memory.

The weight is brought over each time that it is used, and once more in the backward pass. An ordinary linear layer keeps
the weight that it multiplied by until then, so that all that quantising or swapping saves would be spent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class FrozenLinear(nn.Linear):
    """A linear layer without gradients of its own, computed where its input lies and in the type of that.

    Made from an `nn.Linear` by `freeze`, so that its place, its name and what PEFT has put around it stay as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`... in` to `... out`."""
        return FrozenProduct.apply(input, self.weight, self.bias)


class HalfLinear(nn.Linear):
    """A linear layer whose weight multiplies in bfloat16 alone; what comes in and goes out is of any type."""

    def forward(self, input: Tensor) -> Tensor:
        """`... in` to `... out`."""
        product = F.linear(input.to(torch.bfloat16), self.weight).to(input.dtype)
        return product if self.bias is None else product + self.bias


def freeze(linear: nn.Linear, weight: Tensor) -> None:
    """Let the layer compute with `weight`, stored as it is, from now on."""
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.__class__ = FrozenLinear


class FrozenProduct(torch.autograd.Function):
    """`F.linear`, which holds its weight only as it is stored until the backward pass.

    The weight is no *saved* tensor either: hooks that move those to main memory would copy what lies there already.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        device = input.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else input.dtype
        return F.linear(input, as_used(weight, device, dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return gradient @ as_used(ctx.weight, gradient.device, gradient.dtype), None, None


def as_used(weight: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A stored weight as a plain tensor of this type on this device; moved first, while it is small."""
    weight = fetch(weight, device)
    return cast(Any, weight).dequantize(dtype) if is_quantised(weight) else weight.to(dtype)


def fetch(weight: Tensor, device: torch.device) -> Tensor:
    """A stored weight on a device: itself where it lies there, else a copy."""
    return each_part(weight, lambda part: part.to(device, non_blocking=device.type == "cuda"))


def is_quantised(weight: Tensor) -> bool:
    """Whether it is one of torchao's tensors, which are made of others."""
    return hasattr(weight, "__tensor_flatten__")


def each_part(weight: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The weight with `change` made to it, or to each tensor that a quantised one is made of."""
    if not is_quantised(weight):
        return change(weight)
    names, context = weight.__tensor_flatten__()  # type: ignore[attr-defined]
    parts = {name: change(getattr(weight, name)) for name in names}
    return type(weight).__tensor_unflatten__(parts, context, weight.shape, weight.stride())  # type: ignore[attr-defined]


def stored_bytes(module: nn.Module) -> int:
    """Bytes of all parameters as they are stored."""
    sizes: list[int] = []

    def counted(part: Tensor) -> Tensor:
        sizes.append(part.numel() * part.element_size())
        return part

    for parameter in module.parameters():
        each_part(parameter.detach(), counted)
    return sum(sizes)


def blocks_of(transformer: nn.Module) -> nn.ModuleList:
    """The repeated blocks of a transformer."""
    return cast(nn.ModuleList, transformer.get_submodule("blocks"))


def frozen_linears(transformer: nn.Module, blocks: Iterable[int]) -> list[tuple[str, nn.Linear]]:
    """The linear layers of these blocks, by name; the factors of LoRAs are passed over.

    Raises ValueError for a layer in training.
    """
    found = []
    for index in blocks:
        for name, layer in blocks_of(transformer)[index].named_modules(prefix=f"blocks.{index}"):
            if isinstance(layer, nn.Linear) and not any(part.startswith("lora_") for part in name.split(".")):
                _refuse_trained(name, layer)
                found.append((name, layer))
    return found


def _refuse_trained(name: str, layer: nn.Linear) -> None:
    for parameter_name, parameter in layer.named_parameters():
        if parameter.requires_grad:
            raise ValueError(
                f"{name}.{parameter_name} is in training; only frozen weights can be quantised, or wait in main "
                "memory: train a LoRA, or leave that out"
            )
