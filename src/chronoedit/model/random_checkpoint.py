"""A complete checkpoint in the published layout with tiny, random components: what the tests and benchmarks load."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronoedit.model.keys import expected_shapes
from chronoedit.model.settings import ModelSettings
from chronoedit.model.tokenizer import pieces_of_words, write_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

INDEX_STYLES = {
    "chronoedit": ("ChronoEditPipeline", "ChronoEditTransformer3DModel"),
    "wan": ("WanImageToVideoPipeline", "WanTransformer3DModel"),
}
"""What mirrors of the published weights call the pipeline and the transformer in their indices."""

TEXT_DIM = 32
IMAGE_DIM = 32
TRANSFORMER_CONFIG: dict[str, Any] = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 48,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": TEXT_DIM,
    "freq_dim": 32,
    "ffn_dim": 128,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "rope_max_seq_len": 1024,
    "pos_embed_seq_len": None,
}
SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "UniPCMultistepScheduler",
    "_diffusers_version": "0.35.0",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "disable_corrector": [],
    "final_sigmas_type": "zero",
    "flow_shift": 5.0,
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "predict_x0": True,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "solver_type": "bh2",
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "linspace",
    "use_flow_sigmas": True,
}
WORDS = (
    "the a an to and of on in cat dog sunglasses hat jar cup robot arm red blue green yellow ball cube table pick up "
    "put down place push left right hold still remove add recolour open close user wants edit image with face"
)


def write_random_checkpoint(
    folder: str | Path, *, image_branch: bool = True, index_style: str = "chronoedit", seed: int = 0, shards: int = 1
) -> Path:
    """Write a random checkpoint of about a million fp32 parameters in the published layout; returns its folder.

    All components are real: the transformer (36 channels in, 16 out), AutoencoderKLWan (16 latent channels, 8x and
    4x compression), UMT5EncoderModel with a fast tokenizer, and with `image_branch` CLIPVisionModel (257 tokens) with
    its processor. `shards` splits the transformer's weights; the same `seed` writes the same weights.
    """
    import torch

    if index_style not in INDEX_STYLES:
        raise ValueError(f"index_style is {index_style!r}; choose one of {', '.join(INDEX_STYLES)}")
    folder = Path(folder)
    generator = torch.Generator().manual_seed(seed)
    _write_transformer(folder / "transformer", image_branch, index_style, generator, shards)
    _write_autoencoder(folder / "vae", generator)
    vocabulary_size = write_tokenizer(folder / "tokenizer", pieces_of_words(WORDS.split()), max_length=512)
    _write_text_encoder(folder / "text_encoder", vocabulary_size, generator)
    if image_branch:
        _write_image_encoder(folder, generator)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    write_json(folder / "model_index.json", model_index(index_style, image_branch=image_branch))
    settings = ModelSettings(name=f"random-{seed}", target_area=64 * 64, num_inference_steps=4)
    own = {key: value for key, value in settings.to_json().items() if key != "flow_shift"}
    write_json(folder / "chronoedit.json", own)
    return folder


def model_index(index_style: str, *, image_branch: bool) -> dict[str, Any]:
    """The published `model_index.json`: which library and class each component is of."""
    pipeline, transformer = INDEX_STYLES[index_style]
    image = [["transformers", "CLIPVisionModel"], ["transformers", "CLIPImageProcessor"]]
    encoder, processor = image if image_branch else [[None, None], [None, None]]
    return {
        "_class_name": pipeline,
        "_diffusers_version": "0.35.0",
        "image_encoder": encoder,
        "image_processor": processor,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", transformer],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }


def _write_transformer(
    folder: Path, image_branch: bool, index_style: str, generator: torch.Generator, shards: int
) -> None:
    config = {"_class_name": INDEX_STYLES[index_style][1], "_diffusers_version": "0.35.0", **TRANSFORMER_CONFIG}
    if image_branch:
        inner_dim = config["num_attention_heads"] * config["attention_head_dim"]
        config |= {"image_dim": IMAGE_DIM, "added_kv_proj_dim": inner_dim}
    if index_style == "chronoedit":
        config["rope_temporal_skip_len"] = 8
    write_json(folder / "config.json", config)
    shapes = expected_shapes({key: value for key, value in config.items() if not key.startswith("_")})
    tensors = {name: _random(name, shape, generator) for name, shape in shapes.items()}
    write_weights(folder, "diffusion_pytorch_model", tensors, shards=shards)


def _write_autoencoder(folder: Path, generator: torch.Generator) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    module = AutoencoderKLWan(base_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1)
    module.save_config(folder)
    write_weights(folder, "diffusion_pytorch_model", _randomised(module, generator))


def _write_text_encoder(folder: Path, vocabulary_size: int, generator: torch.Generator) -> None:
    from transformers.models.umt5.configuration_umt5 import UMT5Config
    from transformers.models.umt5.modeling_umt5 import UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocabulary_size, d_model=TEXT_DIM, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0
    )
    config.architectures = ["UMT5EncoderModel"]
    config.save_pretrained(folder)
    tensors = _randomised(UMT5EncoderModel(config), generator)
    tensors.pop("encoder.embed_tokens.weight", None)  # the same tensor as shared.weight, stored once
    write_weights(folder, "model", tensors)


def _write_image_encoder(folder: Path, generator: torch.Generator) -> None:
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=IMAGE_DIM, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, patch_size=14,
        image_size=224, projection_dim=16, hidden_act="gelu",
    )  # fmt: skip
    config.architectures = ["CLIPVisionModel"]
    config.save_pretrained(folder / "image_encoder")
    tensors = _randomised(CLIPVisionModel(config), generator)
    published = {f"vision_model.{name.removeprefix('vision_model.')}": tensor for name, tensor in tensors.items()}
    write_weights(folder / "image_encoder", "model", published)
    write_json(folder / "image_processor" / "preprocessor_config.json", IMAGE_PROCESSOR_CONFIG)


IMAGE_PROCESSOR_CONFIG: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}


def _randomised(module: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    return {name: _random(name, tuple(tensor.shape), generator) for name, tensor in module.named_parameters()}


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Weights that keep activations near unit size, so that every parameter shows in the output."""
    import torch

    noise = torch.randn(shape, generator=generator)
    if name.endswith(".bias"):
        return 0.1 * noise
    if math.prod(shape) == max(shape):  # gains of norms, however many axes they have
        return 1 + 0.1 * noise
    return noise / math.sqrt(math.prod(shape[1:]))


def write_weights(folder: Path, stem: str, tensors: Mapping[str, Tensor], *, shards: int = 1) -> None:
    """Write `stem.safetensors`, or `shards` files of about equal size with the index that names them."""
    from safetensors.torch import save_file

    if not 1 <= shards <= len(tensors):
        raise ValueError(f"shards is {shards}; 1 to {len(tensors)} are possible with as many tensors")
    folder.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    if shards == 1:
        save_file(dict(tensors), folder / f"{stem}.safetensors", metadata={"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file_name = f"{stem}-{shard + 1:05d}-of-{shards:05d}.safetensors"
        own = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        save_file({name: tensors[name] for name in own}, folder / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(own, file_name)
    total_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    write_json(folder / f"{stem}.safetensors.index.json", index)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file of a checkpoint's folder, indented; the folder is made when it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
