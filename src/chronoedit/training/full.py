"""Full fine-tuning: all weights of the transformer, in one process or many.

Each process holds all weights ("plain") or a part of them ("fsdp"); and the processes may share the tokens of an
example (see `runtime.context_parallel`), whichever of the two it is.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from chronoedit.model.convert import Conversion, convert
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.runtime.context_parallel import share_tokens
from chronoedit.runtime.processes import Processes
from chronoedit.training.average import PowerAverage, power_of
from chronoedit.training.finetune import MODEL_FOLDER, Finetuner, FinetuneRecipe, Sources, Watch, claim, held
from chronoedit.training.optim import make_optimizer
from chronoedit.training.sharded import ShardedState, finished

STRATEGIES = ("plain", "fsdp")


@dataclass(frozen=True, kw_only=True)
class FullRecipe(FinetuneRecipe):
    """How all weights are trained. `average` is the relative width of the power average of the weights, None for none.

    Weights, gradients, optimiser and average are fp32; `optimisation.precision` is what is computed in.
    """

    strategy: str = "plain"
    average: float | None = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy {self.strategy!r} is unknown; choose one of {', '.join(STRATEGIES)}")
        if self.average is not None:
            power_of(self.average)
        if self.strategy == "fsdp" and self.optimisation.optimizer == "muon":
            raise ValueError("muon needs whole matrices, and fsdp cuts them; use adamw, or strategy plain")


def train_full(
    recipe: FullRecipe,
    sources: Sources,
    folder: Path,
    watch: Watch = Watch(),  # noqa: B008 - frozen
    processes: Processes = Processes(),  # noqa: B008 - frozen
    device: torch.device | None = None,
) -> Path:
    """Train, or go on where `folder` stopped; returns the model's folder, `folder`/model, in the published layout.

    Writes `folder`/{recipe.json, checkpoints, log.jsonl, tensorboard}, and for good every `save_steps` a checkpoint.
    The model has the averaged weights where there is an average. The transformer of `sources` is changed. Once
    `watch.should_stop()` is true it saves its state after the step at hand and raises KeyboardInterrupt.
    Raises OutputError when the folder holds a run of another recipe (naming what differs), TrainingError with the rows
    when the loss is not finite, CheckpointError.
    """
    with held(folder, processes):
        claim(folder, recipe, {**sources.identity()}, processes)
        trainer = FullTrainer(recipe, sources, processes, device or sources.components.device)
        trainer.state.load(folder)
        return trainer.run(folder, watch)


class FullTrainer(Finetuner):
    """All weights in training."""

    recipe: FullRecipe

    def __init__(self, recipe: FullRecipe, sources: Sources, processes: Processes, device: torch.device) -> None:
        super().__init__(recipe, sources, processes, device)
        self.transformer = sources.components.transformer.float().requires_grad_(True)
        self.transformer.train()
        if recipe.gradient_checkpointing or recipe.checkpointing_offload:
            self.transformer.enable_gradient_checkpointing()
        if processes.mesh is not None and processes.context > 1:
            share_tokens(self.transformer, processes.mesh["context"].get_group())
        if recipe.strategy == "fsdp":
            shard(self.transformer, processes, device, recipe.optimisation.precision)
            self.share_gradients = False
        else:
            self.transformer.to(device)
        self.average = None if recipe.average is None else PowerAverage(self.transformer, recipe.average)
        self.optimizer = make_optimizer([self.transformer], recipe.optimisation)
        self.state: ShardedState = ShardedState(
            self.transformer, self.average, self.optimizer, processes, recipe.save_steps
        )

    def step(self, step: int, progress: float) -> dict[str, float]:
        figures = super().step(step, progress)
        if self.average is not None:
            self.average.update(step)
        return figures

    def validate(self) -> dict[str, float]:
        """Loss of the held-out examples by noise level, with the averaged weights where there is an average."""
        if self.average is None:
            return super().validate()
        self.average.swap()
        figures = super().validate()
        self.average.swap()
        return figures

    def after_looking(self) -> None:
        """Take weights back that were gathered: only a backward pass does that by itself for those of the ends."""
        from torch.distributed.fsdp import FSDPModule

        if isinstance(self.transformer, FSDPModule):
            self.transformer.reshard()

    def after_step(self, folder: Path, step: int) -> None:
        """Write a checkpoint that is kept, where one is due."""
        if self.recipe.save_steps is not None and step % self.recipe.save_steps == 0:
            self.state.save(folder)

    def finish(self, folder: Path) -> Path:
        """Write the last checkpoint's weights as a model in the published layout, in place of an earlier one's."""
        model = folder / MODEL_FOLDER
        if self.processes.is_first:
            checkpoint = finished(folder)[-1]
            if not (model / checkpoint.name).exists():
                self._write(checkpoint, model)
        self.processes.barrier()
        return model

    def _write(self, checkpoint: Path, model: Path) -> None:
        """The model of a checkpoint, marked by a file of its name; an earlier one goes when the new one is whole."""
        components, fresh = self.sources.components, model.with_name(f".{model.name}")
        shutil.rmtree(fresh, ignore_errors=True)
        conversion = Conversion(layout="published", dtype=components.target.dtype)
        convert(checkpoint, fresh, conversion, base=components.source, ema=self.average is not None)
        (fresh / checkpoint.name).touch()
        shutil.rmtree(model, ignore_errors=True)
        fresh.replace(model)


def shard(transformer: ChronoEditDiT, processes: Processes, device: torch.device, compute: str) -> None:
    """Cut all weights over all processes (FSDP2), block by block, in place; they are gathered where they are used.

    Raises ValueError for a process alone.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if processes.mesh is None:
        raise ValueError("strategy fsdp needs several processes (torchrun --nproc_per_node=N); alone, use plain")
    mesh = init_device_mesh(device.type, (processes.count,))
    # what is computed in bf16 is cast by autocast; here it halves what is sent to gather the weights
    half = torch.bfloat16 if compute == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    modules: list[nn.Module] = [*transformer.blocks, transformer]
    for module in modules:
        fully_shard(module, mesh=mesh, mp_policy=policy)
