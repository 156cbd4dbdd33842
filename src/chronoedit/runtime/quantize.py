"""The weights of a transformer's blocks in 16, 8 or 4 bits, for inference and as the frozen base of a LoRA.

Only the linear layers of the repeated blocks are changed, where nearly all weights are; embedders, time path, norms
and head stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chronoedit.errors import MissingExtraError
from chronoedit.model.stored import StoredWeight
from chronoedit.model.tensors import convert
from chronoedit.runtime.fp8 import Float8Linear, has_kernels
from chronoedit.runtime.frozen import HalfLinear, as_used, blocks_of, freeze, frozen_linears, is_quantised

INT4_GROUPS = (128, 64, 32)
"""Weights of a row that share a scale in int4: the most that its length is a multiple of."""

PROBES = 512
"""Inputs without a pattern, by which the error of weights is estimated that cannot be decoded."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How weights are stored: `bytes_a_weight`, scales aside, and torchao's configuration, None where it is not needed.

    That is made for a device's type and a row of so many weights, by torchao from `needs` on. Where `trains`, gradients
    flow through the layers. `devices` are those that can compute with it; None: all.
    """

    bytes_a_weight: float
    config: Callable[[str, int], Any] | None = None
    trains: bool = True
    devices: tuple[str, ...] | None = None
    needs: str = "0.16"


def _fp8(device: str, width: int) -> Any:
    from torchao.quantization import Float8WeightOnlyConfig

    return Float8WeightOnlyConfig(set_inductor_config=False)


def _int8(device: str, width: int) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig(set_inductor_config=False)


def _int4(device: str, width: int) -> Any:
    """Each kind of device has a kernel of its own, and weights packed for that one."""
    group = next(size for size in INT4_GROUPS if width % size == 0)
    if device == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)
    from torchao.quantization import Int4WeightOnlyConfig

    return Int4WeightOnlyConfig(group_size=group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False)  # type: ignore[arg-type]


PRECISIONS = {
    "bf16": Precision(bytes_a_weight=2),
    "fp8": Precision(bytes_a_weight=1, config=_fp8, devices=("cpu", "cuda")),
    "int8": Precision(bytes_a_weight=1, config=_int8),
    "int4": Precision(bytes_a_weight=0.5, config=_int4, trains=False, devices=("cpu", "cuda"), needs="0.18"),
}
"""By name. fp8 is e4m3; fp8 and int8 have a scale a row, int4 a scale and an offset for each group of `INT4_GROUPS`."""


def check_precision(precision: str, device: torch.device, *, training: bool = False) -> None:
    """Refuse, before anything is loaded, what could not run: ValueError for that, MissingExtraError without torchao."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    chosen = PRECISIONS[precision]
    if chosen.devices is not None and device.type not in chosen.devices:
        others = [name for name, each in PRECISIONS.items() if each.devices is None or device.type in each.devices]
        raise ValueError(
            f"{precision} weights cannot be computed with on {device.type}, only on {' and '.join(chosen.devices)}; "
            f"use {' or '.join(others)}"
        )
    if training and not chosen.trains:
        others = [name for name, each in PRECISIONS.items() if each.trains]
        raise ValueError(f"nothing can be trained through {precision} weights; use {', '.join(others)}")
    if chosen.config is not None:
        _configuration(precision, device, INT4_GROUPS[0])


def quantize(transformer: nn.Module, precision: str, on: torch.device | None = None) -> None:
    """Store the linear weights of the transformer's blocks in this precision, in place, one layer after the other.

    All but int4 are then brought to the type of their input each time they are used, backward too (see `frozen`), and
    may get a LoRA before or after. int4 multiplies in bfloat16, and fp8 in fp8 on a GPU that has the kernels. A LoRA
    that is to be fused must be so before. Weights that are as their file stores them are decoded first, each rounded a
    second time. Weights stay on their device; with `on` each visits that one to be made smaller, for what only a GPU
    can make, and they never lie there all at once.
    Raises ValueError for weights in training or quantised already, and what `check_precision` does.
    """
    layers = frozen_linears(transformer, range(len(blocks_of(transformer))))
    for name, layer in layers:
        _refuse(name, layer, precision, on or layer.weight.device)
    for _, layer in layers:
        home = layer.weight.device
        convert(layer.weight)
        layer.to(on or home)
        _store(layer, precision)
        layer.to(home)


def stored_error(weight: Tensor, precision: str) -> float:
    """How far a linear layer's weight, `out in`, is from its bf16 once it is stored so: RMS of the difference over RMS.

    For inputs without a pattern this is the relative error of the layer's output too. Raises as `quantize`.
    """
    exact = weight.to(torch.bfloat16)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.bfloat16, device=weight.device)
    layer.weight = nn.Parameter(exact.clone(), requires_grad=False)
    _refuse("a weight", layer, precision, weight.device)
    _store(layer, precision)
    if PRECISIONS[precision].trains:
        return relative_error(as_used(layer.weight.detach(), weight.device, torch.float32), exact)
    generator = torch.Generator().manual_seed(0)  # nothing decodes the weight: it is seen by what it makes of these
    inputs = torch.randn(PROBES, weight.shape[1], generator=generator).to(exact)
    with torch.no_grad():
        return relative_error(layer(inputs), inputs @ exact.T)


def relative_error(tensor: Tensor, reference: Tensor) -> float:
    """RMS of the difference over RMS of the reference; of one that is all zeros, 0 if the tensor is too, else inf."""
    size, difference = float(reference.float().norm()), float((tensor.float() - reference.float()).norm())
    return difference / size if size else 0.0 if not difference else float("inf")


def _store(layer: nn.Linear, precision: str) -> None:
    """One layer, where it lies."""
    device, dtype = layer.weight.device, layer.weight.dtype
    config = PRECISIONS[precision].config
    if isinstance(layer.weight, StoredWeight):
        layer.weight = nn.Parameter(layer.weight.dequantize(dtype), requires_grad=False)
    if config is None:
        freeze(layer, layer.weight.detach().to(torch.bfloat16))
        return
    from torchao.quantization import quantize_

    if precision == "int4":  # its kernels multiply in bfloat16; those for other types, on a CPU, are 70 times slower
        layer.weight = nn.Parameter(layer.weight.to(torch.bfloat16), requires_grad=False)
    quantize_(layer, _configuration(precision, device, layer.in_features))
    if not PRECISIONS[precision].trains:
        layer.__class__ = HalfLinear
        return
    freeze(layer, layer.weight.detach())
    if precision == "fp8" and has_kernels(device, layer.out_features, layer.in_features):
        layer.__class__ = Float8Linear


def _refuse(name: str, layer: nn.Linear, precision: str, device: torch.device) -> None:
    """Raise for a layer that cannot be stored so; all are asked before the first is changed."""
    weight = layer.weight
    check_precision(precision, device)
    if is_quantised(weight) and not isinstance(weight, StoredWeight):
        raise ValueError(f"{name} is quantised already; load the model again to have it in {precision}")
    if precision == "int4" and layer.in_features % min(INT4_GROUPS):
        raise ValueError(
            f"{name} takes {layer.in_features} channels; int4 needs a multiple of {min(INT4_GROUPS)}: use int8"
        )


def _configuration(precision: str, device: torch.device, width: int) -> Any:
    chosen = PRECISIONS[precision]
    assert chosen.config is not None
    try:
        return chosen.config(device.type, width)
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(
            f'{precision} weights need torchao {chosen.needs} or newer ({error}): pip install "chronoedit[quantize]"'
        ) from error
