"""Training of the transformer with its text encoder: rectified flow on pairs and reasoning clips of the world.

Shapes: b batch, z latent channels, t latent frames, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chronoedit.data.synth import LatentPlan, LatentSet, encode_items, load_framewise
from chronoedit.model.autoencoder import normalise
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.model.parts import load_tokenizer
from chronoedit.model.settings import ModelSettings
from chronoedit.training.export import TrainedModel, write_model
from chronoedit.training.grounding import CELLS_A_SIDE, GroundingHead, MiddleOf, grounding_loss
from chronoedit.training.initialisation import MASK_CHANNELS, copy_input_frame, hush_padding, look_at_input_frame
from chronoedit.training.objectives import add_noise, change_weight, flow_loss, logit_normal_sigmas
from chronoedit.training.optim import Ema, make_optimizer, set_gradients, shares, update
from chronoedit.training.plain_attention import use_plain_attention
from chronoedit.training.recipes import Budget, Optimisation, precision
from chronoedit.training.state import Progress, Stage, TrainingState, step_generator
from chronoedit.training.text import Prompts, TextModel, embed, train_tokenizer

VALIDATION_SIGMAS = (0.2, 0.5, 0.8, 1.0)
VALIDATION_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class TransformerModel:
    """Sizes of the transformer; its width is heads · head_dim (head_dim 48, 96 or 128).

    The first `input_heads` heads of the first `input_layers` blocks begin by looking at their own place in the input
    frame, and with `copy_input` by bringing it into the velocity (see `initialisation`).
    """

    num_heads: int = 6
    head_dim: int = 48
    num_layers: int = 8
    ffn_dim: int = 1152
    input_layers: int = 3
    input_heads: int = 2
    copy_input: bool = False

    def build(self, z_dim: int, text_dim: int) -> ChronoEditDiT:
        """A randomly initialised transformer without image branch: it begins with zero velocity, and hears its text."""
        transformer = ChronoEditDiT(
            num_attention_heads=self.num_heads,
            attention_head_dim=self.head_dim,
            in_channels=2 * z_dim + MASK_CHANNELS,
            out_channels=z_dim,
            text_dim=text_dim,
            freq_dim=256,
            ffn_dim=self.ffn_dim,
            num_layers=self.num_layers,
        )
        mask = range(z_dim, z_dim + MASK_CHANNELS)
        look_at_input_frame(transformer, mask=mask, layers=self.input_layers, heads=self.input_heads)
        torch.nn.init.zeros_(transformer.proj_out.weight)
        torch.nn.init.zeros_(transformer.proj_out.bias)
        if self.copy_input:
            copy_input_frame(transformer, z_dim=z_dim, heads=self.input_heads)
        hush_padding(transformer)
        return transformer


@dataclass(frozen=True, kw_only=True)
class LatentData:
    """Which items are encoded; validation is on the seeds that follow `first_seed + items`."""

    items: int
    first_seed: int = 0
    clip_every: int = 6
    validation_items: int = 48
    size_px: int = 128
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The objective: noise levels through `flow_shift`; `clip_share` of the steps are reasoning clips.

    A clip step takes `clip_batch` clips. `changed_weight` is the extra weight of latents that the edit changes,
    `text_dropout` the share of prompts replaced by the empty one, `caption_share` that of the steps whose prompts are
    the long ones. `grounding_weight` is the weight of `grounding`'s loss; 0 for none.
    """

    flow_shift: float = 3.0
    changed_weight: float = 3.0
    text_dropout: float = 0.1
    caption_share: float = 0.0
    clip_share: float = 0.36
    clip_batch: int = 4
    grounding_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Inference:
    """What the model's folder will say about its use."""

    name: str = "tiny"
    num_inference_steps: int = 16
    guidance_scale: float = 1.5
    flow_shift: float = 3.0
    licence: str = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class EmbeddedRecipe:
    """All of `chronoedit train embedded`."""

    data: LatentData
    budget: Budget
    optimisation: Optimisation
    transformer: TransformerModel = field(default_factory=TransformerModel)
    text: TextModel = field(default_factory=TextModel)
    flow: Flow = field(default_factory=Flow)
    inference: Inference = field(default_factory=Inference)
    seed: int = 0

    def settings(self) -> ModelSettings:
        """The settings of the model's folder."""
        own = self.inference
        return ModelSettings(
            name=own.name,
            target_area=self.data.size_px**2,
            num_inference_steps=own.num_inference_steps,
            guidance_scale=own.guidance_scale,
            flow_shift=own.flow_shift,
            max_sequence_length=self.text.max_sequence_length,
            licence=own.licence,
        )


def train_embedded(
    recipe: EmbeddedRecipe,
    *,
    autoencoder: Path,
    folder: Path,
    device: torch.device,
    log: Callable[[dict[str, Any]], None],
) -> Path:
    """Encode the data, train (or go on with either), and write the model; returns the model's folder.

    Writes `folder`/latents, `folder`/state.safetensors, `folder`/log.jsonl and, at each checkpoint, `folder`/model in
    the published layout with the averaged weights. Raises OutputError, CheckpointError.
    """
    train = _encoded(recipe, autoencoder, folder, "train", log)
    validation = _encoded(recipe, autoencoder, folder, "validation", log)
    tokenizer_folder = folder / "model" / "tokenizer"
    if not (tokenizer_folder / "tokenizer.json").exists():
        train_tokenizer([*train.prompts, *train.captions], tokenizer_folder, recipe.text)
    trainer = Trainer(recipe, Sources(autoencoder, tokenizer_folder, train, validation), device)
    trainer.state.load(folder)
    Stage(
        state=trainer.state,
        budget=recipe.budget,
        folder=folder,
        train_step=trainer.step,
        validate=trainer.validate,
        checkpoint_every_s=recipe.optimisation.checkpoint_every_s,
        validate_every_s=recipe.optimisation.validate_every_s,
        log=log,
        on_checkpoint=lambda: trainer.export(folder / "model"),
    ).run()
    trainer.export(folder / "model")
    return folder / "model"


def _encoded(
    recipe: EmbeddedRecipe, autoencoder: Path, folder: Path, part: str, log: Callable[[dict[str, Any]], None]
) -> LatentSet:
    data = recipe.data
    held_out = part == "validation"
    plan = LatentPlan(
        autoencoder=autoencoder,
        folder=folder / "latents" / part,
        first_seed=data.first_seed + (data.items if held_out else 0),
        items=data.validation_items if held_out else data.items,
        clip_every=4 if held_out else data.clip_every,
        size_px=data.size_px,
    )
    return encode_items(plan, workers=data.workers, on_shard=lambda k, n: log({"encoded": part, "shard": k, "of": n}))


@dataclass(frozen=True)
class Sources:
    """What a trainer reads: the autoencoder's and tokenizer's folders, and the encoded items."""

    autoencoder: Path
    tokenizer: Path
    train: LatentSet
    validation: LatentSet


class Trainer:
    """The transformer and its text encoder in training."""

    def __init__(self, recipe: EmbeddedRecipe, sources: Sources, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.autoencoder = load_framewise(sources.autoencoder)
        tokenizer = load_tokenizer(sources.tokenizer)
        limit = recipe.text.max_sequence_length
        torch.manual_seed(recipe.seed)
        self.transformer = recipe.transformer.build(self.autoencoder.config.z_dim, recipe.text.d_model).to(device)
        use_plain_attention(self.transformer, recipe.optimisation.precision, device)
        self.text_encoder = recipe.text.build(len(tokenizer)).to(device)
        self.train, self.validation = sources.train, sources.validation
        self.prompts = Prompts(tokenizer, sources.train.prompts, limit)
        self.captions = Prompts(tokenizer, sources.train.captions, limit)
        self.validation_prompts = Prompts(tokenizer, sources.validation.prompts, limit)
        self.empty = normalise(self.autoencoder, sources.train.empty[None, :, None]).to(device)  # 1 z 1 h w
        modules: dict[str, nn.Module] = {"transformer": self.transformer, "text_encoder": self.text_encoder}
        if recipe.flow.grounding_weight > 0:
            self.middle = MiddleOf(self.transformer)
            self.head = GroundingHead(recipe.transformer.num_heads * recipe.transformer.head_dim).to(device)
            modules["grounding"] = self.head
        averages = {name: Ema(module, recipe.optimisation.ema_decay) for name, module in modules.items()}
        optimizer = make_optimizer(list(modules.values()), recipe.optimisation)
        self.state = TrainingState(modules, averages, optimizer, Progress())
        if recipe.optimisation.compile:
            self.transformer.compile_repeated_blocks()

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One step of the optimiser, on pairs or on clips."""
        generator = step_generator(self.recipe.seed, step, "flow")
        flow = self.recipe.flow
        clips = bool(torch.rand((), generator=generator) < flow.clip_share) and len(self.train.clips) > 0
        source = self.train.clips if clips else self.train.pairs
        count = flow.clip_batch if clips else self.recipe.optimisation.batch_size
        which = torch.randint(len(source), (count,), generator=generator).tolist()
        items = self.train.clip_items[which].tolist() if clips else which
        dropped = (torch.rand(count, generator=generator) < flow.text_dropout).tolist()
        sigmas = logit_normal_sigmas(count, flow.flow_shift, generator)
        words = self.captions if torch.rand((), generator=generator) < flow.caption_share else self.prompts
        latents = self._latents(source[which])
        edited = torch.tensor(self.train.edited[items]).to(self.device) / 255  # b 2 h w
        noise = torch.randn(latents.shape, generator=generator).to(self.device)

        found: dict[str, list[Tensor]] = {"loss_clips" if clips else "loss_pairs": [], "loss_grounding": []}

        def loss_of(rows: slice) -> Tensor:
            ids, lengths = words.batch(items[rows], dropped[rows])
            with precision(self.recipe.optimisation.precision, self.device):
                parts = [self._losses(latents[rows], noise[rows], sigmas[rows], ids, lengths).mean()]
                if flow.grounding_weight > 0:
                    parts.append(self._grounding(latents[rows], edited[rows]).mean())
            for losses, part in zip(found.values(), parts, strict=False):
                losses.append(part.detach())
            return parts[0] + sum(flow.grounding_weight * part for part in parts[1:])

        parts = shares(count, self.recipe.optimisation.parts)
        set_gradients([partial(loss_of, rows) for rows in parts], self.state.optimizer)
        norm = update(self.state.optimizer, self.recipe.optimisation, step, progress)
        for ema in self.state.averages.values():
            ema.update(step)
        return {name: float(torch.stack(losses).mean()) for name, losses in found.items() if losses} | {
            "grad_norm": norm
        }

    def _latents(self, stored: np.ndarray) -> Tensor:
        """Normalised latents b z t h w of stored b t z h w."""
        latents = torch.tensor(stored).float().transpose(1, 2)
        return normalise(self.autoencoder, latents).to(self.device)

    def _losses(self, latents: Tensor, noise: Tensor, sigmas: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """Loss of each item, b."""
        noisy, target = add_noise(latents, noise, sigmas)
        text = embed(self.text_encoder, ids.to(self.device), lengths, self.recipe.text.max_sequence_length)
        velocity = self.transformer(
            torch.cat([noisy, self._condition(latents)], dim=1),
            (1000 * sigmas).to(self.device),
            text,
            text_lengths=lengths,
            return_dict=False,
        )[0]
        return flow_loss(velocity, target, change_weight(latents, self.recipe.flow.changed_weight))

    def _grounding(self, latents: Tensor, edited: Tensor) -> Tensor:
        """Loss of each item, b, of what the pass that has just been made knows of where the edit is."""
        t, h, w = latents.shape[2:]
        return grounding_loss(self.head(self.middle.take(), (t, h // CELLS_A_SIDE, w // CELLS_A_SIDE)), edited)

    def _condition(self, latents: Tensor) -> Tensor:
        """Mask and condition b 4+z t h w: the input frame, then empty ones, as `model.condition.image_condition`."""
        b, _, t, h, w = latents.shape
        mask = latents.new_zeros(b, MASK_CHANNELS, t, h, w)
        mask[:, :, 0] = 1
        empty = self.empty.expand(b, -1, t - 1, -1, -1)
        return torch.cat([mask, torch.cat([latents[:, :, :1], empty], dim=2)], dim=1)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Unweighted loss of the averaged weights on held-out pairs by noise level, and on clips at sigma 0.8.

        `edit` is the loss of pairs' edit frame alone at sigma 1, where nothing but text and input tells the answer.
        """
        figures: dict[str, float] = {}
        averages = self.state.averages.values()
        for ema in averages:
            ema.swap()
        for sigma in VALIDATION_SIGMAS:
            errors = self._errors(self.validation.pairs, np.arange(len(self.validation.pairs)), sigma)
            figures[f"val_{sigma}"] = round(float(errors.mean()), 4)
        figures["val_edit"] = round(float(errors[:, :, 1].mean()), 4)
        errors = self._errors(self.validation.clips, self.validation.clip_items, 0.8)
        figures["val_clips_0.8"] = round(float(errors.mean()), 4)
        for ema in averages:
            ema.swap()
        return figures

    def _errors(self, stored: np.ndarray, items: np.ndarray, sigma: float) -> Tensor:
        """Squared errors b z t h w of the velocity at one noise level, with noise that is the same at each call."""
        errors = []
        batch = VALIDATION_BATCH * 2 // stored.shape[1] or 1
        for at in range(0, len(stored), batch):
            latents = self._latents(stored[at : at + batch])
            generator = step_generator(self.recipe.seed, at, "validation")
            noise = torch.randn(latents.shape, generator=generator).to(self.device)
            rows = items[at : at + batch].tolist()
            ids, lengths = self.validation_prompts.batch(rows, [False] * len(rows))
            sigmas = torch.full((len(rows),), sigma)
            noisy, target = add_noise(latents, noise, sigmas)
            text = embed(self.text_encoder, ids.to(self.device), lengths, self.recipe.text.max_sequence_length)
            model_input = torch.cat([noisy, self._condition(latents)], dim=1)
            timesteps = (1000 * sigmas).to(self.device)
            velocity = self.transformer(model_input, timesteps, text, text_lengths=lengths, return_dict=False)[0]
            errors.append((velocity - target).square())
        return torch.cat(errors)

    def export(self, folder: Path) -> None:
        """Write the model with the averaged weights. Raises OutputError."""
        for ema in self.state.averages.values():
            ema.swap()
        model = TrainedModel(self.transformer, self.text_encoder, self.autoencoder, self.recipe.settings())
        write_model(model, folder)
        for ema in self.state.averages.values():
            ema.swap()
