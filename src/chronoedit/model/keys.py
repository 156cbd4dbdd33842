"""The transformer's parameter names and shapes: ours (those of the published checkpoint) and the original Wan's.

Every foreign name of the transformer lives in the tables here. Nothing here imports torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chronoedit.errors import CheckpointError
from chronoedit.model.headers import shown

IGNORED_NAME = re.compile(r"blocks\.\d+\.attn2\.norm_added_q\.weight")
"""The one parameter that the original layout carries and nothing uses."""

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "pipe.dit.", "module.")
"""What other programs put before every name of the transformer."""

OUTPUT_LAYERS = {"head.head.weight": "original", "proj_out.weight": "ours"}
"""The output layer's name in each layout; both have it, and by no common name."""

WRAPPERS = frozenset({"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
"""What DDP, torch.compile, activation checkpointing and FSDP put into the names of a model in training."""

HOLDERS = frozenset({"model", "net", "state_dict", "app", "transformer", "diffusion_model", "pipe", "dit"})
"""What trainers put before the names of the weights: ours `model.`, the published one `net.`."""

AVERAGES = frozenset({"ema", "net_ema", "model_ema", "ema_model"})
"""One of these is before the names of averaged weights: ours `ema.`, the published one's `net_ema.`."""

OTHER_STATES = frozenset({
    "optim", "optimizer", "optimizers", "optimizer_states", "state", "param_groups", "scheduler", "lr_scheduler",
    "lr_schedulers", "scaler", "grad_scaler", "trainer", "train_state", "progress", "step", "iteration", "epoch",
    "dataloader", "rng", "rng_state",
})  # fmt: skip
"""What a training state has at its top beside weights that have no prefix."""

_NO_WEIGHT = re.compile(r"(.*\.)?(_extra_state|accum_\w+)")
"""Transformer-engine's states, and counters of samples and hours, which the published training keeps in the model."""

TOP_NAMES = {
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "patch_embedding": "patch_embedding",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_IMAGE = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k", "norm_q_img": "norm_added_q"}
BLOCK_NAMES = {
    **{f"self_attn.{original}": f"attn1.{ours}" for original, ours in _ATTENTION.items()},
    **{f"cross_attn.{original}": f"attn2.{ours}" for original, ours in {**_ATTENTION, **_IMAGE}.items()},
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "norm3": "norm2",
    "modulation": "scale_shift_table",
}
"""Within one block; norms 2 and 3 have each other's names in the two layouts, and ours has no parameters in norm3."""

_BLOCK = re.compile(r"(blocks\.\d+)\.(.+)")
_LEAVES = (".weight", ".bias")


def _module_map(*, to_ours: bool) -> tuple[dict[str, str], dict[str, str]]:
    if to_ours:
        return TOP_NAMES, BLOCK_NAMES
    return {ours: original for original, ours in TOP_NAMES.items()}, {b: a for a, b in BLOCK_NAMES.items()}


_TO_OURS = _module_map(to_ours=True)
_TO_ORIGINAL = _module_map(to_ours=False)


def _renamed(module: str, tables: tuple[dict[str, str], dict[str, str]]) -> str | None:
    top, blocks = tables
    found = _BLOCK.fullmatch(module)
    if found is None:
        return top.get(module)
    inner = blocks.get(found[2])
    return None if inner is None else f"{found[1]}.{inner}"


def module_to_ours(module: str) -> str | None:
    """Our name of an original Wan module (or bare parameter), such as `blocks.0.self_attn.q`; None if unknown."""
    return _renamed(module, _TO_OURS)


def module_to_original(module: str) -> str | None:
    """The original Wan name of one of our modules (or bare parameters), such as `blocks.0.attn1.to_q`."""
    return _renamed(module, _TO_ORIGINAL)


def _split_leaf(name: str) -> tuple[str, str]:
    for leaf in _LEAVES:
        if name.endswith(leaf):
            return name[: -len(leaf)], leaf
    return name, ""


def to_ours(name: str) -> str | None:
    """Our name of an original Wan parameter, without prefix; None if there is none."""
    module, leaf = _split_leaf(name)
    renamed = module_to_ours(module)
    return None if renamed is None else renamed + leaf


def to_original(name: str) -> str | None:
    """The original Wan name of one of our parameters; None if there is none."""
    module, leaf = _split_leaf(name)
    renamed = module_to_original(module)
    return None if renamed is None else renamed + leaf


def layout_of(names: Iterable[str]) -> tuple[str, str] | None:
    """Which layout a transformer's names are in: ("ours" or "original", prefix), or None if they are neither.

    Told by the output layer, which both layouts have under different names.
    """
    present = set(names)
    for prefix in ("", *PREFIXES):
        for layer, layout in OUTPUT_LAYERS.items():
            if prefix + layer in present:
                return layout, prefix
    return None


def names_to_ours(names: Iterable[str], where: str | Path) -> dict[str, str]:
    """Our name for each name of a transformer in either layout, with or without a prefix.

    Names that only the strict check can judge (unknown ones, foreign ones) are kept as they are, so that it reports
    them. Raises CheckpointError when the names are no transformer's of this kind.
    """
    names = list(names)
    layout = layout_of(names)
    if layout is None:
        raise CheckpointError(
            f"{where} holds no transformer of this kind: neither head.head.weight (original names) nor "
            f"proj_out.weight (published names) is among its {len(names)} tensors"
        )
    kind, prefix = layout
    renamed = {}
    for name in names:
        bare = name.removeprefix(prefix)
        ours = to_ours(bare) if kind == "original" else bare
        renamed[name] = ours if ours is not None and name.startswith(prefix) else name
    return renamed


def training_roots(names: Iterable[str]) -> dict[str, str]:
    """The transformers of a training state: what is before their names, and what each is.

    "weights", "average", or "other" (a teacher, say). Wrappers are left out of the names, and the dashes that some
    trainers write instead of dots in an average's are dots again.
    """
    roots: dict[str, str] = {}
    for name in names:
        plain = _unwrapped(name)
        for layer in OUTPUT_LAYERS:
            if plain == layer or plain.endswith(f".{layer}"):
                root = plain.removesuffix(layer)
                roots[root] = _kind_of_root(frozenset(root.split(".")[:-1]))
    return roots


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.replace("-", ".").split(".") if part not in WRAPPERS)


def _kind_of_root(parts: frozenset[str]) -> str:
    if parts & AVERAGES:
        return "average"
    return "weights" if parts <= HOLDERS else "other"


def training_names(names: Iterable[str], *, average: bool, where: str | Path) -> dict[str, str]:
    """Our name for each name of the weights (or the averaged weights) of a training state; all others are left out.

    Raises CheckpointError that says what there is when that is not there, or when names of the model are unknown.
    """
    names = list(names)
    roots = training_roots(names)
    root = _chosen_root(roots, len(names), average, where)
    bare = names_below(root, roots, names)
    original = "head.head.weight" in bare.values()
    renamed: dict[str, str] = {}
    taken: set[str | None] = {None}
    unknown: list[str] = []
    for name, inner in bare.items():
        ours = to_ours(inner) if original else inner if to_original(inner) is not None else None
        if ours is None or ours in taken:
            unknown.append(name)
        else:
            renamed[name] = ours
            taken.add(ours)
    if unknown:
        raise CheckpointError(
            f"{where}: {len(unknown)} names {_under(root)} are no parameters of this transformer, or are there twice "
            f"({shown(unknown)})"
        )
    return renamed


def names_below(root: str, roots: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """The names in a training state of one of its transformers, and what each is without the root."""
    inner = tuple(other for other in roots if other != root and other.startswith(root))
    bare = {}
    for name in names:
        plain = _unwrapped(name)
        if not plain.startswith(root) or plain.startswith(inner) or _NO_WEIGHT.fullmatch(plain):
            continue
        if root or plain.split(".")[0] not in OTHER_STATES:
            bare[name] = plain.removeprefix(root)
    return bare


def convolution_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a weight has here: the published trainer's patches go through a linear layer, of the same values.

    Any other shape is left to the strict check.
    """
    patch: tuple[int, ...] = OPTIONAL_KEYS["patch_size"]
    if name == "patch_embedding.weight" and len(shape) == 2 and shape[1] % math.prod(patch) == 0:
        return shape[0], shape[1] // math.prod(patch), *patch
    return shape


def _under(root: str) -> str:
    return f"under {root!r}" if root else "without a prefix"


def _chosen_root(roots: Mapping[str, str], count: int, average: bool, where: str | Path) -> str:
    wanted = "average" if average else "weights"
    chosen = [root for root, kind in roots.items() if kind == wanted]
    if len(chosen) == 1:
        return chosen[0]
    there = ", ".join(f"{kind} {_under(root)}" for root, kind in roots.items())
    if not roots:
        raise CheckpointError(
            f"{where} holds no transformer of this kind: no name among its {count} tensors ends in "
            f"{' or '.join(OUTPUT_LAYERS)} (an optimiser's folder? the model's lies beside it)"
        )
    if chosen:
        raise CheckpointError(f"{where} holds more than one transformer that could be meant: {there}")
    remedy = "leave --ema out" if average else "the average is taken with --ema" if "average" in roots.values() else ""
    missing = "averaged weights" if average else "weights that are no average"
    raise CheckpointError(f"{where} has no {missing}; there are: {there}{'; ' * bool(remedy)}{remedy}")


SHAPE_KEYS = (
    "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "text_dim", "freq_dim", "ffn_dim",
    "num_layers",
)  # fmt: skip
OPTIONAL_KEYS: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "cross_attn_norm": True,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "pos_embed_seq_len": None,
}
OTHER_KEYS = ("qk_norm", "eps", "rope_max_seq_len", "rope_temporal_skip_len")


def check_config(config: Mapping[str, Any], where: str | Path) -> dict[str, Any]:
    """A transformer's `config.json` as the arguments of its class, checked for names, types and agreement.

    The class name is dropped: every mirror is loaded as the same model. Raises CheckpointError.
    """
    known = (*SHAPE_KEYS, *OPTIONAL_KEYS, *OTHER_KEYS)
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    unknown = sorted(key for key, value in given.items() if key not in known and value is not None)
    if unknown:
        raise CheckpointError(f"{where} has unknown keys {', '.join(unknown)}; known are {', '.join(known)}")
    arguments = {key: value for key, value in given.items() if key in known}
    missing = [key for key in SHAPE_KEYS if key not in arguments and key != "out_channels"]
    if missing:
        raise CheckpointError(f"{where} lacks {', '.join(missing)}; is it a transformer's config.json?")
    if arguments.get("out_channels") is None:
        arguments["out_channels"] = arguments["in_channels"]
    for key in SHAPE_KEYS:
        if type(arguments[key]) is not int or arguments[key] < 1:
            raise CheckpointError(f"{where}: {key} is {arguments[key]!r}; a whole number of at least 1 is expected")
    _check_optional(arguments, where)
    return arguments


def _check_optional(arguments: Mapping[str, Any], where: str | Path) -> None:
    for key in ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len"):
        value = arguments.get(key)
        if value is not None and (type(value) is not int or value < 1):
            raise CheckpointError(f"{where}: {key} is {value!r}; a whole number or null is expected")
    patch = arguments.get("patch_size", OPTIONAL_KEYS["patch_size"])
    if not isinstance(patch, list | tuple) or len(patch) != 3 or any(type(side) is not int for side in patch):
        raise CheckpointError(f"{where}: patch_size is {patch!r}; three whole numbers (t, h, w) are expected")
    if (arguments.get("image_dim") is None) != (arguments.get("added_kv_proj_dim") is None):
        raise CheckpointError(f"{where}: image_dim and added_kv_proj_dim go together; give both or neither")


def expected_shapes(arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of the transformer with these (checked) arguments."""
    a = {**OPTIONAL_KEYS, **arguments}
    dim = a["num_attention_heads"] * a["attention_head_dim"]
    patch = tuple(a["patch_size"])
    shapes: dict[str, tuple[int, ...]] = {
        "scale_shift_table": (1, 2, dim),
        "patch_embedding.weight": (dim, a["in_channels"], *patch),
        "patch_embedding.bias": (dim,),
        **_linear("condition_embedder.time_embedder.linear_1", dim, a["freq_dim"]),
        **_linear("condition_embedder.time_embedder.linear_2", dim, dim),
        **_linear("condition_embedder.time_proj", 6 * dim, dim),
        **_linear("condition_embedder.text_embedder.linear_1", dim, a["text_dim"]),
        **_linear("condition_embedder.text_embedder.linear_2", dim, dim),
        **_linear("proj_out", a["out_channels"] * math.prod(patch), dim),
    }
    if a["image_dim"] is not None:
        shapes.update(_image_embedder(dim, a["image_dim"], a["pos_embed_seq_len"]))
    for index in range(a["num_layers"]):
        shapes.update(_block(f"blocks.{index}", dim, a))
    return shapes


def _linear(name: str, wide: int, narrow: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (wide, narrow), f"{name}.bias": (wide,)}


def _image_embedder(dim: int, image_dim: int, positions: int | None) -> dict[str, tuple[int, ...]]:
    name = "condition_embedder.image_embedder"
    shapes: dict[str, tuple[int, ...]] = {} if positions is None else {f"{name}.pos_embed": (1, positions, image_dim)}
    for norm, width in (("norm1", image_dim), ("norm2", dim)):
        shapes |= {f"{name}.{norm}.weight": (width,), f"{name}.{norm}.bias": (width,)}
    feed_forward = _linear(f"{name}.ff.net.0.proj", image_dim, image_dim) | _linear(f"{name}.ff.net.2", dim, image_dim)
    return shapes | feed_forward


def _block(name: str, dim: int, a: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.scale_shift_table": (1, 6, dim)}
    for attention in ("attn1", "attn2"):
        for linear in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes |= _linear(f"{name}.{attention}.{linear}", dim, dim)
        shapes |= {f"{name}.{attention}.{norm}.weight": (dim,) for norm in ("norm_q", "norm_k")}
    if a["added_kv_proj_dim"] is not None:
        for linear in ("add_k_proj", "add_v_proj"):
            shapes |= _linear(f"{name}.attn2.{linear}", dim, a["added_kv_proj_dim"])
        shapes[f"{name}.attn2.norm_added_k.weight"] = (dim,)
    if a["cross_attn_norm"]:
        shapes |= {f"{name}.norm2.weight": (dim,), f"{name}.norm2.bias": (dim,)}
    wide = _linear(f"{name}.ffn.net.0.proj", a["ffn_dim"], dim)
    return shapes | wide | _linear(f"{name}.ffn.net.2", dim, a["ffn_dim"])
