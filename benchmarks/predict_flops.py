"""What counting says: the FLOPs of a forward and of the decoder, and the part that our edit does not spend.

Counted by torch on the meta device with diffusers' classes and the checkpoint's own configs, 2 a multiply-add. Where
every FLOP takes the same time, the saved part of the FLOPs is the saved part of the time: that is the prediction.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

# What depends on neither the step nor the latents: the prompt's and the image's embedders, keys and values.
PER_REQUEST = re.compile(
    r"condition_embedder\.(text_embedder|image_embedder)$|blocks\.\d+\.attn2\.(to_k|to_v|add_k_proj|add_v_proj)$"
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """A checkpoint, and the size of the edit in pixels; `reasoning` is 8 latent frames, else 2."""

    checkpoint: Path
    height: int
    width: int
    reasoning: bool = False
    text_tokens: int = 512
    image_tokens: int = 257


def forward_flops(size: Size) -> tuple[int, int]:
    """FLOPs of one forward of the transformer, and of its part that depends on the request alone."""
    from diffusers import ChronoEditTransformer3DModel

    config = ChronoEditTransformer3DModel.load_config(size.checkpoint, subfolder="transformer")
    with torch.device("meta"):
        model = ChronoEditTransformer3DModel.from_config(config)
        latents = torch.empty(1, 36, 8 if size.reasoning else 2, size.height // 8, size.width // 8)
        text = torch.empty(1, size.text_tokens, config["text_dim"])
        image = torch.empty(1, size.image_tokens, config["image_dim"]) if config["image_dim"] else None
        timestep = torch.empty(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(latents, timestep, text, image)
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    return counter.get_total_flops(), sum(n for name, n in by_module.items() if PER_REQUEST.search(name))


def decode_flops(size: Size, frames: int) -> int:
    """FLOPs of decoding `frames` latent frames."""
    from diffusers import AutoencoderKLWan

    config = AutoencoderKLWan.load_config(size.checkpoint, subfolder="vae")
    with torch.device("meta"):
        autoencoder = AutoencoderKLWan.from_config(config)
        latents = torch.empty(1, config["z_dim"], frames, size.height // 8, size.width // 8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        autoencoder.decode(latents)
    return counter.get_total_flops()


def main(size: Size) -> None:
    """Print the counts, and the saved fractions of a step and of the decoding, as one line of JSON."""
    forward, per_request = forward_flops(size)
    edit = decode_flops(size, 2)
    theirs = edit + (decode_flops(size, 7) if size.reasoning else 0)
    print(
        json.dumps(
            {
                "forward_flops": forward,
                "per_request_flops": per_request,
                "decode_flops": edit,
                "decode_flops_diffusers": theirs,
                "step_saving": per_request / forward,
                "decode_saving": 1 - edit / theirs,
            }
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Size))
