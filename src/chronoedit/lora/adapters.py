"""LoRA files fused into a transformer's weights, and taken out again to the last bit."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from chronoedit.errors import CheckpointError, LoraError
from chronoedit.lora.dialects import LoraWeights, dialect_of
from chronoedit.model.headers import read_header, shown

_STATE = "_weights_before_loras"


@dataclass(frozen=True)
class Lora:
    """A LoRA file: its weights under our names, the dialect it was written in, and its bytes' sha256."""

    path: Path
    sha256: str
    dialect: str
    weights: LoraWeights

    @property
    def ranks(self) -> dict[int, int]:
        """How many modules have each rank."""
        return dict(Counter(layer.rank for layer in self.weights.layers.values()))


def read_lora(path: str | Path) -> Lora:
    """Read a LoRA from safetensors, in whichever of `LORA_DIALECTS` it is.

    Raises LoraError for a missing or damaged file, a pickle, or keys of no known dialect.
    """
    from safetensors.torch import load_file

    path = Path(path)
    try:
        header = read_header(path)
    except CheckpointError as error:
        raise LoraError(f"LoRA: {error}") from error
    try:
        dialect = dialect_of(header.tensors.keys())
        weights = dialect.to_ours(load_file(path), header.metadata)
    except LoraError as error:
        raise LoraError(f"LoRA {path}: {error}") from error
    return Lora(path, _sha256(path), dialect.name, weights)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fuse(dit: nn.Module, loras: Sequence[tuple[Lora, float]]) -> int:
    """Put a set of LoRAs, each with its scale, into the transformer's weights; returns how many weights changed.

    Each changed weight is W + Σ scale · alpha / r · B @ A, summed in fp32 and rounded once to W's type. A set that was
    fused before is taken out first; the weights before it are kept (off an accelerator, in host memory), so that
    `unfuse` is exact. Raises LoraError, the model untouched, when a file has a key that the transformer does not, or
    a factor of another shape.
    """
    changes = [_changes(lora, scale, dit) for lora, scale in loras]
    unfuse(dit)
    before: dict[str, Tensor] = {}
    parameters = dict(dit.named_parameters())
    for name in dict.fromkeys(name for change in changes for name in change):
        weight = parameters[name]
        before[name] = weight.data if weight.device.type == "cpu" else weight.data.cpu()
        total = weight.data.to(torch.promote_types(weight.dtype, torch.float32))
        for change in changes:
            if name in change:
                total = total + change[name].of(weight)
        weight.data = total.to(weight.dtype)
    setattr(dit, _STATE, before)
    return len(before)


def unfuse(dit: nn.Module) -> None:
    """Give the transformer back the weights that it had before `fuse`, bit for bit; nothing happens without one."""
    before: Mapping[str, Tensor] = getattr(dit, _STATE, {})
    parameters = dict(dit.named_parameters())
    for name, weight in before.items():
        parameters[name].data = weight.to(parameters[name].device, parameters[name].dtype)
    setattr(dit, _STATE, {})


@dataclass(frozen=True)
class _Change:
    """What one LoRA adds to one weight: `factors` (up, down) or a whole `difference`, times `scale`."""

    scale: float
    factors: tuple[Tensor, Tensor] | None = None
    difference: Tensor | None = None

    def of(self, weight: Tensor) -> Tensor:
        if self.difference is not None:
            return self.scale * self.difference.to(weight.device).float()
        assert self.factors is not None
        up, down = (factor.to(weight.device).float().flatten(1) for factor in self.factors)
        return (self.scale * (up @ down)).reshape(weight.shape)


def _changes(lora: Lora, scale: float, dit: nn.Module) -> dict[str, _Change]:
    """What a LoRA changes, by parameter, checked against the transformer."""
    shapes = {name: tuple(parameter.shape) for name, parameter in dit.named_parameters()}
    changes = {
        f"{module}.weight": _Change(scale * layer.scaling, factors=(layer.up, layer.down))
        for module, layer in lora.weights.layers.items()
    }
    changes |= {name: _Change(scale, difference=tensor) for name, tensor in lora.weights.differences.items()}
    foreign = [name for name in changes if name not in shapes] + list(lora.weights.unknown)
    if foreign:
        matched = len(changes) + len(lora.weights.unknown) - len(foreign)
        raise LoraError(
            f"LoRA {lora.path} ({lora.dialect}): {len(foreign)} keys are not in this model, {matched} are; it was made "
            f"for another model, or its image branch is missing here. The first: {shown(foreign)}"
        )
    if not changes:
        raise LoraError(f"LoRA {lora.path} ({lora.dialect}) changes nothing: it has no factors for this model")
    wrong = [f"{name} {_shape(change)} for {list(shapes[name])}" for name, change in changes.items()
             if _shape(change) != list(shapes[name])]  # fmt: skip
    if wrong:
        raise LoraError(f"LoRA {lora.path}: {len(wrong)} changes are of another shape ({shown(wrong)}); wrong model")
    if not math.isfinite(scale):
        raise ValueError(f"the LoRA scale is {scale}; a finite number is expected, such as 1.0")
    return changes


def _shape(change: _Change) -> list[int]:
    if change.difference is not None:
        return list(change.difference.shape)
    assert change.factors is not None
    up, down = change.factors
    if up.ndim < 2 or down.ndim < 2 or up.shape[1] != down.shape[0]:
        return [*up.shape, *down.shape]
    return [up.shape[0], *down.shape[1:]]
