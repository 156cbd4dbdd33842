"""The weights of a transformer's blocks in 16, 8 or 4 bits, for inference and as the frozen base of a LoRA.

Only the linear layers of the repeated blocks are changed, where nearly all weights are; embedders, time path, norms
and head stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from chronoedit.errors import MissingExtraError
from chronoedit.runtime.frozen import as_used, blocks_of, freeze, frozen_linears, is_quantised

INT4_GROUP = 128
"""Weights of a row that share a scale."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How weights are stored: `bytes_a_weight`, scales aside, and torchao's configuration, None where it is not needed.

    Where `trains`, gradients flow through the layers. `devices` are those that can compute with it; None: all.
    """

    bytes_a_weight: float
    config: Callable[[Any], Any] | None = None
    trains: bool = True
    devices: tuple[str, ...] | None = None


PRECISIONS = {
    "bf16": Precision(bytes_a_weight=2),
    "fp8": Precision(
        bytes_a_weight=1,
        config=lambda ao: ao.Float8WeightOnlyConfig(set_inductor_config=False),
        devices=("cpu", "cuda"),
    ),
    "int8": Precision(bytes_a_weight=1, config=lambda ao: ao.Int8WeightOnlyConfig(set_inductor_config=False)),
    "int4": Precision(
        bytes_a_weight=0.5,
        config=lambda ao: ao.Int4WeightOnlyConfig(
            group_size=INT4_GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        ),
        trains=False,
        devices=("cuda",),
    ),
}
"""By name. fp8 is e4m3; fp8 and int8 have a scale a row, int4 one for each `INT4_GROUP` weights of it."""


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
        _configuration(precision, chosen.config)


def quantize(transformer: nn.Module, precision: str, on: torch.device | None = None) -> None:
    """Store the linear weights of the transformer's blocks in this precision, in place, one layer after the other.

    All but int4 are then brought to the type of their input each time they are used, backward too (see `frozen`), and
    may get a LoRA before or after. A LoRA that is to be fused must be so before. Weights stay on their device; with
    `on` each visits that one to be made smaller, for what only a GPU can make, and they never lie there all at once.
    Raises ValueError for weights in training or quantised already, and what `check_precision` does.
    """
    layers = frozen_linears(transformer, range(len(blocks_of(transformer))))
    for name, layer in layers:
        _refuse(name, layer, precision, on or layer.weight.device)
    config = PRECISIONS[precision].config
    if config is None:
        for _, layer in layers:
            freeze(layer, layer.weight.detach().to(torch.bfloat16))
        return
    from torchao.quantization import quantize_

    configuration = _configuration(precision, config)
    for _, layer in layers:
        home = layer.weight.device
        quantize_(layer.to(on or home), configuration)
        layer.to(home)
        if PRECISIONS[precision].trains:
            freeze(layer, layer.weight.detach())


def stored_error(weight: torch.Tensor, precision: str) -> float:
    """How far a linear layer's weight, `out in`, is from its bf16 once it is stored so: RMS of the difference over RMS.

    For inputs without a pattern this is the relative error of the layer's output too. Raises as `quantize`.
    """
    exact = weight.to(torch.bfloat16)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.bfloat16, device=weight.device)
    layer.weight = nn.Parameter(exact.clone(), requires_grad=False)
    config = PRECISIONS[precision].config
    _refuse("a weight", layer, precision, weight.device)
    if config is None:
        return 0.0
    from torchao.quantization import quantize_

    quantize_(layer, _configuration(precision, config))
    stored = as_used(layer.weight.detach(), weight.device, torch.float32)
    return float((stored - exact.float()).norm() / exact.float().norm())


def _refuse(name: str, layer: nn.Linear, precision: str, device: torch.device) -> None:
    """Raise for a layer that cannot be stored so; all are asked before the first is changed."""
    weight = layer.weight
    check_precision(precision, device)
    if is_quantised(weight):
        raise ValueError(f"{name} is quantised already; load the model again to have it in {precision}")
    if precision == "int4" and (weight.dtype != torch.bfloat16 or layer.in_features % INT4_GROUP):
        raise ValueError(
            f"{name} takes {layer.in_features} channels in {weight.dtype}; int4 needs a multiple of {INT4_GROUP} in "
            "bfloat16: use int8"
        )


def _configuration(precision: str, config: Callable[[Any], Any]) -> Any:
    try:
        import torchao.quantization as ao

        return config(ao)
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(
            f'{precision} weights need torchao 0.16 or newer ({error}): pip install "chronoedit[quantize]"'
        ) from error
