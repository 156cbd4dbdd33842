"""`chronoedit train full`: all weights of the transformer, on one device or many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from chronoedit.apps.encoding import SizeFlags
from chronoedit.apps.finetuning import RunFlags, TrainingSetFlags, announce, encoded, report, watching
from chronoedit.apps.launch import joined, stop_after_step, world_size
from chronoedit.apps.options import option

if TYPE_CHECKING:
    import torch

    from chronoedit.training.full import FullRecipe


@dataclass(frozen=True, kw_only=True)
class FullModelFlags:
    """What is trained, and how it lies over the processes."""

    model_path: Annotated[str, option("'tiny', a folder, or a hub id", shown="MODEL")] = "tiny"
    strategy: Annotated[
        Literal["auto", "plain", "fsdp"],
        option("all weights on each process, or a part (auto: fsdp on several)", shown="NAME"),
    ] = "auto"
    context_parallel: Annotated[int, option("processes that share the tokens of an example", shown="N")] = 1
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], option("computed in (auto: bf16 on cuda); weights are fp32", shown="NAME")
    ] = "auto"
    ema_width: Annotated[float, option("relative width of the weights' average; 0: none", shown="X")] = 0.1
    device: Annotated[str | None, option("cpu or cuda (default: cuda where there is one)", shown="NAME")] = None


@dataclass(frozen=True, kw_only=True)
class FullRunFlags(RunFlags):
    """How it is trained."""

    learning_rate: Annotated[float, option("after the warm-up; a cosine brings it to 0", shown="X")] = 2e-5
    text_dropout: Annotated[float, option("share of prompts left out, 0 to 1", shown="X")] = 0.2


@dataclass(frozen=True, kw_only=True)
class TrainFull:
    """Train all weights of the transformer; the same command goes on where it stopped. With torchrun, on many GPUs."""

    data: TrainingSetFlags
    sizes: SizeFlags = field(default_factory=SizeFlags)
    model: FullModelFlags = field(default_factory=FullModelFlags)
    training: FullRunFlags
    takes_recipe: ClassVar[bool] = True

    def run(self) -> int:
        """Check everything, encode the set, train, and say where the model is."""
        self.training.check()
        sets = self.data.records(self.sizes)
        from chronoedit.model.checkpoint import locate, open_checkpoint
        from chronoedit.model.headers import read_json
        from chronoedit.model.keys import check_config
        from chronoedit.training.facts import facts_of
        from chronoedit.training.finetune import Schedule, Sources, forget, held
        from chronoedit.training.full import train_full

        folder = self.training.output_path
        config = locate(self.model.model_path).folder / "transformer" / "config.json"
        arguments = check_config(read_json(config), config)
        with (
            joined(self.model.device, self.model.context_parallel) as (processes, device),
            stop_after_step() as should_stop,
        ):
            recipe = self._recipe(open_checkpoint(self.model.model_path, device="cpu").settings.flow_shift, device)
            if self.training.fresh:
                with held(folder, processes):
                    forget(folder, processes)
            cache = self.data.cache or folder / "cache"
            encoder, examples, held_out = encoded(
                open_checkpoint(self.model.model_path, device=device), self.sizes, cache, sets, processes
            )
            # the weights are read into main memory, and only this process's part of them goes to the device
            components = open_checkpoint(self.model.model_path, device="cpu")
            dtype = components.target.dtype
            facts = facts_of(recipe, arguments, components.settings, examples, processes, device, dtype)
            announce(facts, Schedule(recipe, examples, processes).steps, processes, device)
            sources = Sources(components, encoder, examples, validation=held_out)
            with watching(self.training, processes, should_stop) as watch:
                path = train_full(recipe, sources, folder, watch, processes, device)
            report(folder, processes)
            if processes.is_first:
                print(path)
        return 0

    def _recipe(self, flow_shift: float, device: torch.device) -> FullRecipe:
        from chronoedit.training.full import FullRecipe

        precision, strategy = self.model.precision, self.model.strategy
        if precision == "auto":
            precision = "bf16" if device.type == "cuda" else "fp32"
        if strategy == "auto":
            strategy = "fsdp" if world_size() > 1 else "plain"
        return FullRecipe(
            strategy=strategy,
            average=self.model.ema_width or None,
            **self.training.recipe(self.data, flow_shift, precision),
        )
