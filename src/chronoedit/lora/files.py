"""LoRA files written, merged and described."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chronoedit.errors import LoraError
from chronoedit.lora.adapters import Lora
from chronoedit.lora.dialects import LORA_DIALECTS, PEFT_METADATA, LoraLayer, LoraWeights
from chronoedit.media import save_tensors
from chronoedit.model.headers import shown

TRIGGER_KEYS = ("trigger_words", "modelspec.trigger_phrase", "ss_trigger_words", "trigger_word")
"""Where programs keep the words that call a LoRA up, in a file's metadata; we write the first."""


def write_lora(weights: LoraWeights, path: Path, dialect: str, metadata: Mapping[str, str] | None = None) -> None:
    """Write a LoRA in one of `LORA_DIALECTS`, whole or not at all.

    Where the dialect has no alpha it is folded into the up factor (one rounding); elsewhere every bit is kept.
    Raises ValueError for an unknown dialect, LoraError for keys that have no place in it, OutputError.
    """
    if dialect not in LORA_DIALECTS:
        raise ValueError(f"there is no LoRA dialect {dialect!r}; choose one of {', '.join(LORA_DIALECTS)}")
    tensors = {name: tensor.contiguous() for name, tensor in LORA_DIALECTS[dialect].from_ours(weights).items()}
    # PEFT's settings say the alpha that is now in the weights: read again, they would count it twice
    kept = {key: value for key, value in (metadata or {}).items() if key != PEFT_METADATA}
    save_tensors(tensors, path, {"format": "pt", **kept})


def merge(loras: Sequence[tuple[Lora, float]]) -> LoraWeights:
    """One LoRA that changes each weight as all of them do, each with its scale: its rank is the sum of theirs.

    Factors are stood side by side, so nothing is approximated but for one rounding of the scaled up factors.
    Raises LoraError for keys without a place, or factors of one module that do not fit together; ValueError for none.
    """
    if not loras:
        raise ValueError("no LoRA was given to merge; give one or more")
    for lora, scale in loras:
        if lora.weights.unknown:
            raise LoraError(f"LoRA {lora.path}: {len(lora.weights.unknown)} keys are not of this kind of model")
        if not math.isfinite(scale):
            raise ValueError(f"the LoRA scale is {scale}; a finite number is expected, such as 1.0")
    modules = dict.fromkeys(module for lora, _ in loras for module in lora.weights.layers)
    names = dict.fromkeys(name for lora, _ in loras for name in lora.weights.differences)
    layers = {module: _merged_layer(module, loras) for module in modules}
    return LoraWeights(layers, {name: _merged_difference(name, loras) for name in names})


def _merged_layer(module: str, loras: Sequence[tuple[Lora, float]]) -> LoraLayer:
    parts = [(lora.weights.layers[module], scale) for lora, scale in loras if module in lora.weights.layers]
    if len(parts) == 1 and parts[0][1] == 1.0:
        return parts[0][0]
    shapes = {(layer.down.shape[1:], layer.up.shape[:1]) for layer, _ in parts}
    if len(shapes) > 1:
        raise LoraError(f"the LoRAs do not fit together: {module} has factors of {len(shapes)} shapes")
    ups = [(layer.up.float() * (scale * layer.scaling)).to(layer.up.dtype) for layer, scale in parts]
    return LoraLayer(_joined([layer.down for layer, _ in parts], 0), _joined(ups, 1))


def _joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return torch.cat([tensor.to(dtype) for tensor in tensors], dim=dim)


def _merged_difference(name: str, loras: Sequence[tuple[Lora, float]]) -> Tensor:
    parts = [(lora.weights.differences[name], scale) for lora, scale in loras if name in lora.weights.differences]
    if len({tensor.shape for tensor, _ in parts}) > 1:
        raise LoraError(f"the LoRAs do not fit together: their differences of {name} have several shapes")
    total = sum((scale * tensor.float() for tensor, scale in parts[1:]), parts[0][1] * parts[0][0].float())
    return total.to(parts[0][0].dtype)


@dataclass(frozen=True, kw_only=True)
class LoraDescription:
    """What a LoRA file is: how many modules have each rank and alpha, and how much it changes.

    `delta_norm` is the Frobenius norm of all that it adds at scale 1; 0 is a LoRA that does nothing.
    """

    dialect: str
    ranks: dict[int, int]
    alphas: dict[str, int]
    modules: list[str]
    differences: int
    unknown: list[str]
    dtypes: list[str]
    delta_norm: float
    trigger_words: str | None
    image_branch: bool

    def rows(self, shown_modules: int) -> list[tuple[str, str]]:
        """The description as titles and texts, with so many of the modules' names."""
        more = len(self.modules) - shown_modules
        modules = ", ".join(self.modules[:shown_modules]) + (f" and {more} more" if more > 0 else "")
        rows = [
            ("ranks", _counted(self.ranks)),
            ("alphas", _counted(self.alphas)),
            ("modules", f"{len(self.modules)}: {modules}"),
            ("whole differences", str(self.differences)),
            ("types", ", ".join(self.dtypes)),
            ("norm of the change", f"{self.delta_norm:.6g}" + ("" if self.delta_norm else " (it does nothing)")),
            ("image branch", "changed" if self.image_branch else "left as it is"),
            ("trigger words", self.trigger_words or "none are given"),
        ]
        if self.unknown:
            rows.append(("keys without a place", f"{len(self.unknown)}: {shown(self.unknown)}"))
        return rows


def _counted(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{value} ({count} modules)" for value, count in counts.items()) or "none"


def describe(lora: Lora) -> LoraDescription:
    """Describe a LoRA from its file alone."""
    layers, differences = lora.weights.layers, lora.weights.differences
    alphas: dict[str, int] = {}
    for layer in layers.values():
        key = "rank" if layer.alpha is None else f"{layer.alpha:g}"
        alphas[key] = alphas.get(key, 0) + 1
    tensors = [*differences.values(), *(t for layer in layers.values() for t in (layer.down, layer.up))]
    squares = [_delta_square(layer) for layer in layers.values()]
    squares += [float(tensor.double().square().sum()) for tensor in differences.values()]
    return LoraDescription(
        dialect=lora.dialect,
        ranks=dict(sorted(lora.ranks.items())),
        alphas=alphas,
        modules=list(layers),
        differences=len(differences),
        unknown=list(lora.weights.unknown),
        dtypes=sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}),
        delta_norm=math.sqrt(sum(squares)),
        trigger_words=trigger_words(lora.metadata),
        image_branch=any("add_k_proj" in module or "add_v_proj" in module for module in layers),
    )


def _delta_square(layer: LoraLayer) -> float:
    """|| scaling · up @ down ||² through the r × r Gram matrices, without the product itself."""
    down, up = layer.down.double().flatten(1), layer.up.double().flatten(1)
    return max(0.0, float(((up.T @ up) * (down @ down.T)).sum()) * layer.scaling**2)


def trigger_words(metadata: Mapping[str, str]) -> str | None:
    """The words that call a LoRA up, where its file says so."""
    found = next((metadata[key] for key in TRIGGER_KEYS if metadata.get(key)), None)
    if found is None:
        return None
    try:
        listed = json.loads(found)
    except ValueError:
        return found
    return ", ".join(map(str, listed)) if isinstance(listed, list) else found
