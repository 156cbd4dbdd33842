"""What the transformer is conditioned on, each part encoded once and kept: prompts, the image's embeds, its condition.

Shapes: b batch, l text tokens, d embedding width, c 4 + z condition channels, t latent frames, h w latent height/width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from chronoedit.cache import MemoryCache, content_key
from chronoedit.editing.coding import Coding
from chronoedit.editing.finite import check_finite
from chronoedit.editing.placement import Placement
from chronoedit.editing.prepare import PreparedEdit
from chronoedit.model import condition, encoders
from chronoedit.model.checkpoint import Components
from chronoedit.model.tiling import Tiling

T = TypeVar("T")


class Texts(NamedTuple):
    """Encoded prompts: `embeds` b l d, zero past each row's length, and `lengths` b."""

    embeds: Tensor
    lengths: Tensor


@dataclass(frozen=True, kw_only=True)
class Encodings:
    """The encoded inputs of a batch, a row an edit.

    `negative` is None when nothing is guided, `image_embeds` (b 257 d) for a model without an image branch;
    `condition_latents` are b c t h w.
    """

    positive: Texts
    negative: Texts | None
    image_embeds: Tensor | None
    condition_latents: Tensor

    def check_finite(self) -> None:
        """Raise NotFinite when an encoder gave NaN or infinity."""
        made = {
            "the prompt's embeds": self.positive.embeds,
            "the negative prompt's embeds": None if self.negative is None else self.negative.embeds,
            "the picture's embeds": self.image_embeds,
            "the picture's latents": self.condition_latents,
        }
        for what, values in made.items():
            if values is not None:
                check_finite(values, what, "(encode")

    def to(self, device: torch.device) -> Encodings:
        """The same on a device."""

        def moved(texts: Texts) -> Texts:
            return Texts(*(part.to(device) for part in texts))

        return Encodings(
            positive=moved(self.positive),
            negative=None if self.negative is None else moved(self.negative),
            image_embeds=None if self.image_embeds is None else self.image_embeds.to(device),
            condition_latents=self.condition_latents.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class InputEncoder:
    """Encodes the inputs of edits with a model's encoders; what the cache holds (in main memory) is not encoded again.

    Each input is encoded alone: so a cached value is the same whatever was encoded beside it, and a seed stays
    bit-identical however edits are batched or repeated.
    """

    components: Components
    cache: MemoryCache
    placement: Placement
    coding: Coding = Coding()

    def encode(self, edits: Sequence[PreparedEdit], *, guided: bool) -> Encodings:
        """The encodings of one batch of edits of one size; `guided` adds the negative prompts."""
        prompts = [edit.request.prompt for edit in edits]
        negatives = [edit.request.negative_prompt for edit in edits] if guided else []
        texts = self._texts([*prompts, *negatives])
        return Encodings(
            positive=self._rows(texts, prompts),
            negative=self._rows(texts, negatives) if guided else None,
            image_embeds=self._image_embeds(edits),
            condition_latents=self._condition_latents(edits),
        )

    def share_conditions(self, edits: Sequence[PreparedEdit]) -> None:
        """Encode the images that the first of several processes has not cached, each its tiles; all must call."""
        processes = self.coding.processes
        assert processes is not None
        wanted = {self._condition_key(edit): edit for edit in edits}
        missing = processes.share([key for key in wanted if key not in self.cache])
        with self.placement.stage() as bring:
            for key in missing:
                height, width = wanted[key].pixels.shape[-2:]
                bring(self.components.autoencoder)
                tiling = self.coding.shared(self.components.autoencoder, height, width)
                made = self._condition(wanted[key], tiling)
                self.cache.get_or_make(key, partial(_identity, made))

    def _texts(self, prompts: Sequence[str]) -> dict[str, Texts]:
        with self.placement.stage() as bring:

            def make(prompt: str) -> Texts:
                bring(self.components.text_encoder)
                embeds, lengths = encoders.encode_prompt(self.components, [prompt])
                return Texts(embeds=embeds.cpu(), lengths=lengths.cpu())

            once = dict.fromkeys(prompts)
            return {prompt: self._cached("text_embeds", (prompt,), partial(make, prompt)) for prompt in once}

    def _image_embeds(self, edits: Sequence[PreparedEdit]) -> Tensor | None:
        """b 257 d of the resized pictures, which is what the published script embeds."""
        if self.components.transformer.config.image_dim is None:
            return None
        with self.placement.stage() as bring:

            def make(edit: PreparedEdit) -> Tensor:
                bring(self.components.image_encoder)
                embeds = encoders.encode_image(self.components, edit.picture, edit.request.image_embed_mode)
                assert embeds is not None  # the transformer has an image branch, so the checkpoint has its encoder
                return embeds.cpu()

            parts = [(edit.pixels_sha256, edit.request.image_embed_mode) for edit in edits]
            rows = [
                self._cached("image_embeds", key, partial(make, edit)) for edit, key in zip(edits, parts, strict=True)
            ]
        return torch.cat(rows).to(self.placement.device)  # b 257 d

    def _condition_latents(self, edits: Sequence[PreparedEdit]) -> Tensor:
        with self.placement.stage() as bring:

            def make(edit: PreparedEdit) -> Tensor:
                bring(self.components.autoencoder)
                return self._condition(edit, self.coding.alone())

            rows = [self.cache.get_or_make(self._condition_key(edit), partial(make, edit)) for edit in edits]
        return torch.cat(rows).to(self.placement.device)  # b c t h w

    def _condition(self, edit: PreparedEdit, tiling: Tiling | None) -> Tensor:
        """1 c t h w on the CPU, of an autoencoder that has been brought."""
        model, pixels = self.components.autoencoder, edit.pixels.to(self.placement.device)
        self.coding.prepare(model)
        return condition.image_condition(model, pixels, edit.course.num_frames, tiling=tiling).cpu()

    def _condition_key(self, edit: PreparedEdit) -> str:
        parts = (edit.pixels_sha256, edit.course.num_frames)
        return content_key("condition_latents", self.components.model_hash, *parts)

    def _cached(self, kind: str, key: tuple[str | int, ...], make: Callable[[], T]) -> T:
        return self.cache.get_or_make(content_key(kind, self.components.model_hash, *key), make)

    def _rows(self, texts: dict[str, Texts], prompts: Sequence[str]) -> Texts:
        embeds = torch.cat([texts[prompt].embeds for prompt in prompts])  # b l d
        lengths = torch.cat([texts[prompt].lengths for prompt in prompts])
        return Texts(embeds.to(self.placement.device), lengths.to(self.placement.device))


def _identity(value: T) -> T:
    return value
