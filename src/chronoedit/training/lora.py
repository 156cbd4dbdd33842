"""LoRA training of any model of the published layout, the embedded one included, on pairs and reasoning clips.

The base is frozen; only the factors are trained, saved and resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chronoedit.errors import MissingExtraError, TrainingError
from chronoedit.lora.adapters import read_lora
from chronoedit.lora.dialects import LoraLayer, LoraWeights
from chronoedit.lora.files import describe, write_lora
from chronoedit.model import keys
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.runtime.block_swap import swap_blocks
from chronoedit.runtime.processes import Processes
from chronoedit.runtime.quantize import quantize
from chronoedit.training.finetune import Finetuner, FinetuneRecipe, Sources, Watch, claim, held
from chronoedit.training.optim import make_optimizer
from chronoedit.training.state import Progress, TrainingState

ADAPTER = "default"
LORA_FILE = "lora.safetensors"


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
class LoraRecipe(FinetuneRecipe):
    """How a LoRA is trained: as any model is trained further, and what is added to the frozen one.

    The frozen blocks' weights are stored in `base_precision` (see `runtime.quantize`; None: as they are), and those of
    `blocks_to_swap` blocks wait in main memory (see `runtime.block_swap`).
    """

    adapter: Adapter = field(default_factory=Adapter)
    base_precision: str | None = None
    blocks_to_swap: int = 0


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


def train_lora(
    recipe: LoraRecipe,
    sources: Sources,
    folder: Path,
    watch: Watch = Watch(),  # noqa: B008 - frozen
    processes: Processes = Processes(),  # noqa: B008 - frozen
    device: torch.device | None = None,
) -> Path:
    """Train, or go on where `folder` stopped; returns the finished LoRA's file, `folder`/lora.safetensors.

    Writes `folder`/{recipe.json, state.safetensors, log.jsonl, tensorboard} and step-N.safetensors, every `save_steps`.
    Once `watch.should_stop()` is true it saves its state after the step at hand and raises KeyboardInterrupt.
    Raises OutputError when the folder holds a run of another recipe (naming what differs), TrainingError with the rows
    when the loss is not finite, LoraError, CheckpointError. The transformer of `sources` is changed, and moved to
    `device` (default: where it is).
    """
    start = None if sources.lora_checkpoint is None else read_lora(sources.lora_checkpoint).sha256
    with held(folder, processes):
        claim(folder, recipe, {**sources.identity(), "lora_checkpoint": start}, processes)
        trainer = LoraTrainer(recipe, sources, processes, device)
        trainer.state.load(folder)
        return trainer.run(folder, watch)


class LoraTrainer(Finetuner):
    """The factors in training."""

    recipe: LoraRecipe

    def __init__(
        self,
        recipe: LoraRecipe,
        sources: Sources,
        processes: Processes = Processes(),  # noqa: B008 - frozen
        device: torch.device | None = None,
    ) -> None:
        super().__init__(recipe, sources, processes, device or sources.components.device)
        self.transformer = sources.components.transformer
        self.factors = add_factors(self.transformer, recipe.adapter, recipe.seed)
        if recipe.base_precision is not None:
            quantize(self.transformer, recipe.base_precision)
        swap_blocks(self.transformer, recipe.blocks_to_swap, self.device)
        if sources.lora_checkpoint is not None:
            self.factors.start_from(read_lora(sources.lora_checkpoint).weights)
        if recipe.gradient_checkpointing or recipe.checkpointing_offload:
            self.transformer.enable_gradient_checkpointing()
        self.transformer.train()
        self.optimizer = make_optimizer([self.factors], recipe.optimisation)
        self.state: TrainingState = TrainingState({"lora": self.factors}, {}, self.optimizer, Progress())

    @property
    def alpha(self) -> float:
        """What the factors' product is multiplied by, times the rank."""
        return float(self.recipe.adapter.rank if self.recipe.adapter.alpha is None else self.recipe.adapter.alpha)

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

    def after_step(self, folder: Path, step: int) -> None:
        """Write step-N.safetensors where one is due."""
        if self.recipe.save_steps is not None and step % self.recipe.save_steps == 0 and self.processes.is_first:
            self.save(folder / f"step-{step}.safetensors")

    def finish(self, folder: Path) -> Path:
        """Write lora.safetensors, and read it again: it must be a LoRA that changes something. Raises TrainingError."""
        path = folder / LORA_FILE
        if self.processes.is_first:
            self.save(path)
            if describe(read_lora(path)).delta_norm == 0:
                raise TrainingError(f"{path} changes nothing: its factors are zero; train longer, or at a higher rate")
        self.processes.barrier()
        return path
