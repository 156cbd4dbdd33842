"""LoRA training of any model of the published layout, the embedded one included, on pairs and reasoning clips.

The base is frozen; only the factors are trained, saved and resumed. Shapes: b batch, z latent channels, c 4 + z
condition channels, t latent frames, h w latent height and width, l text tokens, d embedding width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chronoedit.cache import content_key
from chronoedit.data.encoded import Encoder, Example
from chronoedit.data.loader import epoch_batches
from chronoedit.errors import MissingExtraError, OutputError, TrainingError
from chronoedit.lora.adapters import read_lora
from chronoedit.lora.dialects import LoraLayer, LoraWeights
from chronoedit.lora.files import write_lora
from chronoedit.media import atomic_path
from chronoedit.model import keys
from chronoedit.model.checkpoint import Components
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.training.board import Board
from chronoedit.training.objectives import add_noise, flow_loss, logit_normal_sigmas
from chronoedit.training.optim import make_optimizer, update
from chronoedit.training.recipes import Budget, Optimisation
from chronoedit.training.state import STATE_FILE, Progress, Stage, TrainingState, step_generator

ADAPTER = "default"
RECIPE_FILE = "recipe.json"
LORA_FILE = "lora.safetensors"
VALIDATION_SIGMAS = (0.2, 0.5, 0.8, 1.0)
VALIDATION_EXAMPLES = 32


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What is trained: `targets` are modules in original or our names, whole or by their ends ("q", "to_q", "ffn.0").

    `alpha` is the rank where it is None. Raises ValueError for a rank below 1 or no targets.
    """

    rank: int = 32
    alpha: float | None = None
    targets: tuple[str, ...] = ("q", "k", "v", "o", "ffn.0", "ffn.2")
    trigger_words: str = ""

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.targets:
            raise ValueError(f"rank {self.rank} and {len(self.targets)} target modules; at least 1 of each is needed")


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """How a LoRA is trained, apart from the data and the model; `num_epochs` or `max_steps`, whichever ends first."""

    optimisation: Optimisation
    adapter: Adapter = field(default_factory=Adapter)
    num_epochs: int = 5
    max_steps: int | None = None
    gradient_accumulation_steps: int = 1
    flow_shift: float = 5.0
    text_dropout: float = 0.0
    gradient_checkpointing: bool = False
    checkpointing_offload: bool = False
    save_steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_epochs", "gradient_accumulation_steps", "max_steps", "save_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} is below 1")

    def steps(self, batches_an_epoch: int) -> int:
        """Steps of the optimiser in all."""
        whole = math.ceil(self.num_epochs * batches_an_epoch / self.gradient_accumulation_steps)
        return whole if self.max_steps is None else min(whole, self.max_steps)


def target_modules(linears: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Which of the linear layers (our names) the targets name. Raises ValueError for one that names none."""
    chosen: dict[str, None] = {}
    for target in targets:
        found = [name for name in linears if _is_named(name, target)]
        if not found:
            ends = sorted({name.split(".", 2)[-1] for name in linears if name.startswith("blocks.")})
            raise ValueError(
                f"no linear layer of this model is named {target!r}; in its blocks there are {', '.join(ends)}"
            )
        chosen |= dict.fromkeys(found)
    return list(chosen)


def linear_layers(arguments: Mapping[str, Any]) -> list[str]:
    """The linear layers of the transformer with these (checked) arguments of its config, without building it."""
    shapes = keys.expected_shapes(arguments)
    return [name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2 and ".weight" in name]


def _is_named(module: str, target: str) -> bool:
    names = (module, keys.module_to_original(module))
    return any(name is not None and (name == target or name.endswith(f".{target}")) for name in names)


class Factors(nn.Module):
    """The trainable factors alone, by our names: what is saved, resumed and given to the optimiser."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        trained = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
        self.factors = nn.ParameterDict({name.replace(".", "/"): p for name, p in trained.items()})

    def weights(self, alpha: float) -> LoraWeights:
        """The LoRA as it now is, on the CPU."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, parameter in self.factors.items():
            module, factor = name.replace("/", ".").split(".lora_", 1)
            parts.setdefault(module, {})[factor[0]] = parameter.detach().cpu().clone()
        return LoraWeights({name: LoraLayer(part["A"], part["B"], alpha) for name, part in parts.items()})

    @torch.no_grad()
    def start_from(self, weights: LoraWeights) -> None:
        """Take over a LoRA of the same modules and rank; its alpha is folded in. Raises ValueError for another."""
        mine = {name.replace("/", ".").split(".lora_", 1)[0] for name in self.factors}
        if mine != set(weights.layers):
            odd = sorted(mine ^ set(weights.layers))
            raise ValueError(f"the LoRA to go on from has other modules: {', '.join(odd[:10])} ({len(odd)} in all)")
        for name, parameter in self.factors.items():
            module, factor = name.replace("/", ".").split(".lora_", 1)
            layer = weights.layers[module]
            value = layer.down if factor[0] == "A" else layer.up.float() * layer.scaling
            if value.shape != parameter.shape:
                raise ValueError(
                    f"the LoRA to go on from has rank {layer.rank} at {module} and a factor of {list(value.shape)}, "
                    f"where {list(parameter.shape)} is wanted; give its rank"
                )
            parameter.copy_(value)


def add_factors(transformer: ChronoEditDiT, adapter: Adapter, seed: int) -> Factors:
    """Freeze the transformer and add trainable factors to its target modules, in fp32.

    Raises ValueError for a target that names no module, MissingExtraError.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtraError('training a LoRA needs peft: pip install "chronoedit[lora]"') from error
    linears = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
    modules = target_modules(linears, adapter.targets)
    alpha = adapter.rank if adapter.alpha is None else adapter.alpha
    transformer.requires_grad_(False)
    torch.manual_seed(seed)
    transformer.add_adapter(
        LoraConfig(r=adapter.rank, lora_alpha=alpha, target_modules=modules, init_lora_weights=True), ADAPTER
    )
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return Factors(transformer)


@dataclass(frozen=True)
class Sources:
    """What a LoRA is trained on: a model, and examples that its encoder has stored, some of them held out."""

    components: Components
    encoder: Encoder
    examples: Sequence[Example]
    lora_checkpoint: Path | None = None
    validation: Sequence[Example] = ()

    def identity(self) -> dict[str, str | None]:
        """What a run may not exchange when it goes on: the model, the examples in their order, the LoRA begun with."""
        content = [key for each in self.examples for key in (each.latents, each.condition, each.text)]
        start = None if self.lora_checkpoint is None else read_lora(self.lora_checkpoint).sha256
        return {
            "model": self.components.model_hash,
            "set": content_key("set", *content),
            "lora_checkpoint": start,
        }


def train_lora(
    recipe: LoraRecipe,
    sources: Sources,
    folder: Path,
    log: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train, or go on where `folder` stopped; returns the finished LoRA's file, `folder`/lora.safetensors.

    Writes `folder`/{recipe.json, state.safetensors, log.jsonl, tensorboard} and step-N.safetensors, every `save_steps`.
    Once `should_stop()` is true it saves its state after the step at hand and raises KeyboardInterrupt.
    Raises OutputError when the folder holds a run of another recipe (naming what differs), TrainingError with the rows
    when the loss is not finite, LoraError, CheckpointError.
    """
    _claim(folder, {**asdict(recipe), **sources.identity()})
    trainer = LoraTrainer(recipe, sources)
    trainer.state.load(folder)
    board = Board(folder / "tensorboard")

    def both(record: dict[str, Any]) -> None:
        board.write(record)
        log(record)

    stage = Stage(
        state=trainer.state,
        budget=Budget(max_steps=recipe.steps(trainer.batches_an_epoch)),
        folder=folder,
        train_step=trainer.step,
        validate=trainer.validate,
        checkpoint_every_s=recipe.optimisation.checkpoint_every_s,
        validate_every_s=recipe.optimisation.validate_every_s,
        log=both,
        on_step=lambda step: trainer.save_every(folder, step),
        should_stop=should_stop,
    )
    with board:
        stage.run()
    trainer.save(folder / LORA_FILE)
    read_lora(folder / LORA_FILE)  # what was written is a LoRA
    return folder / LORA_FILE


def forget(folder: Path) -> None:
    """Take a run's state out of its folder, so that the next one starts over; LoRA files stay."""
    for name in (RECIPE_FILE, STATE_FILE, "log.jsonl"):
        (folder / name).unlink(missing_ok=True)


def _claim(folder: Path, mine: dict[str, Any]) -> None:
    path = folder / RECIPE_FILE
    mine = json.loads(json.dumps(mine))
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(mine, indent=1) + "\n", encoding="utf-8")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    different = sorted(name for name in {*found, *mine} if found.get(name) != mine.get(name) and name != "max_steps")
    if different:
        raise OutputError(
            f"{folder} holds a run of another recipe: {', '.join(different)} differ; start over there (--fresh), or "
            "choose another output"
        )


class LoraTrainer:
    """The factors in training."""

    def __init__(self, recipe: LoraRecipe, sources: Sources) -> None:
        self.recipe, self.sources = recipe, sources
        self.transformer: ChronoEditDiT = sources.components.transformer
        self.factors = add_factors(self.transformer, recipe.adapter, recipe.seed)
        if sources.lora_checkpoint is not None:
            self.factors.start_from(read_lora(sources.lora_checkpoint).weights)
        if recipe.gradient_checkpointing or recipe.checkpointing_offload:
            self.transformer.enable_gradient_checkpointing()
        self.transformer.train()
        self.buckets = [example.bucket for example in sources.examples]
        self.batches_an_epoch = len(epoch_batches(self.buckets, recipe.optimisation.batch_size, recipe.seed, 0))
        self._epochs: dict[int, list[list[int]]] = {}
        optimizer = make_optimizer([self.factors], recipe.optimisation)
        self.state = TrainingState({"lora": self.factors}, {}, optimizer, Progress())

    @property
    def alpha(self) -> float:
        """What the factors' product is multiplied by, times the rank."""
        return float(self.recipe.adapter.rank if self.recipe.adapter.alpha is None else self.recipe.adapter.alpha)

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One step of the optimiser, over as many batches as are accumulated."""
        count = self.recipe.gradient_accumulation_steps
        total = 0.0
        for micro in range(step * count, (step + 1) * count):
            examples = self._batch(micro)
            loss = self._loss(examples, step_generator(self.recipe.seed, micro, "lora"))
            if not torch.isfinite(loss):
                rows = ", ".join(example.row for example in examples)
                raise TrainingError(
                    f"the loss is {float(loss.detach())} at step {step + 1}, on {rows}; look at those rows, or lower "
                    "the learning rate. The last checkpoint is kept"
                )
            (loss / count).backward()
            total += float(loss.detach()) / count
        norm = update(self.state.optimizer, self.recipe.optimisation, step, progress)
        return {"loss": total, "grad_norm": norm}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of the held-out examples by noise level, with noise that is the same at each call; {} without any."""
        figures = {}
        held_out = list(self.sources.validation)[:VALIDATION_EXAMPLES]
        for level in VALIDATION_SIGMAS if held_out else ():
            losses = []
            for at, example in enumerate(held_out):
                generator = step_generator(self.recipe.seed, at, "validation")
                losses.append(float(self._loss([example], generator, torch.tensor([level]))))
            figures[f"val_{level}"] = round(sum(losses) / len(losses), 5)
        return figures

    def save(self, path: Path) -> None:
        """Write the LoRA as it now is, in diffusers' spelling, with what it was made from. Raises OutputError."""
        metadata = {
            "base_model_hash": self.sources.components.model_hash,
            "recipe": json.dumps(asdict(self.recipe)),
            "steps": str(self.state.progress.step),
        }
        if self.recipe.adapter.trigger_words:
            metadata["trigger_words"] = self.recipe.adapter.trigger_words
        write_lora(self.factors.weights(self.alpha), path, "diffusers", metadata)

    def save_every(self, folder: Path, step: int) -> None:
        """Write step-N.safetensors where one is due."""
        if self.recipe.save_steps is not None and step % self.recipe.save_steps == 0:
            self.save(folder / f"step-{step}.safetensors")

    def _batch(self, micro: int) -> list[Example]:
        epoch, index = divmod(micro, self.batches_an_epoch)
        if epoch not in self._epochs:  # of a large set this is work, and steps of one epoch follow each other
            batches = epoch_batches(self.buckets, self.recipe.optimisation.batch_size, self.recipe.seed, epoch)
            self._epochs = {epoch: batches}
        return [self.sources.examples[k] for k in self._epochs[epoch][index]]

    def _loss(self, examples: Sequence[Example], generator: torch.Generator, sigmas: Tensor | None = None) -> Tensor:
        """Mean loss of a batch; noise levels are drawn, and prompts dropped, where `sigmas`, b, are not given."""
        device, dtype = self.sources.components.device, self.transformer.dtype
        loaded = [self.sources.encoder.load(example) for example in examples]
        latents = torch.stack([each.latents for each in loaded]).float()  # b z t h w
        dropout = self.recipe.text_dropout if sigmas is None else 0.0
        if sigmas is None:
            sigmas = logit_normal_sigmas(len(loaded), self.recipe.flow_shift, generator)
        noise = torch.randn(latents.shape, generator=generator)
        dropped = torch.rand(len(loaded), generator=generator) < dropout
        noisy, target = add_noise(latents, noise, sigmas)
        conditions = torch.stack([each.condition for each in loaded])  # b c t h w
        text, lengths = self._text(
            [self._empty() if drop else each.text for each, drop in zip(loaded, dropped, strict=True)]
        )
        images = [each.image for each in loaded if each.image is not None]
        with self._saving():
            velocity = self.transformer(
                torch.cat([noisy, conditions], dim=1).to(device, dtype),
                (1000 * sigmas).to(device),
                text.to(device, dtype),
                torch.stack(images).to(device, dtype) if images else None,
                text_lengths=lengths,
                return_dict=False,
            )[0]
        weight = torch.ones_like(target[:, :1])
        return flow_loss(velocity, target.to(device), weight.to(device)).mean()

    def _empty(self) -> Tensor:
        return self.sources.encoder.cache.get(self.sources.encoder.text_key(""))

    def _text(self, texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Embeds b l d, zero past each length, and the lengths b."""
        lengths = torch.tensor([len(text) for text in texts])
        padded = texts[0].new_zeros(
            len(texts), self.sources.components.settings.max_sequence_length, texts[0].shape[-1]
        )
        for row, text in zip(padded, texts, strict=True):
            row[: len(text)] = text
        return padded, lengths

    def _saving(self) -> AbstractContextManager[Any]:
        """Where activations wait for the backward pass: in main memory, when they are offloaded."""
        if not self.recipe.checkpointing_offload:
            return nullcontext()
        return torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available())
