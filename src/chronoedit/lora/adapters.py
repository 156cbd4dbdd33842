"""LoRA files fused into a transformer's weights, or kept beside stored ones; taken out again to the last bit."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from chronoedit.errors import CheckpointError, LoraError
from chronoedit.lora.dialects import PEFT_METADATA, PEFT_PREFIX, LoraLayer, LoraWeights, dialect_of
from chronoedit.model.headers import Header, read_header, shown
from chronoedit.model.stored import Addition, StoredWeight
from chronoedit.model.tensors import convert

logger = logging.getLogger(__name__)

PATCH = "patch_embedding"
_STATE = "_weights_before_loras"


@dataclass(frozen=True)
class Lora:
    """A LoRA file: its weights under our names, the dialect it was written in, its bytes' sha256, its metadata."""

    path: Path
    sha256: str
    dialect: str
    weights: LoraWeights
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def ranks(self) -> dict[int, int]:
        """How many modules have each rank."""
        return dict(Counter(layer.rank for layer in self.weights.layers.values()))


def read_lora(path: str | Path) -> Lora:
    """Read a LoRA from safetensors, in whichever of `LORA_DIALECTS` it is.

    A file that PEFT itself saved has its alpha in `adapter_config.json` beside it, which is read too.
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
        weights = dialect.to_ours(load_file(path), header.metadata | _peft_config(path, header))
    except LoraError as error:
        raise LoraError(f"LoRA {path}: {error}") from error
    return Lora(path, _sha256(path), dialect.name, weights, header.metadata)


def _peft_config(path: Path, header: Header) -> dict[str, str]:
    """The settings beside a file that PEFT saved, as diffusers would have put them into its metadata."""
    if PEFT_METADATA in header.metadata or not any(name.startswith(PEFT_PREFIX) for name in header.tensors):
        return {}
    beside = path.with_name("adapter_config.json")
    if not beside.is_file():
        raise LoraError(
            f"it was saved by PEFT, and its alpha is in an adapter_config.json; put that into {path.parent}"
        )
    return {PEFT_METADATA: beside.read_text(encoding="utf-8")}


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
    `unfuse` is exact. A `StoredWeight` cannot hold the sum in its few bits: it keeps B and A beside it, and the same
    sum is made whenever it is decoded. Raises LoraError, the model untouched, when a file has a key that the
    transformer does not, or a factor of another shape.
    """
    changes = [_changes(lora, scale, dit) for lora, scale in loras]
    unfuse(dit)
    before: dict[str, Tensor] = {}
    parameters = dict(dit.named_parameters())
    names = dict.fromkeys(name for change in changes for name in change)
    for name in names:
        weight, wanted = parameters[name], [change[name] for change in changes if name in change]
        if isinstance(weight, StoredWeight):
            weight.additions = [change.beside(weight.device) for change in wanted]
        else:
            convert(weight)
            before[name] = weight.data if weight.device.type == "cpu" else weight.data.cpu()
            _add(weight, wanted)
    setattr(dit, _STATE, before)
    return len(names)


def _add(weight: Tensor, changes: Sequence[_Change]) -> None:
    total = weight.data.to(torch.promote_types(weight.dtype, torch.float32))
    for change in changes:
        total = total + change.of(weight)
    weight.data = total.to(weight.dtype)


def unfuse(dit: nn.Module) -> None:
    """Give the transformer back the weights that it had before `fuse`, bit for bit; nothing happens without one."""
    before: Mapping[str, Tensor] = getattr(dit, _STATE, {})
    parameters = dict(dit.named_parameters())
    for name, weight in before.items():
        parameters[name].data = weight.to(parameters[name].device, parameters[name].dtype)
    for parameter in parameters.values():
        if isinstance(parameter, StoredWeight):
            parameter.additions = ()
    setattr(dit, _STATE, {})


def settle(dit: nn.Module) -> None:
    """Keep what is fused for good: the weights from before are forgotten, and their memory is free."""
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

    def beside(self, device: torch.device) -> Addition:
        """The same, to lie beside a stored weight; factors keep the type that they have in the file."""
        if self.difference is not None:
            return Addition(scale=self.scale, difference=self.difference.to(device))
        assert self.factors is not None
        up, down = (factor.to(device).flatten(1) for factor in self.factors)
        return Addition(scale=self.scale, up=up, down=down)


def _changes(lora: Lora, scale: float, dit: nn.Module) -> dict[str, _Change]:
    """What a LoRA changes, by parameter, checked against the transformer."""
    shapes = {name: tuple(parameter.shape) for name, parameter in dit.named_parameters()}
    layers = _widened(lora, shapes)
    changes = {
        f"{module}.weight": _Change(scale * layer.scaling, factors=(layer.up, layer.down))
        for module, layer in layers.items()
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


def _widened(lora: Lora, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, LoraLayer]:
    """The layers of a LoRA, one made for text-to-video fitted to a transformer that is conditioned on a picture.

    Such a one knows neither the image branch, which stays as it is, nor the channels after the noise's, for which
    `patch_embedding` gets zeros. Either is told.
    """
    layers = dict(lora.weights.layers)
    image = any(name.endswith("attn2.add_k_proj.weight") for name in shapes)
    if image and any(".attn2.to_k" in module for module in layers) and not any(".add_k_" in name for name in layers):
        logger.warning("LoRA %s has nothing for the image branch (k_img, v_img), which stays as it is", lora.path)
    patch, wanted = layers.get(PATCH), shapes.get(f"{PATCH}.weight", ())
    if patch is not None and patch.down.ndim == len(wanted) and patch.down.shape[1] < wanted[1]:
        missing = wanted[1] - patch.down.shape[1]
        logger.warning(
            "LoRA %s was made for text-to-video: it leaves %d condition channels as they are", lora.path, missing
        )
        zeros = patch.down.new_zeros(patch.rank, missing, *patch.down.shape[2:])
        layers[PATCH] = replace(patch, down=torch.cat([patch.down, zeros], dim=1))
    return layers


def _shape(change: _Change) -> list[int]:
    if change.difference is not None:
        return list(change.difference.shape)
    assert change.factors is not None
    up, down = change.factors
    if up.ndim < 2 or down.ndim < 2 or up.shape[1] != down.shape[0]:
        return [*up.shape, *down.shape]
    return [up.shape[0], *down.shape[1:]]
