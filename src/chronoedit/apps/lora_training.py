"""`chronoedit train lora`: the published training command and its flags, on pairs and reasoning clips."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from chronoedit.apps.encoding import SizeFlags, encode_with_bar, make_encoder
from chronoedit.apps.options import Switch, option
from chronoedit.apps.progress import print_record

if TYPE_CHECKING:
    from chronoedit.data.records import Record
    from chronoedit.training.lora import LoraRecipe


@dataclass(frozen=True, kw_only=True)
class LoraDataFlags:
    """What it learns from: metadata.csv, .jsonl, .parquet, .tar, or a folder of pairs (see data check)."""

    dataset_metadata_path: Annotated[Path, option("the training set: its table, or its folder", shown="PATH")]
    dataset_base_path: Annotated[
        Path | None, option("where paths in the table start (default: its folder)", shown="DIR")
    ] = None
    dataset_repeat: Annotated[int, option("times that an epoch goes through the set", shown="N")] = 1
    validation_share: Annotated[float, option("held out for the loss by noise level, 0 to 1", shown="X")] = 0.0
    cache: Annotated[
        Path | None, option("where it is encoded (default: OUTPUT/cache); see data cache", shown="DIR")
    ] = None


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
    device: Annotated[str | None, option("cpu or cuda (default: cuda where there is one)", shown="NAME")] = None


@dataclass(frozen=True, kw_only=True)
class LoraRunFlags:
    """How it is trained."""

    output_path: Annotated[Path, option("state, log, lora.safetensors; the same command goes on there", shown="DIR")]
    learning_rate: Annotated[float, option("after the warm-up; a cosine brings it to 0", shown="X")] = 1e-4
    num_epochs: Annotated[int, option("times through the set", shown="N")] = 5
    max_steps: Annotated[int | None, option("end after so many steps of the optimiser", shown="N")] = None
    batch_size: Annotated[int, option("examples of one size a forward", shown="N")] = 1
    gradient_accumulation_steps: Annotated[int, option("forwards a step", shown="N")] = 1
    warmup_steps: Annotated[int, option("steps until the full rate", shown="N")] = 10
    optimizer: Annotated[str, option("adamw or muon", shown="NAME")] = "adamw"
    flow_shift: Annotated[float | None, option("of the noise levels (default: the model's)", shown="X")] = None
    text_dropout: Annotated[float, option("share of prompts left out, 0 to 1", shown="X")] = 0.0
    save_steps: Annotated[int | None, option("also write step-N.safetensors every so many", shown="N")] = None
    validate_every_s: Annotated[float, option("seconds between lines of the log", shown="S")] = 60.0
    checkpoint_every_s: Annotated[float, option("seconds between saved states", shown="S")] = 180.0
    seed: Annotated[int, option("same seed and set, same LoRA", shown="N")] = 0
    use_gradient_checkpointing: Annotated[Switch, option("less memory, a third slower")] = False
    use_gradient_checkpointing_offload: Annotated[Switch, option("and what is kept waits in main memory")] = False
    fresh: Annotated[Switch, option("start over where --output-path holds a run")] = False


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
    """Train a LoRA; the same command goes on where it stopped."""

    data: LoraDataFlags
    sizes: SizeFlags = field(default_factory=SizeFlags)
    model: LoraModelFlags = field(default_factory=LoraModelFlags)
    training: LoraRunFlags
    published: LoraPublishedFlags = field(default_factory=LoraPublishedFlags)

    def run(self) -> int:
        """Check everything, encode the set, train, and say where the LoRA is."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("several processes cannot train together yet; launch one (accelerate: --num_processes 1)")
        for note in self.published.explain():
            print(note, file=sys.stderr)
        records, held_out = self._records()
        from chronoedit.model.checkpoint import locate, open_checkpoint
        from chronoedit.model.headers import read_json
        from chronoedit.model.keys import check_config
        from chronoedit.training.lora import Sources, forget, linear_layers, target_modules, train_lora

        components = open_checkpoint(self._model(), device=self.model.device)
        config = locate(self._model()).folder / "transformer" / "config.json"
        target_modules(linear_layers(check_config(read_json(config), config)), self._targets())
        folder = self.training.output_path
        encoder = make_encoder(components, self.sizes, self.data.cache or folder / "cache")
        recipe = self._recipe(components.settings.flow_shift)
        if self.training.fresh:
            forget(folder)
        examples = encode_with_bar(encoder, [*records, *held_out])
        sources = Sources(
            components,
            encoder,
            examples[: len(records)],
            self.model.lora_checkpoint,
            validation=examples[len(records) :],
        )
        with stop_after_step() as should_stop:
            print(train_lora(recipe, sources, folder, print_record, should_stop))
        return 0

    def _records(self) -> tuple[list[Record], list[Record]]:
        """The set's records for training and validation, once the flags about them are checked.

        Raises ValueError, DataError.
        """
        from chronoedit.data.formats import open_records
        from chronoedit.data.records import split

        self.sizes.check()
        if self.data.dataset_repeat < 1:
            raise ValueError(f"--dataset-repeat {self.data.dataset_repeat} is below 1")
        if self.model.lora_checkpoint is not None and not self.model.lora_checkpoint.is_file():
            raise ValueError(f"there is no LoRA file {self.model.lora_checkpoint}; check --lora-checkpoint")
        found = open_records(self.data.dataset_metadata_path, self.data.dataset_base_path)
        records, held_out = split(found.records, self.data.validation_share)
        if not records:
            raise ValueError(f"--validation-share {self.data.validation_share} leaves nothing to train on")
        return records, held_out

    def _model(self) -> str:
        if self.model.model_path is not None or self.model.model_paths is None:
            return self.model.model_path or "tiny"
        return str(folder_of_shards(self.model.model_paths))

    def _targets(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.model.lora_target_modules.split(",") if name.strip())

    def _recipe(self, flow_shift: float) -> LoraRecipe:
        from chronoedit.training.lora import Adapter, LoraRecipe
        from chronoedit.training.recipes import Optimisation

        flags = self.training
        return LoraRecipe(
            adapter=Adapter(
                rank=self.model.lora_rank,
                alpha=self.model.lora_alpha,
                targets=self._targets(),
                trigger_words=self.model.trigger_words,
            ),
            optimisation=Optimisation(
                learning_rate=flags.learning_rate,
                optimizer=flags.optimizer,
                warmup_steps=flags.warmup_steps,
                batch_size=flags.batch_size,
                validate_every_s=flags.validate_every_s,
                checkpoint_every_s=flags.checkpoint_every_s,
            ),
            num_epochs=flags.num_epochs * self.data.dataset_repeat,
            max_steps=flags.max_steps,
            gradient_accumulation_steps=flags.gradient_accumulation_steps,
            flow_shift=flow_shift if flags.flow_shift is None else flags.flow_shift,
            text_dropout=flags.text_dropout,
            gradient_checkpointing=flags.use_gradient_checkpointing,
            checkpointing_offload=flags.use_gradient_checkpointing_offload,
            save_steps=flags.save_steps,
            seed=flags.seed,
        )


@contextmanager
def stop_after_step() -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C only asks to stop, which the given function tells; a second one interrupts at once."""
    asked = threading.Event()

    def ask(signum: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        print("stopping after this step; the state is saved, the same command goes on", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


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
