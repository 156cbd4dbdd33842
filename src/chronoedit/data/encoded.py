"""A training set as the transformer sees it: latents, condition and embeds, each made once and kept on disk.

Shapes: z latent channels, c 4 + z condition channels, t latent frames, h w latent height and width, l text tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from chronoedit.cache import TensorCache, content_key
from chronoedit.data.loader import Bucket, Geometry
from chronoedit.data.records import Record, frames
from chronoedit.model import condition, encoders
from chronoedit.model.checkpoint import Components

Report = Callable[[str, int, int], None]
"""`report(stage, done, total)`; may raise to stop."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One encoded record: where each of its tensors lies in the cache."""

    row: str
    bucket: Bucket
    latents: str
    condition: str
    text: str
    image: str | None


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The tensors of one example: latents z t h w, condition c t h w, text l d (its real tokens), image n d or None."""

    latents: Tensor
    condition: Tensor
    text: Tensor
    image: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes records with a model's encoders, one at a time in memory; what the cache holds whole is kept.

    Keys are made of pixels, size and model, not of names, so a set that is moved or extended keeps what it has.
    """

    components: Components
    cache: TensorCache
    geometry: Geometry
    image_embed_mode: str = "squash"

    def encode(self, records: Sequence[Record], report: Report = lambda stage, done, total: None) -> list[Example]:
        """Encode what is missing; an example for each record. Raises DataError for one that cannot be read."""
        examples = []
        for done, record in enumerate(records, 1):
            examples.append(self._with_video(record))
            report("video", done, len(records))
        self.cache.flush()
        self._release("autoencoder")
        prompts = list(dict.fromkeys([*(record.prompt for record in records), ""]))
        for done, prompt in enumerate(prompts, 1):
            self._put(self.text_key(prompt), partial(self._text, prompt))
            report("text", done, len(prompts))
        self.cache.flush()
        self._release("text_encoder")
        self._release("image_encoder")
        return examples

    def load(self, example: Example) -> Encoded:
        """The tensors of an example, on the CPU as they were stored."""
        return Encoded(
            latents=self.cache.get(example.latents),
            condition=self.cache.get(example.condition),
            text=self.cache.get(example.text),
            image=None if example.image is None else self.cache.get(example.image),
        )

    def text_key(self, prompt: str) -> str:
        """Where a prompt's embeds lie."""
        return content_key("text_embeds", self.components.model_hash, prompt)

    def _with_video(self, record: Record) -> Example:
        video = self.geometry.fit(frames(record))
        bucket = Bucket(2 if len(video) == 2 else 8, *video.shape[1:3])
        model, pixels = self.components.model_hash, _sha256(video)
        first = _sha256(video[:1])
        latents, conditions = content_key("latents", model, pixels), content_key("condition", model, first, len(video))
        self._put(latents, lambda: self._latents(video))
        self._put(conditions, lambda: self._condition(video[0], 5 if len(video) == 2 else 29))
        image = None
        if self.components.image_encoder is not None:
            image = content_key("image_embeds", model, first, self.image_embed_mode)
            self._put(image, lambda: self._image(video[0]))
        return Example(
            row=record.row,
            bucket=bucket,
            latents=latents,
            condition=conditions,
            text=self.text_key(record.prompt),
            image=image,
        )

    def _put(self, key: str, make: Callable[[], Tensor]) -> None:
        if not self.cache.holds(key):
            self.cache.put(key, make())

    @torch.no_grad()
    def _latents(self, video: np.ndarray) -> Tensor:
        pixels = self._pixels(video)  # 1 3 T H W
        autoencoder = self.components.autoencoder
        if pixels.shape[2] == 2:
            return condition.encode_pair(autoencoder, pixels[:, :, 0], pixels[:, :, 1])[0]
        return condition.encode_clip(autoencoder, pixels)[0]

    @torch.no_grad()
    def _condition(self, picture: np.ndarray, num_frames: int) -> Tensor:
        pixels = self._pixels(picture[None])[:, :, 0]  # 1 3 H W
        return condition.image_condition(self.components.autoencoder, pixels, num_frames)[0]

    def _text(self, prompt: str) -> Tensor:
        embeds, lengths = encoders.encode_prompt(self.components, [prompt])
        return embeds[0, : int(lengths[0])]

    def _image(self, picture: np.ndarray) -> Tensor:
        embeds = encoders.encode_image(self.components, Image.fromarray(picture), self.image_embed_mode)
        assert embeds is not None  # the transformer has an image branch
        return embeds[0]

    def _pixels(self, video: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.array(video)).to(self.components.device)
        return (pixels.permute(3, 0, 1, 2)[None].float() / 127.5) - 1  # 1 3 T H W

    def _release(self, name: str) -> None:
        if name in self.components.loaders and name in self.components.loaded:
            self.components.release(name)


def _sha256(video: np.ndarray) -> str:
    return hashlib.sha256(f"{video.shape}".encode() + np.ascontiguousarray(video).tobytes()).hexdigest()
