"""The components of a checkpoint's folder, each loaded from its subfolder when it is first needed.

transformers' and diffusers' classes are imported from the modules that define them: their packages' other parts
(pipelines, auto classes) cost seconds of start-up and are not needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from chronoedit.errors import CheckpointError
from chronoedit.model import keys
from chronoedit.model.headers import TensorInfo, check_names, read_json, read_tensors_info, weight_files
from chronoedit.model.tensors import LoadPlan, SafetensorsSource, TensorSource, empty_module, load_module

if TYPE_CHECKING:
    from chronoedit.model.dit import ChronoEditDiT

WEIGHT_FOLDERS = ("transformer", "vae", "text_encoder", "image_encoder")
IMAGE_PREFIX = "vision_model."


@dataclass(frozen=True)
class Target:
    """Where tensors go, and in which type the transformer and the text encoder compute.

    Where `mapped`, they keep the type of their files until they are computed with (see `tensors.computed_in`).
    """

    dtype: torch.dtype
    device: torch.device
    mapped: bool = False


@dataclass(frozen=True)
class Transformer:
    """A transformer that can be loaded: its checked arguments and where its tensors lie, under our names."""

    arguments: Mapping[str, Any]
    source: TensorSource
    where: str

    def __post_init__(self) -> None:
        found = {name: info.shape for name, info in self.source.tensors.items() if not _unused(name)}
        remedy = "the weights and the config beside them do not belong together"
        check_names(found, keys.expected_shapes(self.arguments), self.where, remedy)

    def load(self, target: Target) -> ChronoEditDiT:
        """The module with its weights, in inference state."""
        from chronoedit.model.dit import ChronoEditDiT

        plan = LoadPlan(
            dtype=target.dtype,
            device=target.device,
            where=self.where,
            keep_in_fp32=tuple(ChronoEditDiT._keep_in_fp32_modules or ()),
            ignored=_unused,
            mapped=target.mapped,
        )
        return load_module(_built(lambda: ChronoEditDiT(**self.arguments), self.where), self.source, plan)


def _unused(name: str) -> bool:
    return keys.IGNORED_NAME.fullmatch(name) is not None


def open_transformer(folder: Path) -> Transformer:
    """The transformer of a component folder: config and headers are read and compared, no tensor is.

    Whichever class the config names and whichever layout the names are in, it is the same model.
    """
    arguments = keys.check_config(read_json(folder / "config.json"), folder / "config.json")
    table = read_tensors_info(weight_files(folder))
    renamed = keys.names_to_ours(table, folder)
    source = SafetensorsSource({renamed[name]: info for name, info in table.items()})
    return Transformer(arguments, source, str(folder))


def load_autoencoder(folder: Path, target: Target) -> nn.Module:
    """`AutoencoderKLWan`, always fp32: its causal caches and norms lose visibly in half precision."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    config = {key: value for key, value in read_json(folder / "config.json").items() if not key.startswith("_")}
    module = _built(lambda: AutoencoderKLWan(**config), folder)
    plan = LoadPlan(dtype=torch.float32, device=target.device, where=str(folder), mapped=target.mapped)
    return load_module(module, _source(folder), plan)


def load_text_encoder(folder: Path, target: Target) -> nn.Module:
    """`UMT5EncoderModel` in the wanted type; its input embedding is one tensor under two names."""
    from transformers.models.umt5.configuration_umt5 import UMT5Config
    from transformers.models.umt5.modeling_umt5 import UMT5EncoderModel

    config = UMT5Config(**_transformers_config(folder))
    module = _built(lambda: UMT5EncoderModel(config), folder)
    module.encoder.embed_tokens = module.shared  # whatever the config says of ties: the published encoder has one
    keep = tuple(UMT5EncoderModel._keep_in_fp32_modules or ()) if target.dtype == torch.float16 else ()
    plan = LoadPlan(
        dtype=target.dtype, device=target.device, where=str(folder), keep_in_fp32=keep, mapped=target.mapped
    )
    return load_module(module, _source(folder), plan)


def load_image_encoder(folder: Path, target: Target) -> nn.Module:
    """`CLIPVisionModel`, fp32 as published; files with and without the `vision_model.` prefix are read."""
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModel

    config = CLIPVisionConfig(**_transformers_config(folder))
    module = _built(lambda: CLIPVisionModel(config), folder)
    prefix = IMAGE_PREFIX if any(name.startswith(IMAGE_PREFIX) for name in module.state_dict()) else ""
    table = {prefix + name.removeprefix(IMAGE_PREFIX): info for name, info in _table(folder).items()}
    plan = LoadPlan(
        dtype=torch.float32, device=target.device, where=str(folder), ignored=_unused_of_clip, mapped=target.mapped
    )
    return load_module(module, SafetensorsSource(table), plan)


def _unused_of_clip(name: str) -> bool:
    return re.search(r"position_ids$|^visual_projection\.", name) is not None


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, from its `tokenizer.json` as it stands, else from what transformers finds there."""
    if not folder.is_dir():
        raise CheckpointError(f"no folder {folder}; expected a tokenizer in the published layout")
    if (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast as Tokenizer
    else:
        from transformers import AutoTokenizer as Tokenizer
    try:
        return Tokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no tokenizer that can be read ({error}); download it again") from error


def load_image_processor(folder: Path) -> Any:
    """CLIP's image processor on Pillow, with the settings of the folder's `preprocessor_config.json`."""
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:  # transformers 4 has one class, which needs no torchvision
        from transformers.models.clip.image_processing_clip import CLIPImageProcessor as Processor
    read_json(folder / "preprocessor_config.json")
    return Processor.from_pretrained(str(folder), local_files_only=True)


def _transformers_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    # The stored type is of the file, not of the module that is built empty.
    return {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}


def _table(folder: Path) -> dict[str, TensorInfo]:
    return read_tensors_info(weight_files(folder))


def _source(folder: Path) -> SafetensorsSource:
    return SafetensorsSource(_table(folder))


def _built(make: Callable[[], Any], where: str | Path) -> Any:
    try:
        return empty_module(make)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{where}: its config.json does not describe this component: {error}") from error


def folder_loaders(folder: Path, transformer: Transformer, target: Target) -> dict[str, Callable[[], Any]]:
    """What loads each component of a folder in the published layout; without an image branch its two are None.

    Raises CheckpointError when a component is missing, or the header of one of its files is damaged.
    """
    image_branch = transformer.arguments.get("image_dim") is not None
    for name in WEIGHT_FOLDERS[1:] if image_branch else WEIGHT_FOLDERS[1:3]:
        read_json(folder / name / "config.json")
        read_tensors_info(weight_files(folder / name))
    loaders: dict[str, Callable[[], Any]] = {
        "transformer": partial(transformer.load, target),
        "autoencoder": partial(load_autoencoder, folder / "vae", target),
        "text_encoder": partial(load_text_encoder, folder / "text_encoder", target),
        "tokenizer": partial(load_tokenizer, folder / "tokenizer"),
        "image_encoder": lambda: None,
        "image_processor": lambda: None,
    }
    if image_branch:
        loaders["image_encoder"] = partial(load_image_encoder, folder / "image_encoder", target)
        loaders["image_processor"] = partial(load_image_processor, folder / "image_processor")
    return loaders
