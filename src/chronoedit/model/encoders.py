"""Prompts and images to embeddings: the text encoder (UMT5) and the optional image encoder (CLIP).

Shapes: b batch, l tokens (`max_sequence_length`, 512 as published), d width of the encoder, n image tokens (257).
Inference only: no gradients.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ftfy
import PIL.Image
import torch
from torch import Tensor

from chronoedit.errors import CheckpointError

if TYPE_CHECKING:
    from chronoedit.model.checkpoint import Components

logger = logging.getLogger(__name__)


def clean_prompt(prompt: str) -> str:
    """The prompt with broken encodings mended (ftfy), HTML entities resolved and white space collapsed.

    Agrees with diffusers' Wan pipelines; entities are resolved twice, for text that was escaped twice.
    """
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


@torch.no_grad()
def encode_prompt(components: Components, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Text embeddings `b l d`, zero past each prompt's length, and the lengths `[b]` in tokens (int64).

    Prompts are cleaned; one over the limit is cut, with a warning that shows what was lost. Agrees with
    `encode_prompt` of diffusers' ChronoEditPipeline at `max_sequence_length` tokens. An empty prompt is one token long.
    """
    limit, encoder = components.settings.max_sequence_length, components.text_encoder
    texts = [clean_prompt(prompt) for prompt in prompts]
    for text in texts:
        _warn_if_cut(components.tokenizer, text, limit)
    tokens = components.tokenizer(
        texts, padding="max_length", max_length=limit, truncation=True, return_attention_mask=True, return_tensors="pt"
    )
    mask = tokens.attention_mask.to(encoder.device)  # b l
    embeds = encoder(tokens.input_ids.to(encoder.device), mask).last_hidden_state  # b l d
    return embeds.masked_fill(mask.unsqueeze(-1) == 0, 0.0), mask.sum(dim=1)


@torch.no_grad()
def encode_image(components: Components, image: PIL.Image.Image, mode: str) -> Tensor | None:
    """Image embeddings `1 n d`, the image encoder's last hidden state but one; None for a model without that branch.

    `mode` is a name in `IMAGE_EMBED_MODES`; its numbers (sizes, mean, deviation) are the image processor's own.
    Agrees, for "crop", with `encode_image` of diffusers' ChronoEditPipeline. Raises ValueError for an unknown mode.
    """
    if mode not in IMAGE_EMBED_MODES:
        raise ValueError(f"image_embed_mode {mode!r} is unknown; choose from {', '.join(IMAGE_EMBED_MODES)}")
    encoder, processor = components.image_encoder, components.image_processor
    if encoder is None:
        return None
    if processor is None:
        raise CheckpointError("the model has an image_encoder but no image_processor; add that folder to it")
    settings = IMAGE_EMBED_MODES[mode](processor)
    pixels = processor(images=image.convert("RGB"), return_tensors="pt", **settings).pixel_values  # 1 3 H W
    hidden = encoder(pixels.to(encoder.device, encoder.dtype), output_hidden_states=True).hidden_states
    return hidden[-2]  # 1 n d


def _crop(processor: Any) -> dict[str, Any]:
    """The processor as it comes: shorter side to its size, centre crop. The published inference."""
    return {}


def _squash(processor: Any) -> dict[str, Any]:
    """The whole picture into the crop's size, whatever its aspect: how the published model was trained."""
    crop = processor.crop_size
    return {"size": {"height": crop["height"], "width": crop["width"]}, "do_center_crop": False}


IMAGE_EMBED_MODES = {"crop": _crop, "squash": _squash}


def _warn_if_cut(tokenizer: Any, text: str, limit: int) -> None:
    """Log the end of a text that the model will not read, in words."""
    tokens = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    room = limit - tokenizer.num_special_tokens_to_add()
    if len(tokens) > room:
        logger.warning(
            "the prompt has %d tokens and the model reads %d; it does not see the end: %r",
            len(tokens),
            room,
            tokenizer.decode(tokens[room:]),
        )
