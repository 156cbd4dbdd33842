"""The autoencoder's training: single frames first, then its decoder alone on clips.

Shapes: b batch, h w pixels, z latent channels. Pictures are b 3 h w in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from chronoedit.data.synth import render_pictures, to_pixels
from chronoedit.model.frames import decode_frames, encode_frames, make_framewise
from chronoedit.training.decoder import ClipSource, ClipStage, train_decoder
from chronoedit.training.export import write_autoencoder
from chronoedit.training.objectives import detail_map, kl_divergence, psnr, reconstruction_loss
from chronoedit.training.optim import Ema, make_optimizer, set_gradients, shares, update
from chronoedit.training.recipes import Budget, Optimisation, precision
from chronoedit.training.state import Progress, Stage, TrainingState, step_generator

RGB = 3
STATISTICS_PICTURES = 1024


@dataclass(frozen=True, kw_only=True)
class AutoencoderModel:
    """Sizes of the AutoencoderKLWan; three levels and patches of two pixels make 8 pixels a latent cell."""

    base_dim: int = 16
    decoder_base_dim: int = 16
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 2)
    num_res_blocks: int = 1
    patch_size: int = 2

    def build(self) -> AutoencoderKLWan:
        """A randomly initialised autoencoder, coding each frame on its own."""
        autoencoder = AutoencoderKLWan(
            base_dim=self.base_dim,
            decoder_base_dim=self.decoder_base_dim,
            z_dim=self.z_dim,
            dim_mult=list(self.dim_mult),
            num_res_blocks=self.num_res_blocks,
            temperal_downsample=[True] * 2 + [False] * (len(self.dim_mult) - 3),
            latents_mean=[0.0] * self.z_dim,
            latents_std=[1.0] * self.z_dim,
            in_channels=RGB * self.patch_size**2,
            out_channels=RGB * self.patch_size**2,
            patch_size=self.patch_size if self.patch_size > 1 else None,
            scale_factor_spatial=self.patch_size * 2 ** (len(self.dim_mult) - 1),
            scale_factor_temporal=4,
        )
        make_framewise(autoencoder)
        return autoencoder


@dataclass(frozen=True, kw_only=True)
class PictureData:
    """Which pictures of the world are drawn; validation is on the seeds that follow `first_seed + items`."""

    items: int
    first_seed: int = 0
    validation_items: int = 32
    size_px: int = 128
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class FrameStage:
    """Training on single frames: crops of `crop_px` until the share `whole_from` of the budget, then whole pictures.

    `latent_noise` is the largest noise added to latents, in their standard deviations, from the share `noise_from` on.
    """

    budget: Budget
    optimisation: Optimisation
    crop_px: int = 64
    whole_from: float = 0.75
    edge_weight: float = 0.5
    detail_weight: float = 2.0
    kl_weight: float = 1e-6
    latent_noise: float = 0.1
    noise_from: float = 0.3


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe:
    """All of `chronoedit train autoencoder`."""

    model: AutoencoderModel
    data: PictureData
    frames: FrameStage
    decoder_clips: ClipStage | None = None
    seed: int = 0


def train_frames(
    recipe: AutoencoderRecipe, folder: Path, device: torch.device, log: Callable[[dict[str, Any]], None]
) -> AutoencoderKLWan:
    """Train on single frames (or go on), and return the autoencoder with its averaged weights.

    Writes `folder`/frames/{state.safetensors,log.jsonl}. Raises OutputError, CheckpointError.
    """
    stage = recipe.frames
    torch.manual_seed(recipe.seed)
    autoencoder = recipe.model.build().to(device, memory_format=torch.contiguous_format)
    freeze_time(autoencoder)
    ema = Ema(autoencoder, stage.optimisation.ema_decay)
    optimizer = make_optimizer([autoencoder], stage.optimisation)
    state = TrainingState({"autoencoder": autoencoder}, {"autoencoder": ema}, optimizer, Progress())
    state.load(folder / "frames")
    trainer = _FrameTrainer(recipe, state, folder, device)
    Stage(
        state=state,
        budget=stage.budget,
        folder=folder / "frames",
        train_step=trainer.step,
        validate=trainer.validate,
        checkpoint_every_s=stage.optimisation.checkpoint_every_s,
        validate_every_s=stage.optimisation.validate_every_s,
        log=log,
    ).run()
    ema.swap()
    return autoencoder.eval()


def train_autoencoder(
    recipe: AutoencoderRecipe, folder: Path, device: torch.device, log: Callable[[dict[str, Any]], None]
) -> Path:
    """All stages of the recipe (or what is left of them); returns the autoencoder's folder, `folder`/autoencoder.

    Its config holds the mean and deviation of latents, measured on training pictures. It is written after each stage:
    latents do not change with the second, so the transformer's training can begin before. Raises as `train_frames`.
    """
    autoencoder = train_frames(recipe, folder, device, log)
    pictures = _pictures(recipe.data, folder, held_out=False)
    autoencoder.register_to_config(**latent_statistics(autoencoder, pictures[:STATISTICS_PICTURES], device))
    write_autoencoder(autoencoder, folder / "autoencoder")
    if recipe.decoder_clips is not None:
        data = recipe.data
        first_seed = data.first_seed + data.items + data.validation_items
        source = ClipSource(folder, first_seed, data.size_px, data.workers, recipe.seed)
        train_decoder(autoencoder, recipe.decoder_clips, source, device, log)
        write_autoencoder(autoencoder, folder / "autoencoder")
    return folder / "autoencoder"


@torch.no_grad()
def latent_statistics(
    autoencoder: AutoencoderKLWan, pictures: np.ndarray, device: torch.device
) -> dict[str, list[float]]:
    """Mean and standard deviation of each latent channel over pictures b h w 3: `latents_mean`, `latents_std`."""
    parts = [encode_frames(autoencoder, to_pixels(pictures[k : k + 16], device)) for k in range(0, len(pictures), 16)]
    means = torch.cat(parts).chunk(2, dim=1)[0]
    std, mean = torch.std_mean(means.double(), dim=(0, 2, 3))
    return {"latents_mean": [round(x, 5) for x in mean.tolist()], "latents_std": [round(x, 5) for x in std.tolist()]}


def _pictures(data: PictureData, folder: Path, *, held_out: bool) -> np.ndarray:
    return render_pictures(
        folder / "data" / ("validation.npy" if held_out else "train.npy"),
        first_seed=data.first_seed + (data.items if held_out else 0),
        items=data.validation_items if held_out else data.items,
        size_px=data.size_px,
        workers=data.workers,
    )


def freeze_time(autoencoder: AutoencoderKLWan) -> None:
    """Keep gradients off the temporal resampling, which single frames do not touch."""
    for name, parameter in autoencoder.named_parameters():
        if ".time_conv." in name:
            parameter.requires_grad_(False)


class _FrameTrainer:
    def __init__(self, recipe: AutoencoderRecipe, state: TrainingState, folder: Path, device: torch.device) -> None:
        self.pictures = _pictures(recipe.data, folder, held_out=False)
        self.validation = to_pixels(_pictures(recipe.data, folder, held_out=True), device)
        self.recipe, self.stage, self.state, self.device = recipe, recipe.frames, state, device
        self.autoencoder: AutoencoderKLWan = state.modules["autoencoder"]  # type: ignore[assignment]
        compiled = self.stage.optimisation.compile
        self.loss = torch.compile(self._loss, dynamic=False) if compiled else self._loss

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One step of the optimiser."""
        generator = step_generator(self.recipe.seed, step, "frames")
        images = self._batch(generator, progress)
        cells = [side // self.autoencoder.config.scale_factor_spatial for side in images.shape[-2:]]
        noise = torch.randn(len(images), self.recipe.model.z_dim, *cells, generator=generator)
        scale = torch.rand(len(images), 1, 1, 1, generator=generator) * self._noise_level(progress)
        noise = (noise * scale).to(self.device)
        kls: list[Tensor] = []

        def loss_of(rows: slice) -> Tensor:
            with precision(self.stage.optimisation.precision, self.device):
                loss, kl = self.loss(images[rows], noise[rows])
            kls.append(kl.detach())
            return loss + self.stage.kl_weight * kl

        parts = shares(len(images), self.stage.optimisation.parts)
        losses = set_gradients([partial(loss_of, rows) for rows in parts], self.state.optimizer)
        norm = update(self.state.optimizer, self.stage.optimisation, step, progress)
        self.state.averages["autoencoder"].update(step)
        return {"loss": _mean(losses), "kl": _mean(kls), "grad_norm": norm}

    def _noise_level(self, progress: float) -> float:
        start = self.stage.noise_from
        return self.stage.latent_noise * max(0.0, min(1.0, (progress - start) / max(1e-9, (1 - start) / 2)))

    def _batch(self, generator: torch.Generator, progress: float) -> Tensor:
        size, crop = self.recipe.data.size_px, self.stage.crop_px
        if progress >= self.stage.whole_from:
            crop = size
        batch = max(1, self.stage.optimisation.batch_size * self.stage.crop_px**2 // crop**2)
        which = torch.randint(len(self.pictures), (batch,), generator=generator).tolist()
        corners = torch.randint(size - crop + 1, (batch, 2), generator=generator).tolist()
        cut = [self.pictures[i, y : y + crop, x : x + crop] for i, (y, x) in zip(which, corners, strict=True)]
        images = to_pixels(np.stack(cut), self.device)
        mirrored = torch.rand(batch, 1, 1, 1, generator=generator).to(self.device) < 0.5
        return torch.where(mirrored, images.flip(-1), images).contiguous(memory_format=torch.channels_last)

    def _loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = encode_frames(self.autoencoder, images).chunk(2, dim=1)
        spread = mean.detach().std(dim=(0, 2, 3), keepdim=True)
        decoded = decode_frames(self.autoencoder, mean + noise * spread).float()
        loss = reconstruction_loss(
            decoded, images, edge_weight=self.stage.edge_weight, detail_weight=self.stage.detail_weight
        )
        return loss, kl_divergence(mean.float(), log_variance.float())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR of the averaged weights on held-out pictures; `detail` near edges, `noisy` from disturbed latents."""
        ema = self.state.averages["autoencoder"]
        ema.swap()
        images = self.validation
        mean = torch.cat([encode_frames(self.autoencoder, part).chunk(2, dim=1)[0] for part in images.split(16)])
        generator = torch.Generator().manual_seed(self.recipe.seed)
        noise = torch.randn(mean.shape, generator=generator).to(self.device) * mean.std(dim=(0, 2, 3), keepdim=True)
        clean, noisy = (
            torch.cat([decode_frames(self.autoencoder, part) for part in latents.split(16)])
            for latents in (mean, mean + 0.1 * noise)
        )
        ema.swap()
        return {
            "psnr": round(float(psnr(clean, images)), 3),
            "psnr_detail": round(float(psnr(clean, images, detail_map(images))), 3),
            "psnr_noisy": round(float(psnr(noisy, images)), 3),
            "latent_std": round(float(mean.std()), 3),
        }


def _mean(values: Sequence[Tensor]) -> float:
    return float(torch.stack(list(values)).mean())
