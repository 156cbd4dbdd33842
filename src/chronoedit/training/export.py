"""Write a trained model as a folder in the published layout, in bf16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from transformers import UMT5EncoderModel

from chronoedit.media import save_tensors
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.model.random_checkpoint import SCHEDULER_CONFIG, model_index, write_json
from chronoedit.model.settings import ModelSettings

PUBLISHED_TRANSFORMER = "ChronoEditTransformer3DModel"


@dataclass(frozen=True)
class TrainedModel:
    """What goes into the folder; the tokenizer is there already, in `folder`/tokenizer."""

    transformer: ChronoEditDiT
    text_encoder: UMT5EncoderModel
    autoencoder: AutoencoderKLWan
    settings: ModelSettings


def write_model(model: TrainedModel, folder: Path) -> None:
    """Write all but the tokenizer to `folder`, each file whole or not at all. Raises OutputError."""
    config = {"_class_name": PUBLISHED_TRANSFORMER, **_plain(model.transformer.config)}
    write_json(folder / "transformer" / "config.json", config)
    _save(folder / "transformer" / "diffusion_pytorch_model.safetensors", model.transformer.state_dict())
    write_autoencoder(model.autoencoder, folder / "vae", torch.bfloat16)
    (folder / "text_encoder").mkdir(parents=True, exist_ok=True)
    model.text_encoder.config.save_pretrained(folder / "text_encoder")
    states = dict(model.text_encoder.state_dict())
    states.pop("encoder.embed_tokens.weight", None)  # the same tensor as shared.weight, stored once
    _save(folder / "text_encoder" / "model.safetensors", states)
    scheduler = {**SCHEDULER_CONFIG, "flow_shift": model.settings.flow_shift}
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / "model_index.json", model_index("chronoedit", image_branch=False))
    own = {key: value for key, value in model.settings.to_json().items() if key != "flow_shift"}
    write_json(folder / "chronoedit.json", own)


def write_autoencoder(autoencoder: AutoencoderKLWan, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write an autoencoder's config, with its latents' statistics, and weights. Raises OutputError."""
    write_json(folder / "config.json", {"_class_name": "AutoencoderKLWan", **_plain(autoencoder.config)})
    _save(folder / "diffusion_pytorch_model.safetensors", autoencoder.state_dict(), dtype)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _save(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.bfloat16) -> None:
    cast = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    save_tensors(cast, path, {"format": "pt"})
