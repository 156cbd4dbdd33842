"""What a model is made of, read from its configs and the headers of its files: nothing is loaded.

The published model is known by its name, with nothing downloaded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chronoedit.errors import CheckpointError
from chronoedit.model import keys
from chronoedit.model.headers import TensorInfo, read_json, read_tensors_info, weight_files
from chronoedit.model.settings import ModelSettings, read_settings

PUBLISHED = "nvidia/ChronoEdit-14B-Diffusers"
MAX_TOKENS_BATCHED = 512
"""Up to this many latent tokens (all rows) both guidance branches go through one forward: small forwards are mostly
overhead. Beyond, one after the other takes the same time and half the memory."""

KEPT_IN_FP32 = frozenset({"time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"})
"""Parts of the transformer that stay in fp32 whatever the rest is in."""

TRANSFORMER_CONFIG: dict[str, Any] = {
    "num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 36, "out_channels": 16, "text_dim": 4096,
    "freq_dim": 256, "ffn_dim": 13824, "num_layers": 40, "image_dim": 1280, "added_kv_proj_dim": 5120,
}  # fmt: skip
TEXT_CONFIG: dict[str, Any] = {
    "vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64
}  # fmt: skip
IMAGE_CONFIG: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "patch_size": 14, "image_size": 224,
}  # fmt: skip
"""Configurations of the published model; its autoencoder's are the defaults of `AutoencoderShape`."""


class NotDownloaded(CheckpointError):
    """A model of the hub that is not in the cache, so that nothing is known of it."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a transformer; parameters of one block, and of all that is no block."""

    width: int
    ffn_dim: int
    heads: int
    layers: int
    block_parameters: int
    end_parameters: int
    image_branch: bool
    token_cells: int

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Shape:
        """That of a transformer with these arguments (`keys.check_config` of its config.json); nothing is loaded."""
        sizes = {name: math.prod(shape) for name, shape in keys.expected_shapes(arguments).items()}
        layers = arguments["num_layers"]
        blocks = sum(size for name, size in sizes.items() if name.startswith("blocks."))
        _, rows, columns = arguments.get("patch_size", (1, 2, 2))
        return cls(
            width=arguments["num_attention_heads"] * arguments["attention_head_dim"],
            ffn_dim=arguments["ffn_dim"],
            heads=arguments["num_attention_heads"],
            layers=layers,
            block_parameters=blocks // layers,
            end_parameters=sum(sizes.values()) - blocks,
            image_branch=arguments.get("image_dim") is not None,
            token_cells=rows * columns,
        )

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.layers * self.block_parameters + self.end_parameters

    @property
    def prompt_parameters(self) -> int:
        """Of one block: those of the layers that see prompts alone (see `offload.PROMPT_LAYERS`)."""
        return (4 if self.image_branch else 2) * self.width * (self.width + 1)

    def tokens(self, latent_frames: int, height: int, width: int, cell_px: int = 8) -> int:
        """Video tokens of an example of this size in pixels; a cell of the latents has `cell_px` pixels a side."""
        return latent_frames * (height // cell_px) * (width // cell_px) // self.token_cells


@dataclass(frozen=True, kw_only=True)
class AutoencoderShape:
    """The sizes of an `AutoencoderKLWan`; the defaults are its own, which are the published ones."""

    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    in_channels: int = 3
    out_channels: int = 3
    patch_size: int | None = None
    scale_factor_temporal: int = 4
    scale_factor_spatial: int = 8

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> AutoencoderShape:
        """That of a `config.json`; what it leaves out is as published."""
        known = [name for name in cls.__dataclass_fields__ if config.get(name) is not None]
        given: dict[str, Any] = {name: config[name] for name in known}
        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        return cls(**arguments)


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """The sizes of the text or the image encoder; `tokens` is what it always reads."""

    width: int
    ffn_dim: int
    heads: int
    layers: int
    tokens: int
    gated: bool


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part of a model: parameters by stored type, and how many of them are computed with in fp32 in any case.

    Of a single file in fp8 or GGUF, `as_stored` parameters stay as they are, in `as_stored_bytes`.
    """

    name: str
    stored: Mapping[str, int]
    in_fp32: int = 0
    as_stored: int = 0
    as_stored_bytes: int = 0

    @property
    def parameters(self) -> int:
        """All of them."""
        return sum(self.stored.values())

    def bytes(self, weight_bytes: int) -> int:
        """As it lies in memory, where weights take `weight_bytes` each unless they stay in fp32."""
        return (
            weight_bytes * (self.parameters - self.in_fp32 - self.as_stored) + 4 * self.in_fp32 + self.as_stored_bytes
        )

    def mapped_bytes(self, weight_bytes: int) -> int:
        """Of these, what the CPU maps from a file of the same type: the system can drop it and read it again."""
        wanted = "F32" if weight_bytes == 4 or self.in_fp32 == self.parameters else "BF16"
        if set(self.stored) != {wanted}:
            return self.as_stored_bytes
        return self.bytes(weight_bytes) - (4 * self.in_fp32 if wanted == "BF16" else 0)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model's components by name, the sizes that its activations follow from, and its settings."""

    name: str
    settings: ModelSettings
    transformer: Shape
    autoencoder: AutoencoderShape
    text: EncoderShape
    image: EncoderShape | None
    components: Mapping[str, Component] = field(repr=False)

    @property
    def token_side_px(self) -> int:
        """The side of a token: sizes of edits are multiples of it."""
        return self.autoencoder.scale_factor_spatial * round(math.sqrt(self.transformer.token_cells))

    def tokens(self, latent_frames: int, height: int, width: int) -> int:
        """Video tokens of an edit."""
        return self.transformer.tokens(latent_frames, height, width, self.autoencoder.scale_factor_spatial)


def read_facts(path_or_id: str | Path, base: str | Path | None = None) -> ModelFacts:
    """The facts of a model by embedded name, folder, transformer file (with its base), or hub id.

    A hub id is looked for in the cache alone; the published one is known without. Raises NotDownloaded, and
    CheckpointError for a model that is not there or damaged.
    """
    from chronoedit.model.checkpoint import EMBEDDED, Located, locate
    from chronoedit.model.hub import is_hub_id

    text = str(path_or_id)
    if text not in EMBEDDED and not Path(text).exists() and is_hub_id(text):
        if text == PUBLISHED:
            return published_facts()
        return _folder_facts(Located(text, _cached_folder(text)))
    if Path(text).is_file() and str(base) == PUBLISHED and not Path(str(base)).exists():
        return _with_file(published_facts(), Path(text))
    return _folder_facts(locate(path_or_id, base))


def published_facts() -> ModelFacts:
    """Those of the published model: 16.39 B parameters, beside a text encoder of 5.68 B and an image encoder of 0.63 B.

    In which types its files are stored is left open.
    """
    arguments = keys.check_config(TRANSFORMER_CONFIG, PUBLISHED)
    sizes = {name: math.prod(shape) for name, shape in keys.expected_shapes(arguments).items()}
    autoencoder = AutoencoderShape()
    parts = {
        "text_encoder": _text_parameters(TEXT_CONFIG),
        "image_encoder": _image_parameters(IMAGE_CONFIG),
        "autoencoder": 126_892_531,
    }
    components = {"transformer": Component(name="transformer", stored={"?": sum(sizes.values())}, in_fp32=_kept(sizes))}
    for name, size in parts.items():
        in_fp32 = 0 if name == "text_encoder" else size
        components[name] = Component(name=name, stored={"?": size}, in_fp32=in_fp32)
    settings = ModelSettings(name="ChronoEdit-14B-Diffusers")
    return ModelFacts(
        name=PUBLISHED,
        settings=settings,
        transformer=Shape.of(arguments),
        autoencoder=autoencoder,
        text=_text_shape(TEXT_CONFIG, settings.max_sequence_length),
        image=_image_shape(IMAGE_CONFIG),
        components=components,
    )


def _cached_folder(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise NotDownloaded(
            f"{repo_id} is not in the hub's cache, and its sizes are not known without; give its folder, or {PUBLISHED}"
        ) from error


def _folder_facts(located: Any) -> ModelFacts:
    folder: Path = located.folder
    settings = read_settings(folder, name=located.name)
    config = folder / "transformer" / "config.json"
    arguments = keys.check_config(read_json(config), config)
    branch = arguments.get("image_dim") is not None
    folders = {"autoencoder": "vae", "text_encoder": "text_encoder"} | (
        {"image_encoder": "image_encoder"} if branch else {}
    )
    components = {} if located.transformer_file else {"transformer": _transformer(folder / "transformer")}
    for name, subfolder in folders.items():
        table = read_tensors_info(weight_files(folder / subfolder))
        components[name] = _component(name, table, in_fp32=name != "text_encoder")
    facts = ModelFacts(
        name=located.name,
        settings=settings,
        transformer=Shape.of(arguments),
        autoencoder=AutoencoderShape.of(read_json(folder / "vae" / "config.json")),
        text=_text_shape(read_json(folder / "text_encoder" / "config.json"), settings.max_sequence_length),
        image=_image_shape(read_json(folder / "image_encoder" / "config.json")) if branch else None,
        components=components,
    )
    return facts if located.transformer_file is None else _with_file(facts, located.transformer_file)


def _transformer(folder: Path) -> Component:
    table = read_tensors_info(weight_files(folder))
    renamed = keys.names_to_ours(table, folder)
    return _of_transformer({renamed[name]: info for name, info in table.items()})


def _with_file(facts: ModelFacts, path: Path) -> ModelFacts:
    """The same model with a transformer from one file, under whatever names, of whatever stored types."""
    from chronoedit.model.singlefile import open_source
    from chronoedit.model.stored import stays_stored

    tensors = dict(open_source(path).tensors)
    stays = [info for name, info in tensors.items() if stays_stored(name, info)]
    transformer = replace(
        _of_transformer(tensors),
        as_stored=sum(math.prod(info.shape) for info in stays),
        as_stored_bytes=sum(info.size_bytes for info in stays),
    )
    return replace(facts, name=path.stem, components={**facts.components, "transformer": transformer})


def _of_transformer(tensors: Mapping[str, TensorInfo]) -> Component:
    sizes = {name: math.prod(info.shape) for name, info in tensors.items() if not keys.IGNORED_NAME.fullmatch(name)}
    stored = _stored({name: tensors[name] for name in sizes})
    return Component(name="transformer", stored=stored, in_fp32=_kept(sizes))


def _component(name: str, table: Mapping[str, TensorInfo], *, in_fp32: bool) -> Component:
    stored = _stored(table)
    return Component(name=name, stored=stored, in_fp32=sum(stored.values()) if in_fp32 else 0)


def _stored(table: Mapping[str, TensorInfo]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for info in table.values():
        counts[info.dtype] += math.prod(info.shape)
    return dict(counts)


def _kept(sizes: Mapping[str, int]) -> int:
    return sum(size for name, size in sizes.items() if KEPT_IN_FP32 & set(name.split(".")))


def _text_shape(config: Mapping[str, Any], tokens: int) -> EncoderShape:
    c = {"d_model": 512, "d_ff": 1024, "num_heads": 6, "num_layers": 8, **config}  # UMT5Config's own defaults
    return EncoderShape(
        width=c["d_model"], ffn_dim=c["d_ff"], heads=c["num_heads"], layers=c["num_layers"], tokens=tokens, gated=True
    )


def _image_shape(config: Mapping[str, Any]) -> EncoderShape:
    c = {
        "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
        "patch_size": 32, "image_size": 224, **config,
    }  # fmt: skip
    return EncoderShape(
        width=c["hidden_size"],
        ffn_dim=c["intermediate_size"],
        heads=c["num_attention_heads"],
        layers=c["num_hidden_layers"],
        tokens=(c["image_size"] // c["patch_size"]) ** 2 + 1,
        gated=False,
    )


def _text_parameters(c: Mapping[str, Any]) -> int:
    """UMT5's encoder: embeddings once, then per block attention with its own position table, a gated feed-forward."""
    inner = c["num_heads"] * c["d_kv"]
    block = 4 * c["d_model"] * inner + 3 * c["d_model"] * c["d_ff"] + 2 * c["d_model"] + 32 * c["num_heads"]
    return c["vocab_size"] * c["d_model"] + c["num_layers"] * block + c["d_model"]


def _image_parameters(c: Mapping[str, Any]) -> int:
    """CLIP's vision model: patches, class token and positions, blocks of biased layers, two more norms."""
    width, ffn = c["hidden_size"], c["intermediate_size"]
    tokens = (c["image_size"] // c["patch_size"]) ** 2 + 1
    block = 4 * (width * width + width) + 2 * width * ffn + ffn + width + 4 * width
    return 3 * c["patch_size"] ** 2 * width + width + tokens * width + c["num_hidden_layers"] * block + 4 * width
