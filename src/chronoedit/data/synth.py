"""The small world as training records: pictures for the autoencoder, latents and words for the transformer."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from einops import rearrange
from torch import Tensor

from chronoedit.media import atomic_path
from chronoedit.model.frames import encode_frames
from chronoedit.world import FIRST_EVALUATION_SEED, FRAMES, Item, sample_item

SHARD_ITEMS = 256
LATENT_FRAME_STRIDE = 4
CLIP_FRAMES = (*range(0, FRAMES - LATENT_FRAME_STRIDE, LATENT_FRAME_STRIDE), FRAMES - 1)
"""Pixel frames of a clip that its latent frames hold: the last of each group of four, and the edit."""

ARRAYS = ("pairs", "clips", "edited")

Made = TypeVar("Made")


def render_pictures(path: Path, *, first_seed: int, items: int, size_px: int, workers: int) -> np.ndarray:
    """Input and a later frame of each item, uint8 2·items size size 3, written once to `path` and memory-mapped.

    The later frame is the target for even seeds and a frame on the way for odd ones. Raises ValueError for seeds
    kept for evaluation.
    """
    drawn = _drawn(path, (items, 2, size_px, size_px, 3), _pictures, first_seed, workers)
    return drawn.reshape(2 * items, size_px, size_px, 3)


def render_clips(path: Path, *, first_seed: int, items: int, size_px: int, workers: int) -> np.ndarray:
    """All frames of each item, uint8 items 29 size size 3; otherwise as `render_pictures`."""
    return _drawn(path, (items, FRAMES, size_px, size_px, 3), _clips, first_seed, workers)


def _drawn(
    path: Path, shape: tuple[int, ...], draw: Callable[..., np.ndarray], first_seed: int, workers: int
) -> np.ndarray:
    """What `draw` makes of the seeds, memory-mapped from `path`, where it is written unless it is there already."""
    items, size_px = shape[0], shape[2]
    _check_seeds(first_seed, items)
    if path.exists():
        found = np.load(path, mmap_mode="r")
        if found.size == np.prod(shape):
            return found.reshape(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.empty(shape, np.uint8)
    shards = seed_shards(first_seed, items)
    for seeds, part in zip(shards, _mapped(partial(draw, size_px=size_px), shards, workers), strict=True):
        drawn[seeds.start - first_seed : seeds.stop - first_seed] = part
    _save_array(path, drawn)
    return np.load(path, mmap_mode="r")


def seed_shards(first_seed: int, items: int) -> list[range]:
    """The seeds in runs of `SHARD_ITEMS`, the last one shorter."""
    stop = first_seed + items
    return [range(at, min(stop, at + SHARD_ITEMS)) for at in range(first_seed, stop, SHARD_ITEMS)]


def to_pixels(pictures: np.ndarray, device: torch.device) -> Tensor:
    """uint8 b h w 3 to float b 3 h w in [-1, 1], channels last in memory."""
    return torch.tensor(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True, kw_only=True)
class LatentPlan:
    """Which items are encoded with which autoencoder; every `clip_every`-th seed also gives its clip."""

    autoencoder: Path
    folder: Path
    first_seed: int
    items: int
    clip_every: int
    size_px: int = 128

    def __post_init__(self) -> None:
        _check_seeds(self.first_seed, self.items)
        if self.clip_every < 1:
            raise ValueError(f"clip_every {self.clip_every} is not positive; use 1 for a clip of every item")


@dataclass(frozen=True)
class LatentSet:
    """Encoded items: pairs n 2 z h w and clips m 8 z h w (float16, not normalised), their words, and `empty`.

    `edited`, n 2 h w, is the share of each cell of a pair that shows what is edited (uint8, 255 is all of it);
    `prompts` are the short instructions of the pairs, `captions` the long ones. `empty`, z h w, is the latent frame of
    an empty (grey) frame, as it stands in the condition. `clip_items` holds the index, among the pairs, of each clip's
    item.
    """

    pairs: np.ndarray
    clips: np.ndarray
    edited: np.ndarray
    prompts: list[str]
    captions: list[str]
    clip_items: np.ndarray
    empty: Tensor


def encode_items(
    plan: LatentPlan, *, workers: int, on_shard: Callable[[int, int], None] = lambda k, n: None
) -> LatentSet:
    """Latents of the plan's items, made shard by shard in `plan.folder`; shards that exist are kept.

    Needs an autoencoder that codes each frame on its own (`model.frames.make_framewise`), for which they equal
    `model.condition.encode_pair` and `encode_clip`. `on_shard` is told shards done and their number.
    """
    shards = seed_shards(plan.first_seed, plan.items)
    missing = [seeds for seeds in shards if not _is_whole(plan, seeds)]
    plan.folder.mkdir(parents=True, exist_ok=True)
    for k, _ in enumerate(_mapped(partial(_encode_shard, plan), missing, workers), len(shards) - len(missing) + 1):
        on_shard(k, len(shards))
    arrays = {
        name: np.concatenate([np.load(_shard_path(plan, seeds, f"{name}.npy"), mmap_mode="r") for seeds in shards])
        for name in ARRAYS
    }
    words = [said for seeds in shards for said in json.loads(_shard_path(plan, seeds, "json").read_text())]
    prompts, captions = ([said[name] for said in words] for name in ("prompt", "caption"))
    with_clip = [k for k in range(plan.items) if (plan.first_seed + k) % plan.clip_every == 0]
    autoencoder = load_framewise(plan.autoencoder)
    grey = torch.zeros(1, 3, plan.size_px, plan.size_px)
    empty = _means(autoencoder, grey)[0].float()
    return LatentSet(**arrays, prompts=prompts, captions=captions, clip_items=np.array(with_clip), empty=empty)


@lru_cache(maxsize=1)
def load_framewise(folder: Path) -> AutoencoderKLWan:
    """The autoencoder of a folder, in fp32 on the CPU, for encoding."""
    return AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32).eval().requires_grad_(False)


def _check_seeds(first_seed: int, items: int) -> None:
    if first_seed < 0 or items < 1 or first_seed + items > FIRST_EVALUATION_SEED:
        raise ValueError(
            f"{items} items from seed {first_seed}: training takes seeds 0 to {FIRST_EVALUATION_SEED - 1}, "
            "later ones are for evaluation"
        )


def _pictures(seeds: range, *, size_px: int) -> np.ndarray:
    pictures = []
    for seed in seeds:
        item = sample_item(seed, size=size_px)
        pictures.append([item.input, item.target if seed % 2 == 0 else item.frame(1 + seed % (FRAMES - 1))])
    return np.array(pictures)


def _clips(seeds: range, *, size_px: int) -> np.ndarray:
    return np.stack([sample_item(seed, size=size_px).frames() for seed in seeds])


def _is_whole(plan: LatentPlan, seeds: range) -> bool:
    """Whether a shard has all its files; its words are written last, and versions before had no `edited`."""
    return all(_shard_path(plan, seeds, suffix).exists() for suffix in ("json", "edited.npy"))


def _shard_path(plan: LatentPlan, seeds: range, suffix: str) -> Path:
    return plan.folder / f"{seeds.start:06d}.{suffix}"


def _encode_shard(plan: LatentPlan, seeds: range) -> int:
    """Encode one shard; its words are written last, see `_is_whole`."""
    autoencoder = load_framewise(plan.autoencoder)
    items = [sample_item(seed, size=plan.size_px) for seed in seeds]
    pairs = _latents(autoencoder, [[item.input, item.target] for item in items])
    with_clip = [item for item in items if item.seed % plan.clip_every == 0]
    clips = _latents(autoencoder, [_clip_pictures(item) for item in with_clip])
    if not with_clip:
        clips = np.empty((0, len(CLIP_FRAMES), *pairs.shape[2:]), pairs.dtype)
    edited = np.stack([_edited_shares(item, pairs.shape[-1]) for item in items])
    for name, array in zip(ARRAYS, (pairs, clips, edited), strict=True):
        _save_array(_shard_path(plan, seeds, f"{name}.npy"), array)
    with atomic_path(_shard_path(plan, seeds, "json")) as path:
        words = [{"prompt": item.prompt, "caption": item.long_prompt} for item in items]
        path.write_text(json.dumps(words), encoding="utf-8")
    return len(items)


def _edited_shares(item: Item, cells: int) -> np.ndarray:
    """uint8 2 cells cells: what share of each cell of input and target shows what is edited."""
    masks = np.isin([item.input_ids, item.target_ids], list(item.edited))
    shares = rearrange(masks, "t (h i) (w j) -> t h w i j", h=cells, w=cells).mean(axis=(3, 4))
    return (255 * shares).round().astype(np.uint8)


def _clip_pictures(item: Item) -> list[np.ndarray]:
    return [item.input, *(item.frame(index) for index in CLIP_FRAMES[1:-1]), item.target]


def _latents(autoencoder: AutoencoderKLWan, videos: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """float16 n t z h w of n videos of t pictures."""
    encoded = [_means(autoencoder, to_pixels(np.stack(video), torch.device("cpu"))) for video in videos]
    return np.stack([each.half().numpy() for each in encoded]) if encoded else np.empty(0, np.float16)


@torch.no_grad()
def _means(autoencoder: AutoencoderKLWan, images: Tensor) -> Tensor:
    return encode_frames(autoencoder, images).chunk(2, dim=1)[0]


def _save_array(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def _mapped(work: Callable[[range], Made], shards: list[range], workers: int) -> Iterator[Made]:
    """`work` on each shard, in order, on `workers` processes of one thread each."""
    if workers <= 1 or len(shards) <= 1:
        yield from map(work, shards)
        return
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_one_thread) as pool:
        yield from pool.imap(work, shards)


def _one_thread() -> None:
    torch.set_num_threads(1)
