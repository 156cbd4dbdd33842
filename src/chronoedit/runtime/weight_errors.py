"""How far a model's weights are from what they were: layer by layer, a block of the model in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from chronoedit.errors import CheckpointError
from chronoedit.model import keys
from chronoedit.model.headers import check_names
from chronoedit.model.tensors import TensorSource
from chronoedit.runtime.quantize import relative_error, stored_error


@dataclass(frozen=True, kw_only=True)
class WeightError:
    """The error of one weight, RMS over RMS; `layer` is its name within its block, `block` "" outside of them."""

    layer: str
    block: str
    error: float


@dataclass(frozen=True, kw_only=True)
class LayerErrors:
    """The errors of one kind of layer over all blocks; `block` has the largest."""

    layer: str
    mean: float
    largest: float
    block: str


def errors_of_precision(source: TensorSource, precision: str, device: torch.device) -> Iterator[WeightError]:
    """Those of the blocks' linear weights, stored in a precision, against their bf16. Raises as `quantize`."""
    for name, tensor in source.read(device):
        layer, block = _place(name)
        if block and name.endswith(".weight") and tensor.ndim == 2:
            yield WeightError(layer=layer, block=block, error=stored_error(tensor, precision))


def errors_against(source: TensorSource, reference: TensorSource, device: torch.device) -> Iterator[WeightError]:
    """Those of all parameters of a transformer against another's, as both are decoded.

    Raises CheckpointError, before any is read, where names or shapes differ.
    """
    found, expected = _shapes(source), _shapes(reference)
    check_names(found, expected, "the first model against the second", "they are not of one kind and size")
    groups: dict[str, list[str]] = {}
    for name in expected:
        groups.setdefault(_place(name)[1], []).append(name)
    for block, names in groups.items():
        exact = dict(_only(reference, names).read(device))
        for name, tensor in _only(source, names).read(device):
            yield WeightError(layer=_place(name)[0], block=block, error=relative_error(tensor, exact.pop(name)))


def by_layer(errors: Iterable[WeightError]) -> list[LayerErrors]:
    """The errors by kind of layer, in order of name, the blocks' first. Raises CheckpointError where there are none."""
    groups: dict[tuple[bool, str], list[WeightError]] = {}
    for each in errors:
        groups.setdefault((not each.block, each.layer), []).append(each)
    if not groups:
        raise CheckpointError("the model has no linear layers in blocks; expected a transformer of this kind")
    return [_summed(layer, groups[outside, layer]) for outside, layer in sorted(groups)]


def _summed(layer: str, errors: Sequence[WeightError]) -> LayerErrors:
    worst = max(errors, key=lambda each: each.error)
    mean = sum(each.error for each in errors) / len(errors)
    return LayerErrors(layer=layer, mean=mean, largest=worst.error, block=worst.block)


def _shapes(source: TensorSource) -> dict[str, tuple[int, ...]]:
    return {name: info.shape for name, info in source.tensors.items() if not keys.IGNORED_NAME.fullmatch(name)}


def _only(source: TensorSource, names: Sequence[str]) -> TensorSource:
    """The same source with these tensors alone; all that are opened here are dataclasses of tables by name."""
    return cast(TensorSource, replace(cast(Any, source), tensors={name: source.tensors[name] for name in names}))


def _place(name: str) -> tuple[str, str]:
    """The layer of a parameter and its block: `attn1.to_q` and `0` of `blocks.0.attn1.to_q.weight`."""
    parts = name.removesuffix(".weight").split(".")
    return (".".join(parts[2:]), parts[1]) if parts[0] == "blocks" else (".".join(parts), "")
