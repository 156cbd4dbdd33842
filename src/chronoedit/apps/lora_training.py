"""`chronoedit train lora`: the published training command and its flags, on pairs and reasoning clips."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from chronoedit.apps.encoding import SizeFlags
from chronoedit.apps.finetuning import RunFlags, TrainingSetFlags, announce, encoded, report, watching
from chronoedit.apps.launch import is_first, joined, stop_after_step
from chronoedit.apps.options import option

if TYPE_CHECKING:
    from chronoedit.training.lora import LoraRecipe


@dataclass(frozen=True, kw_only=True)
class LoraModelFlags:
    """The frozen base, and what is added to it."""

    model_path: Annotated[
        str | None, option("'tiny', a folder, or a hub id (default: where the shards lie, or tiny)", shown="MODEL")
    ] = None
    model_paths: Annotated[str | None, option("published: a JSON list of the transformer's shards", shown="JSON")] = (
        None
    )
    lora_target_modules: Annotated[str, option("by commas, in original or our names", shown="NAMES")] = (
        "q,k,v,o,ffn.0,ffn.2"
    )
    lora_rank: Annotated[int, option("rank of the factors", shown="N")] = 32
    lora_alpha: Annotated[float | None, option("scale times rank (default: the rank)", shown="X")] = None
    lora_checkpoint: Annotated[Path | None, option("go on from this LoRA file", shown="FILE")] = None
    trigger_words: Annotated[str, option("written into the file, for whoever uses it", shown="TEXT")] = ""
    base_precision: Annotated[
        str | None, option("bf16, fp8 or int8 for the frozen blocks (default: as loaded)", shown="NAME")
    ] = None
    blocks_to_swap: Annotated[int, option("blocks whose frozen weights wait in main memory", shown="N")] = 0
    device: Annotated[str | None, option("cpu or cuda (default: cuda where there is one)", shown="NAME")] = None

    def name(self) -> str:
        """The model's folder or name. Raises ValueError for shards that lie in no folder of a model."""
        if self.model_path is not None or self.model_paths is None:
            return self.model_path or "tiny"
        return str(folder_of_shards(self.model_paths))

    def targets(self) -> tuple[str, ...]:
        """The target modules."""
        return tuple(name.strip() for name in self.lora_target_modules.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class LoraRunFlags(RunFlags):
    """How it is trained."""

    learning_rate: Annotated[float, option("after the warm-up; a cosine brings it to 0", shown="X")] = 1e-4


@dataclass(frozen=True, kw_only=True)
class LoraPublishedFlags:
    """Flags of the published command that need not be said here."""

    model_id_with_origin_paths: Annotated[str | None, option("explained, not used", shown="TEXT")] = None
    remove_prefix_in_ckpt: Annotated[str | None, option("explained, not used", shown="TEXT")] = None
    lora_base_model: Annotated[str | None, option("explained, not used", shown="TEXT")] = None
    extra_inputs: Annotated[str | None, option("explained, not used", shown="TEXT")] = None

    def explain(self) -> list[str]:
        """What to tell the user of those that were given. Raises ValueError for values that mean something else."""
        if self.lora_base_model not in (None, "dit"):
            raise ValueError(f"--lora-base-model {self.lora_base_model}: only the transformer (dit) is trained here")
        if self.extra_inputs not in (None, "input_image"):
            raise ValueError(f"--extra-inputs {self.extra_inputs}: the model takes input_image, and that always")
        reasons = {
            "model_id_with_origin_paths": "named the other parts' files; here they come from the model's folder",
            "remove_prefix_in_ckpt": "cut the program's prefix off the saved names; none is written here",
            "lora_base_model": "chose the transformer, which is what is trained here",
            "extra_inputs": "gave the model its input picture, which it always gets here",
        }
        given = [name for name in reasons if getattr(self, name) is not None]
        return [f"--{name.replace('_', '-')}: {reasons[name]}; it can be left out" for name in given]


@dataclass(frozen=True, kw_only=True)
class TrainLora:
    """Train a LoRA; the same command goes on where it stopped. With torchrun, on several processes."""

    data: TrainingSetFlags
    sizes: SizeFlags = field(default_factory=SizeFlags)
    model: LoraModelFlags = field(default_factory=LoraModelFlags)
    training: LoraRunFlags
    published: LoraPublishedFlags = field(default_factory=LoraPublishedFlags)
    takes_recipe: ClassVar[bool] = True

    def run(self) -> int:
        """Check everything, encode the set, train, and say where the LoRA is."""
        notes = self.published.explain()
        if self.model.lora_checkpoint is not None and not self.model.lora_checkpoint.is_file():
            raise ValueError(f"there is no LoRA file {self.model.lora_checkpoint}; check --lora-checkpoint")
        self.training.check()
        sets = self.data.records(self.sizes)
        if is_first():
            print(*notes, sep="\n", end="\n" if notes else "", file=sys.stderr)
        from chronoedit.model.checkpoint import locate, open_checkpoint
        from chronoedit.model.headers import read_json
        from chronoedit.model.keys import check_config
        from chronoedit.runtime.quantize import check_precision
        from chronoedit.training.facts import facts_of
        from chronoedit.training.finetune import Schedule, Sources, forget, held
        from chronoedit.training.lora import linear_layers, target_modules, train_lora

        config = locate(self.model.name()).folder / "transformer" / "config.json"
        arguments = check_config(read_json(config), config)
        target_modules(linear_layers(arguments), self.model.targets())
        folder = self.training.output_path
        with joined(self.model.device) as (processes, device), stop_after_step() as should_stop:
            components = open_checkpoint(self.model.name(), device=device)
            recipe = self._recipe(components.settings.flow_shift)
            if recipe.base_precision is not None:
                check_precision(recipe.base_precision, device, training=True)
            if self.training.fresh:
                with held(folder, processes):
                    forget(folder, processes)
            encoder, examples, held_out = encoded(
                components, self.sizes, self.data.cache or folder / "cache", sets, processes
            )
            target, settings = components.target, components.settings
            facts = facts_of(recipe, arguments, settings, examples, processes, device, target.dtype)
            announce(facts, Schedule(recipe, examples, processes).steps, processes, device)
            if recipe.base_precision is not None or recipe.blocks_to_swap:  # made smaller before it moves there
                components = open_checkpoint(self.model.name(), dtype=target.dtype, device="cpu")
            sources = Sources(components, encoder, examples, self.model.lora_checkpoint, held_out)
            with watching(self.training, processes, should_stop) as watch:
                path = train_lora(recipe, sources, folder, watch, processes, device)
            report(folder, processes)
            if processes.is_first:
                print(path)
        return 0

    def _recipe(self, flow_shift: float) -> LoraRecipe:
        from chronoedit.training.lora import Adapter, LoraRecipe

        adapter = Adapter(
            rank=self.model.lora_rank,
            alpha=self.model.lora_alpha,
            targets=self.model.targets(),
            trigger_words=self.model.trigger_words,
        )
        return LoraRecipe(
            adapter=adapter,
            base_precision=self.model.base_precision,
            blocks_to_swap=self.model.blocks_to_swap,
            **self.training.recipe(self.data, flow_shift, "fp32"),
        )


def folder_of_shards(text: str) -> Path:
    """The model's folder, from a JSON list (of lists) of files of which some lie in its `transformer`.

    Raises ValueError when there is none, or they are of several models.
    """
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"--model-paths is no JSON list of files ({error}); give --model-path FOLDER instead"
        ) from error
    files = [Path(str(path)) for entry in listed for path in (entry if isinstance(entry, list) else [entry])]
    folders = {path.parent.parent for path in files if path.parent.name == "transformer"}
    if len(folders) != 1:
        raise ValueError(
            f"--model-paths names the transformer's shards of {len(folders)} models; give --model-path FOLDER instead"
        )
    return folders.pop()
