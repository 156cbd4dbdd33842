"""How the transformer is asked for a velocity, of encoded examples: the same in training and in sample edits.

Shapes: b batch, z latent channels, c 4 + z condition channels, t latent frames, h w latent height and width, l text
tokens, d embedding width, n image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chronoedit.data.encoded import Encoded
from chronoedit.training.recipes import precision


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a batch is conditioned on: `latents` b c t h w, `text` b l d and its real `lengths` b, `images` b n d."""

    latents: Tensor
    text: Tensor
    lengths: Tensor
    images: Tensor | None

    @classmethod
    def of(cls, loaded: Sequence[Encoded], texts: Sequence[Tensor], limit: int) -> Conditions:
        """Those of examples, with the prompts `texts`, each l d of its real tokens; they are padded to `limit`."""
        padded = texts[0].new_zeros(len(texts), limit, texts[0].shape[-1])
        for row, text in zip(padded, texts, strict=True):
            row[: len(text)] = text
        images = [each.image for each in loaded if each.image is not None]
        return cls(
            latents=torch.stack([each.condition for each in loaded]),
            text=padded,
            lengths=torch.tensor([len(text) for text in texts]),
            images=torch.stack(images) if images else None,
        )


def predict(
    transformer: nn.Module,
    latents: Tensor,
    timesteps: Tensor,
    conditions: Conditions,
    device: torch.device,
    compute: str = "fp32",
) -> Tensor:
    """The velocity b z t h w on `device`, of latents b z t h w at the timesteps b (1000 · sigma).

    `compute` is one of `recipes.PRECISIONS`: "bf16" computes in it whatever the weights are.
    """
    dtype = input_dtype(transformer)
    images = conditions.images
    with precision(compute, device):
        velocity: Tensor = transformer(
            torch.cat([latents, conditions.latents.to(latents)], dim=1).to(device, dtype),
            timesteps.to(device),
            conditions.text.to(device, dtype),
            None if images is None else images.to(device, dtype),
            text_lengths=conditions.lengths,
            return_dict=False,
        )[0]
    return velocity


def input_dtype(transformer: nn.Module) -> torch.dtype:
    """The type in which a transformer takes its input; quantised weights do not say."""
    return next(p.dtype for name, p in transformer.named_parameters() if name.endswith("patch_embedding.weight"))
