"""A random checkpoint for the benchmark: the tests' own, with a wider transformer and autoencoder put in its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from chronoedit.model.random_checkpoint import write_random_checkpoint

HEAD_DIM = 128


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Where to write; heads of 128 and blocks of the transformer, width of the autoencoder."""

    folder: Path
    heads: int = 8
    layers: int = 4
    autoencoder_dim: int = 16


def main(shape: Shape) -> None:
    """Write the checkpoint and print the transformer's parameters as JSON."""
    from diffusers import AutoencoderKLWan, ChronoEditTransformer3DModel

    write_random_checkpoint(shape.folder)
    config = ChronoEditTransformer3DModel.load_config(shape.folder, subfolder="transformer")
    width = shape.heads * HEAD_DIM
    torch.manual_seed(0)
    transformer = ChronoEditTransformer3DModel.from_config(
        config,
        num_attention_heads=shape.heads,
        attention_head_dim=HEAD_DIM,
        num_layers=shape.layers,
        ffn_dim=width * 27 // 10,  # 13824 / 5120, as published
        freq_dim=256,
        added_kv_proj_dim=width,
    )
    transformer.save_pretrained(shape.folder / "transformer")
    AutoencoderKLWan(base_dim=shape.autoencoder_dim).save_pretrained(shape.folder / "vae")
    print(json.dumps({"parameters": sum(p.numel() for p in transformer.parameters())}))


if __name__ == "__main__":
    main(tyro.cli(Shape))
