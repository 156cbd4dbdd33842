"""The spellings of LoRA files: how each names modules and factors, and how it becomes ours.

A factor pair is `down` (A: r in …) and `up` (B: out r …); a layer's weight changes by alpha / r · up @ down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from chronoedit.errors import LoraError
from chronoedit.model import keys
from chronoedit.model.headers import shown

PEFT_METADATA = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's settings in a file's metadata, as JSON with a component's name before each key."""

UNSUPPORTED = {
    "LoKr": re.compile(r"\.lokr_(?:w1|w2|t2)(?:_[ab])?$"),
    "LoHa": re.compile(r"\.hada_(?:w1|w2|t1|t2)(?:_[ab])?$"),
    "DoRA": re.compile(r"\.(?:dora_scale|lora_magnitude_vector(?:\.\w+)*)$"),
    "OFT": re.compile(r"\.oft_(?:blocks|diag|R)(?:\.\w+)*$"),
}
"""Kinds of adapters that are no sum of low-rank factors, by what their keys end in."""

_ROLES = re.compile(
    r"(?P<module>.+?)\.(?:"
    r"(?P<down>lora_A(?:\.\w+)?\.weight|lora_down\.weight|lora\.down\.weight)|"
    r"(?P<up>lora_B(?:\.\w+)?\.weight|lora_up\.weight|lora\.up\.weight)|"
    r"(?P<alpha>alpha)|(?P<diff>diff)|(?P<diff_b>diff_b))"
)


@dataclass(frozen=True)
class LoraLayer:
    """The change of one weight: `down` r in …, `up` out r …; without `alpha` it counts as r."""

    down: Tensor
    up: Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        """The number of rows of `down`."""
        return self.down.shape[0]

    @property
    def scaling(self) -> float:
        """What up @ down is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


@dataclass(frozen=True)
class LoraWeights:
    """A LoRA under our names: factor pairs by module, whole differences by parameter, and keys nothing is known of."""

    layers: Mapping[str, LoraLayer]
    differences: Mapping[str, Tensor] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoraDialect:
    """One spelling: whether a file's keys are in it, and the translations; `to_ours` takes tensors and metadata."""

    name: str
    matches: Callable[[Collection[str]], bool]
    to_ours: Callable[[Mapping[str, Tensor], Mapping[str, str]], LoraWeights]
    from_ours: Callable[[LoraWeights], dict[str, Tensor]]


def dialect_of(names: Collection[str]) -> LoraDialect:
    """The dialect that a file's keys are in.

    Raises LoraError for a kind of adapter that is no LoRA, and with the first ten keys when they are in no dialect.
    """
    for kind, ending in UNSUPPORTED.items():
        found = sorted(name for name in names if ending.search(name))
        if found:
            raise LoraError(
                f"{len(found)} of {len(names)} keys are of a {kind}, which is not supported ({shown(found)}); "
                "merge it into a checkpoint with the program that made it, or use a plain LoRA"
            )
    for dialect in LORA_DIALECTS.values():
        if dialect.matches(names):
            return dialect
    raise LoraError(
        f"none of the {len(names)} keys is of a known LoRA dialect ({', '.join(LORA_DIALECTS)}); "
        f"the first are {shown(sorted(names))}"
    )


@dataclass(frozen=True)
class Spelling:
    """What the dialects differ in: the prefix, the modules' names, the factors' names, and whether alpha is kept.

    The first prefix is written, any is read. `module_to_ours` gives None for a module that the transformer cannot have.
    """

    prefixes: tuple[str, ...]
    module_to_ours: Callable[[str], str | None]
    module_from_ours: Callable[[str], str | None]
    down: str
    up: str
    keeps_alpha: bool


def spelled(name: str, spelling: Spelling) -> LoraDialect:
    """A dialect whose keys are prefix, module, role."""
    return LoraDialect(
        name,
        lambda names: any(_parse(key, spelling) is not None for key in names),
        lambda tensors, metadata: _to_ours(tensors, metadata, spelling),
        lambda weights: _from_ours(weights, spelling),
    )


def _parse(key: str, spelling: Spelling) -> tuple[str, str] | None:
    """(our module, role) of a key, or None when it is not in this spelling."""
    for prefix in spelling.prefixes:
        found = _ROLES.fullmatch(key[len(prefix) :]) if key.startswith(prefix) else None
        module = spelling.module_to_ours(found["module"]) if found else None
        if found is not None and module is not None and found.lastgroup is not None:
            return module, found.lastgroup
    return None


def _to_ours(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], spelling: Spelling) -> LoraWeights:
    parts: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    differences: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        parsed = _parse(key, spelling)
        if parsed is None:
            unknown.append(key)
        elif parsed[1] == "diff":
            differences[f"{parsed[0]}.weight"] = tensor
        elif parsed[1] == "diff_b":
            differences[f"{parsed[0]}.bias"] = tensor
        else:
            parts.setdefault(parsed[0], {})[parsed[1]] = tensor
    incomplete = [module for module, part in parts.items() if not {"down", "up"} <= set(part)]
    if incomplete:
        raise LoraError(f"{len(incomplete)} modules have one factor of two ({shown(incomplete)}); the file is damaged")
    layers = {
        module: LoraLayer(part["down"], part["up"], float(part["alpha"]) if "alpha" in part else None)
        for module, part in parts.items()
    }
    return LoraWeights(_with_peft_alphas(layers, metadata), differences, tuple(unknown))


def _with_peft_alphas(layers: dict[str, LoraLayer], metadata: Mapping[str, str]) -> dict[str, LoraLayer]:
    """Alphas from PEFT's settings, for layers whose file gives them no tensor."""
    if PEFT_METADATA not in metadata:
        return layers
    settings = _peft_settings(metadata[PEFT_METADATA])
    unsupported = [key for key in ("use_rslora", "use_dora", "lora_bias") if settings.get(key)]
    if unsupported:
        raise LoraError(f"the file was made with {', '.join(unsupported)}, which cannot be fused; merge it with PEFT")
    patterns = settings.get("alpha_pattern") or {}
    alphas = {
        module: next((value for pattern, value in patterns.items() if _ends_with(module, pattern)), None)
        for module in layers
    }
    default = settings.get("lora_alpha")
    return {
        module: layer if layer.alpha is not None else replace(layer, alpha=_number(alphas[module], default))
        for module, layer in layers.items()
    }


def _peft_settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise LoraError(f"the file's {PEFT_METADATA} is no JSON ({error}); remove it, or save the LoRA anew") from error
    return {key.removeprefix("transformer."): value for key, value in settings.items()}


def _ends_with(module: str, pattern: str) -> bool:
    return module == pattern or module.endswith(f".{pattern}")


def _number(*choices: Any) -> float | None:
    return next((float(choice) for choice in choices if choice is not None), None)


def _from_ours(weights: LoraWeights, spelling: Spelling) -> dict[str, Tensor]:
    if weights.unknown:
        raise LoraError(
            f"{len(weights.unknown)} keys have no place in another dialect ({shown(list(weights.unknown))})"
        )
    tensors: dict[str, Tensor] = {}
    for module, layer in weights.layers.items():
        stem = spelling.prefixes[0] + _foreign(module, spelling)
        if layer.alpha is not None and spelling.keeps_alpha:
            tensors[f"{stem}.alpha"] = torch.tensor(layer.alpha)
        folded = layer.scaling if not spelling.keeps_alpha else 1.0
        up = layer.up if folded == 1.0 else (layer.up.float() * folded).to(layer.up.dtype)
        tensors |= {f"{stem}.{spelling.down}.weight": layer.down, f"{stem}.{spelling.up}.weight": up}
    for name, tensor in weights.differences.items():
        module, _, leaf = name.rpartition(".")
        role = "diff" if leaf == "weight" else "diff_b"
        tensors[f"{spelling.prefixes[0]}{_foreign(module, spelling)}.{role}"] = tensor
    return tensors


def _foreign(module: str, spelling: Spelling) -> str:
    foreign = spelling.module_from_ours(module)
    if foreign is None:
        raise LoraError(f"{module} has no name in this dialect; it is no module of the transformer")
    return foreign


def _own(module: str) -> str | None:
    return module if keys.module_to_original(module) is not None else None


def _flat_to_ours(module: str) -> str | None:
    return _FLAT_NAMES.get(re.sub(r"^blocks_\d+_", "blocks_#_", module), "").replace("#", _first_number(module)) or None


def _flat_from_ours(module: str) -> str | None:
    original = keys.module_to_original(module)
    return None if original is None else original.replace(".", "_")


def _first_number(module: str) -> str:
    found = re.match(r"blocks_(\d+)_", module)
    return "" if found is None else found[1]


_FLAT_NAMES = {
    **{original.replace(".", "_"): ours for original, ours in keys.TOP_NAMES.items()},
    **{f"blocks_#_{original.replace('.', '_')}": f"blocks.#.{ours}" for original, ours in keys.BLOCK_NAMES.items()},
}
"""Where dots are written as `_`, a name cannot be taken apart (`k_img`); so every name that there is stands here."""

PEFT_PREFIX = "base_model.model."
_DIFFUSERS = Spelling(
    ("transformer.", f"{PEFT_PREFIX}transformer.", PEFT_PREFIX), _own, _own, "lora_A", "lora_B", False
)
_COMFYUI = Spelling(
    ("diffusion_model.", "model.diffusion_model."),
    keys.module_to_ours,
    keys.module_to_original,
    "lora_down",
    "lora_up",
    keeps_alpha=True,
)
_KOHYA = replace(_COMFYUI, prefixes=("lora_unet_",), module_to_ours=_flat_to_ours, module_from_ours=_flat_from_ours)
_DIFFSYNTH = replace(
    _COMFYUI, prefixes=("", "pipe.dit."), down="lora_A.default", up="lora_B.default", keeps_alpha=False
)

LORA_DIALECTS: dict[str, LoraDialect] = {
    dialect.name: dialect
    for dialect in (
        spelled("diffusers", _DIFFUSERS),
        spelled("comfyui", _COMFYUI),
        spelled("kohya", _KOHYA),
        spelled("diffsynth", _DIFFSYNTH),
    )
}
"""diffusers and PEFT (`transformer.<ours>.lora_A.weight`); ComfyUI and ai-toolkit (`diffusion_model.<original>…`);
kohya and musubi (`lora_unet_blocks_0_self_attn_q.lora_down.weight`); DiffSynth, the published training's
(`blocks.0.self_attn.q.lora_A.default.weight`)."""
