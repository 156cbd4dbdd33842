"""Weights of linear layers as their file stores them: fp8 with a scale, or GGUF's blocks, decoded for each product.

A `StoredWeight` stands where the plain weight of an `nn.Linear` would, under the same name and with the same shape. It
is moved, copied and counted by the tensors that it is made of, as torchao's quantised weights are, and what LoRAs add
to it lies beside it, so that it can be taken away again to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from chronoedit.model.headers import TensorInfo

FP8 = "fp8"
"""The kind of a weight in fp8, e4m3 or e5m2, with or without a scale; the other kinds are GGUF's types by name."""

FP8_DTYPES = ("F8_E4M3", "F8_E5M2")
GGUF_TYPES = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
)  # fmt: skip
"""GGUF's quantised types that can be decoded."""

DECODED_AT_ONCE = 1 << 24
"""Weights that are decoded together: their fp32 and what comes before it is all that a product needs besides."""


def stays_stored(name: str, info: TensorInfo) -> bool:
    """Whether a tensor of a file is the weight of a block's linear layer in fewer than 16 bits.

    Such ones can stay as they are; embedders, head, norms and time path are decoded whatever they are stored in.
    """
    linear = name.startswith("blocks.") and name.endswith(".weight") and len(info.shape) == 2
    return linear and info.dtype in (*FP8_DTYPES, *GGUF_TYPES)


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What is added to a weight: `scale` times `up @ down` (`out r`, `r in`), or times a whole `difference`."""

    scale: float
    up: Tensor | None = None
    down: Tensor | None = None
    difference: Tensor | None = None

    def of(self, rows: slice) -> Tensor:
        """These rows of it, fp32."""
        if self.difference is not None:
            return self.scale * self.difference[rows].float()
        assert self.up is not None and self.down is not None
        return self.scale * (self.up[rows].float() @ self.down.float())


ADDED = ("up", "down", "difference")


class StoredWeight(Tensor):
    """A weight `out in` of one kind, made of `codes` and, where it has one, a `scale`; never trained.

    `dtype` is that in which it seems to be: converting it changes nothing else. `F.linear` decodes it to the type of
    its input. `additions` may be replaced at any time.
    """

    kind: str
    codes: Tensor
    scale: Tensor | None

    @staticmethod
    def __new__(
        cls: type[StoredWeight],
        kind: str,
        parts: Mapping[str, Tensor],
        shape: Sequence[int],
        dtype: torch.dtype,
        scales: Sequence[float] = (),
    ) -> StoredWeight:
        """`parts` by the names of `__tensor_flatten__`, `scales` those of the additions among them."""
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, tuple(shape), dtype=dtype, device=parts["codes"].device, requires_grad=False
        )
        made.kind, made.codes, made.scale = kind, parts["codes"], parts.get("scale")
        made.additions = [
            Addition(scale=scale, **{name: parts.get(f"{name}_{index}") for name in ADDED})
            for index, scale in enumerate(scales)
        ]
        return made

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """All is done in `__new__`, as torch asks of tensors without memory of their own."""

    @property
    def additions(self) -> Sequence[Addition]:
        """What is added to it, in order."""
        return self._additions

    @additions.setter
    def additions(self, additions: Sequence[Addition]) -> None:
        for name in [name for name in vars(self) if name.rpartition("_")[0] in ADDED]:
            delattr(self, name)
        for index, addition in enumerate(additions):
            for name in ADDED:
                if getattr(addition, name) is not None:
                    setattr(self, f"{name}_{index}", getattr(addition, name))
        self._additions = tuple(additions)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:  # type: ignore[override]
        """The weight as it is used, `out in`: decoded in fp32, what is added included, and rounded once to `dtype`."""
        rows, width = self.shape
        step = max(1, DECODED_AT_ONCE // width)
        parts = [self._decoded(slice(row, row + step), dtype) for row in range(0, rows, step)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _decoded(self, rows: slice, dtype: torch.dtype) -> Tensor:
        codes = self.codes[rows]
        scale = self.scale if self.scale is None or self.scale.numel() == 1 else self.scale[rows]
        weight = decode(self.kind, codes, scale)
        for addition in self.additions:
            weight = weight + addition.of(rows)
        return weight.to(dtype)

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """Names of the tensors that it is made of, and what else it takes to put it together."""
        names = ["codes", *(["scale"] if self.scale is not None else [])]
        for index, addition in enumerate(self.additions):
            names += [f"{name}_{index}" for name in ADDED if getattr(addition, name) is not None]
        return names, (self.kind, self.dtype, tuple(addition.scale for addition in self.additions))

    @classmethod
    def __tensor_unflatten__(
        cls, parts: Mapping[str, Tensor], context: Any, shape: Sequence[int], stride: Any
    ) -> StoredWeight:
        """Put together again."""
        kind, dtype, scales = context
        return cls(kind, parts, shape, dtype, scales)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Its kind and shape; its numbers are not decoded for that."""
        return f"StoredWeight({self.kind}, {list(self.shape)}, {self.dtype}, {self.device})"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """`F.linear` decodes; all else goes to `__torch_dispatch__`."""
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Move, copy and detach; nothing else is known of a weight that is only decoded as a whole."""
        kwargs = dict(kwargs or {})
        if func not in EACH_PART:
            raise NotImplementedError(f"{func} of a stored weight; decode it with dequantize() first")
        weight, *others = args
        dtype = kwargs.pop("dtype", None) or weight.dtype
        names, (kind, _, scales) = weight.__tensor_flatten__()
        parts = {name: func(getattr(weight, name), *others, **kwargs) for name in names}
        return cls(kind, parts, weight.shape, dtype, scales)


EACH_PART = (
    torch.ops.aten.detach.default,
    torch.ops.aten.alias.default,
    torch.ops.aten.clone.default,
    torch.ops.aten._to_copy.default,
    torch.ops.aten._pin_memory.default,
)
"""What is done to a stored weight by doing it to each tensor that it is made of."""


def _linear(input: Tensor, weight: StoredWeight, bias: Tensor | None = None) -> Tensor:
    return F.linear(input, weight.dequantize(input.dtype), bias)


def decode(kind: str, codes: Tensor, scale: Tensor | None = None) -> Tensor:
    """fp32 of the codes of a tensor: fp8 times its scale (one number, or one a row), or GGUF's blocks in bytes.

    The latter's last axis is as long as its blocks make it; the axes before stay.
    """
    if kind == FP8:
        values = codes.float()
        if scale is None:
            return values
        scale = scale.float()
        return values * (scale.reshape(-1, *[1] * (codes.ndim - 1)) if scale.numel() > 1 else scale.reshape(()))
    import gguf
    from diffusers.quantizers.gguf.utils import dequantize_functions

    kind_of_gguf = gguf.GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind_of_gguf]
    blocks = codes.reshape(-1, block_bytes)
    # In fp32: the half precision that its scales are stored in would round each product once more.
    values = dequantize_functions[kind_of_gguf](blocks, block, block_bytes, dtype=torch.float32)
    return values.reshape(*codes.shape[:-1], codes.shape[-1] // block_bytes * block)
