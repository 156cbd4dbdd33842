"""The decoder's training on clips: latent frames hold every fourth frame, and it learns to draw those between.

The encoder is frozen and codes each frame on its own, so latents, and any transformer trained on them, stay valid.
Clips alternate with pairs [first, last × 4], for whose last frame the edit is judged.

Shapes: b batch, T pixel frames, t latent frames, h w pixels, z latent channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from chronoedit.data.synth import LATENT_FRAME_STRIDE, render_clips, to_pixels
from chronoedit.model.frames import decode_clip, encode_frames
from chronoedit.training.objectives import psnr, reconstruction_loss
from chronoedit.training.optim import Ema, make_optimizer, set_gradients, shares, update
from chronoedit.training.recipes import Budget, Optimisation, precision
from chronoedit.training.state import Progress, Stage, TrainingState, step_generator

VALIDATION_CLIPS = 4


@dataclass(frozen=True, kw_only=True)
class ClipStage:
    """Training of the decoder on windows of `window` latent frames, cut to `crop_px`; `pair_share` of the steps are
    pairs. `clips` are drawn from the seeds that follow the pictures' ones; the last few validate.
    """

    budget: Budget
    optimisation: Optimisation
    clips: int = 300
    window: int = 4
    pair_share: float = 0.5
    crop_px: int = 64
    edge_weight: float = 0.5
    detail_weight: float = 2.0
    latent_noise: float = 0.1

    def __post_init__(self) -> None:
        if self.window < 2 or self.clips <= VALIDATION_CLIPS:
            raise ValueError(
                f"window {self.window} and clips {self.clips}: at least 2 and {VALIDATION_CLIPS + 1} are needed"
            )


@dataclass(frozen=True)
class ClipSource:
    """Where the stage writes, and which seeds and size its clips have."""

    folder: Path
    first_seed: int
    size_px: int
    workers: int
    seed: int


def train_decoder(
    autoencoder: AutoencoderKLWan,
    stage: ClipStage,
    source: ClipSource,
    device: torch.device,
    log: Callable[[dict[str, Any]], None],
) -> AutoencoderKLWan:
    """Train the decoder in place (or go on), and return the autoencoder with the averaged weights.

    Writes `source.folder`/decoder_clips/{state.safetensors,log.jsonl}. Raises OutputError, CheckpointError.
    """
    autoencoder.to(device).requires_grad_(False)
    autoencoder.decoder.requires_grad_(True)
    decoder = autoencoder.decoder
    ema = Ema(decoder, stage.optimisation.ema_decay)
    state = TrainingState(
        {"decoder": decoder}, {"decoder": ema}, make_optimizer([decoder], stage.optimisation), Progress()
    )
    folder = source.folder / "decoder_clips"
    state.load(folder)
    trainer = _ClipTrainer(autoencoder, stage, source, state, device)
    Stage(
        state=state,
        budget=stage.budget,
        folder=folder,
        train_step=trainer.step,
        validate=trainer.validate,
        checkpoint_every_s=stage.optimisation.checkpoint_every_s,
        validate_every_s=stage.optimisation.validate_every_s,
        log=log,
    ).run()
    ema.swap()
    return autoencoder.eval()


class _ClipTrainer:
    def __init__(
        self,
        autoencoder: AutoencoderKLWan,
        stage: ClipStage,
        source: ClipSource,
        state: TrainingState,
        device: torch.device,
    ) -> None:
        clips = render_clips(
            source.folder / "data" / "clips.npy",
            first_seed=source.first_seed,
            items=stage.clips,
            size_px=source.size_px,
            workers=source.workers,
        )
        self.clips, self.held_out = clips[:-VALIDATION_CLIPS], clips[-VALIDATION_CLIPS:]
        self.autoencoder, self.stage, self.source = autoencoder, stage, source
        self.state, self.device = state, device

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One step of the optimiser, on windows of clips or on pairs."""
        generator = step_generator(self.source.seed, step, "decoder_clips")
        pairs = bool(torch.rand((), generator=generator) < self.stage.pair_share)
        videos = self._batch(generator, pairs)
        latents = self._latents(videos)
        spread = latents.std(dim=(0, 2, 3, 4), keepdim=True)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        level = torch.rand(len(latents), 1, 1, 1, 1, generator=generator).to(self.device) * self.stage.latent_noise
        noisy = latents + level * spread * noise

        def loss_of(rows: slice) -> Tensor:
            with precision(self.stage.optimisation.precision, self.device):
                decoded = decode_clip(self.autoencoder, noisy[rows])
            return reconstruction_loss(
                _as_images(decoded.float()),
                _as_images(videos[rows]),
                edge_weight=self.stage.edge_weight,
                detail_weight=self.stage.detail_weight,
            )

        parts = shares(len(videos), self.stage.optimisation.parts)
        losses = set_gradients([partial(loss_of, rows) for rows in parts], self.state.optimizer)
        norm = update(self.state.optimizer, self.stage.optimisation, step, progress)
        self.state.averages["decoder"].update(step)
        return {"loss_pairs" if pairs else "loss_clips": float(torch.stack(losses).mean()), "grad_norm": norm}

    def _batch(self, generator: torch.Generator, pairs: bool) -> Tensor:
        """Videos b 3 T h w: windows of clips, or pairs whose last frame fills a group."""
        size, crop, last = self.source.size_px, self.stage.crop_px, self.clips.shape[1] - 1
        batch, length = self.stage.optimisation.batch_size, LATENT_FRAME_STRIDE * (self.stage.window - 1)
        videos = []
        for which in torch.randint(len(self.clips), (batch,), generator=generator).tolist():
            y, x = torch.randint(size - crop + 1, (2,), generator=generator).tolist()
            first = int(torch.randint(last - length + 1, (), generator=generator))
            frames = [0] + [last] * LATENT_FRAME_STRIDE if pairs else list(range(first, first + length + 1))
            videos.append(self.clips[which][frames, y : y + crop, x : x + crop])
        return _to_video(np.stack(videos), self.device)

    @torch.no_grad()
    def _latents(self, videos: Tensor) -> Tensor:
        """Latents b z t h w (not normalised) of every fourth frame of b 3 T h w."""
        kept = videos[:, :, ::LATENT_FRAME_STRIDE]
        means = encode_frames(self.autoencoder, _as_images(kept)).chunk(2, dim=1)[0]
        return means.unflatten(0, (kept.shape[0], kept.shape[2])).transpose(1, 2)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR of the averaged weights on held-out clips, and of the edit frame of their pairs."""
        ema = self.state.averages["decoder"]
        ema.swap()
        last = self.held_out.shape[1] - 1
        clips, pairs = [], []
        for clip in self.held_out:
            video = _to_video(clip[None, : last - last % LATENT_FRAME_STRIDE + 1], self.device)
            clips.append(psnr(decode_clip(self.autoencoder, self._latents(video)), video))
            pair = _to_video(clip[None, [0] + [last] * LATENT_FRAME_STRIDE], self.device)
            pairs.append(psnr(decode_clip(self.autoencoder, self._latents(pair))[:, :, -1], pair[:, :, -1]))
        ema.swap()
        return {
            "psnr_clips": round(float(torch.stack(clips).mean()), 3),
            "psnr_edit": round(float(torch.stack(pairs).mean()), 3),
        }


def _to_video(clips: np.ndarray, device: torch.device) -> Tensor:
    """uint8 b T h w 3 to float b 3 T h w in [-1, 1]."""
    b, t = clips.shape[:2]
    return to_pixels(clips.reshape(b * t, *clips.shape[2:]), device).unflatten(0, (b, t)).transpose(1, 2)


def _as_images(videos: Tensor) -> Tensor:
    """b 3 T h w to (b T) 3 h w."""
    return videos.transpose(1, 2).flatten(0, 1)
