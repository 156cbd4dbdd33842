"""What a fine-tuning is made of, as `plan` takes it: from a recipe, a model's config and the encoded set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from chronoedit.data.encoded import Example
from chronoedit.model import keys
from chronoedit.model.settings import ModelSettings
from chronoedit.runtime.plan_facts import Shape
from chronoedit.runtime.processes import Processes
from chronoedit.runtime.quantize import PRECISIONS
from chronoedit.training.finetune import FinetuneRecipe
from chronoedit.training.full import FullRecipe
from chronoedit.training.lora import LoraRecipe, linear_layers, target_modules
from chronoedit.training.plan import SLOTS, TrainingFacts

IMAGE_TOKENS = 257
OTHER_SLOTS = 2  # what an optimiser is taken to keep that is not in the table


def facts_of(
    recipe: FinetuneRecipe,
    arguments: Mapping[str, Any],
    settings: ModelSettings,
    examples: Sequence[Example],
    processes: Processes,
    device: torch.device,
    dtype: torch.dtype,
) -> TrainingFacts:
    """The facts of one process; `arguments` are the transformer's (`keys.check_config`), `dtype` the frozen base's."""
    shape = Shape.of(arguments)
    common: dict[str, Any] = {
        "shape": shape,
        "tokens": max(
            shape.tokens(each.bucket.latent_frames, each.bucket.height, each.bucket.width) for each in examples
        ),
        "prompt_tokens": settings.max_sequence_length + (IMAGE_TOKENS if shape.image_branch else 0),
        "batch_size": recipe.optimisation.batch_size,
        "accumulation": recipe.gradient_accumulation_steps,
        "slots": SLOTS.get(recipe.optimisation.optimizer.lower(), OTHER_SLOTS),
        "checkpointing": recipe.gradient_checkpointing or recipe.checkpointing_offload,
        "checkpoint_offload": recipe.checkpointing_offload and device.type != "cpu",
        "context": processes.context,
        "host_is_device": device.type == "cpu",
    }
    if isinstance(recipe, LoraRecipe):
        stored = dtype.itemsize if recipe.base_precision is None else PRECISIONS[recipe.base_precision].bytes_a_weight
        return TrainingFacts(
            kind="lora",
            trained=_factors(recipe, arguments),
            compute="bf16" if dtype == torch.bfloat16 else "fp32",
            base_bytes=stored,
            rank=recipe.adapter.rank,
            swapped_blocks=0 if device.type == "cpu" else recipe.blocks_to_swap,
            **common,
        )
    assert isinstance(recipe, FullRecipe)
    return TrainingFacts(
        kind="full",
        trained=shape.parameters,
        compute="bf16" if recipe.optimisation.precision == "bf16" else "fp32",
        averages=int(recipe.average is not None),
        shards=processes.count if recipe.strategy == "fsdp" else 1,
        **common,
    )


def _factors(recipe: LoraRecipe, arguments: Mapping[str, Any]) -> int:
    """Parameters of a LoRA's factors."""
    shapes = keys.expected_shapes(arguments)
    modules = target_modules(linear_layers(arguments), recipe.adapter.targets)
    return recipe.adapter.rank * sum(sum(shapes[f"{name}.weight"]) for name in modules)
