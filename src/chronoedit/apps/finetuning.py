"""What `train lora` and `train full` share: their flags, the training set, and who watches."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from chronoedit.apps.encoding import SizeFlags, encode_with_bar, make_encoder
from chronoedit.apps.options import Switch, option
from chronoedit.apps.progress import TrainingView

if TYPE_CHECKING:
    import torch

    from chronoedit.data.encoded import Encoder, Example
    from chronoedit.data.records import Record
    from chronoedit.model.checkpoint import Components
    from chronoedit.runtime.processes import Processes
    from chronoedit.training.finetune import Watch
    from chronoedit.training.plan import TrainingFacts


@dataclass(frozen=True, kw_only=True)
class TrainingSetFlags:
    """What it learns from: metadata.csv, .jsonl, .parquet, .tar, or a folder of pairs (see data check)."""

    dataset_metadata_path: Annotated[Path, option("the training set: its table, or its folder", shown="PATH")]
    dataset_base_path: Annotated[
        Path | None, option("where paths in the table start (default: its folder)", shown="DIR")
    ] = None
    dataset_repeat: Annotated[int, option("times that an epoch goes through the set", shown="N")] = 1
    clip_share: Annotated[
        float | None, option("share of batches that are clips, 0 to 1 (default: as in the set)", shown="X")
    ] = None
    validation_share: Annotated[float, option("held out for the loss by noise level, 0 to 1", shown="X")] = 0.0
    cache: Annotated[
        Path | None, option("where it is encoded (default: OUTPUT/cache); see data cache", shown="DIR")
    ] = None

    def records(self, sizes: SizeFlags) -> tuple[list[Record], list[Record]]:
        """The set's records for training and validation, once the flags about them are checked.

        Raises ValueError, DataError.
        """
        from chronoedit.data.formats import open_records
        from chronoedit.data.records import split

        sizes.check()
        if self.dataset_repeat < 1:
            raise ValueError(f"--dataset-repeat {self.dataset_repeat} is below 1")
        found = open_records(self.dataset_metadata_path, self.dataset_base_path)
        records, held_out = split(found.records, self.validation_share)
        if not records:
            raise ValueError(f"--validation-share {self.validation_share} leaves nothing to train on")
        return records, held_out


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """How it is trained."""

    output_path: Annotated[Path, option("state, log and result; the same command goes on there", shown="DIR")]
    config: Annotated[Path | None, option("a TOML file of flags; those given here go before", shown="FILE")] = None
    learning_rate: Annotated[float, option("after the warm-up; a cosine brings it to 0", shown="X")]
    num_epochs: Annotated[int, option("times through the set", shown="N")] = 5
    max_steps: Annotated[int | None, option("end after so many steps of the optimiser", shown="N")] = None
    batch_size: Annotated[int, option("examples of one size a forward and process", shown="N")] = 1
    gradient_accumulation_steps: Annotated[int, option("forwards a step", shown="N")] = 1
    warmup_steps: Annotated[int, option("steps until the full rate", shown="N")] = 10
    optimizer: Annotated[str, option("adamw, muon, one of torch.optim, or package.Class", shown="NAME")] = "adamw"
    optimizer_args: Annotated[str | None, option('its arguments, such as {"momentum": 0.9}', shown="JSON")] = None
    weight_decay: Annotated[float, option("not of norms and biases", shown="X")] = 0.0
    max_grad_norm: Annotated[float, option("longer gradients are cut to this", shown="X")] = 1.0
    flow_shift: Annotated[float | None, option("of the noise levels (default: the model's)", shown="X")] = None
    text_dropout: Annotated[float, option("share of prompts left out, 0 to 1", shown="X")] = 0.0
    changed_weight: Annotated[float, option("extra weight of what an edit changes, such as 3", shown="X")] = 0.0
    save_steps: Annotated[int | None, option("keep what there is every so many", shown="N")] = None
    samples: Annotated[int, option("examples that are edited as it goes on; held-out ones first", shown="N")] = 4
    sample_every_s: Annotated[float, option("seconds between those", shown="S")] = 600.0
    validate_every_s: Annotated[float, option("seconds between lines of the log", shown="S")] = 60.0
    checkpoint_every_s: Annotated[float, option("seconds between saved states", shown="S")] = 180.0
    report_to: Annotated[str | None, option("wandb or trackio, beside TensorBoard", shown="NAME")] = None
    seed: Annotated[int, option("same seed and set, same result", shown="N")] = 0
    use_gradient_checkpointing: Annotated[Switch, option("less memory, a third slower")] = False
    use_gradient_checkpointing_offload: Annotated[Switch, option("and what is kept waits in main memory")] = False
    fresh: Annotated[Switch, option("start over where --output-path holds a run")] = False

    def check(self) -> None:
        """What can be refused before anything is read. Raises ValueError, MissingExtraError."""
        from chronoedit.training.board import check_tracker

        check_tracker(self.report_to)
        self.optimiser_arguments()

    def optimiser_arguments(self) -> dict[str, Any]:
        """`optimizer_args`, read. Raises ValueError for what is no JSON object."""
        if self.optimizer_args is None:
            return {}
        try:
            read = json.loads(self.optimizer_args)
        except ValueError as error:
            raise ValueError(f"--optimizer-args is no JSON: {error}") from None
        if not isinstance(read, Mapping):
            raise ValueError(f'--optimizer-args is {read!r}; expected an object, such as {{"momentum": 0.9}}')
        return dict(read)

    def recipe(self, data: TrainingSetFlags, flow_shift: float, precision: str) -> dict[str, Any]:
        """The fields that every recipe of fine-tuning has. Raises ValueError."""
        from chronoedit.training.recipes import Optimisation

        return {
            "optimisation": Optimisation(
                learning_rate=self.learning_rate,
                optimizer=self.optimizer,
                optimizer_args=self.optimiser_arguments(),
                warmup_steps=self.warmup_steps,
                weight_decay=self.weight_decay,
                grad_clip=self.max_grad_norm,
                precision=precision,
                batch_size=self.batch_size,
                validate_every_s=self.validate_every_s,
                checkpoint_every_s=self.checkpoint_every_s,
            ),
            "num_epochs": self.num_epochs * data.dataset_repeat,
            "max_steps": self.max_steps,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "clip_share": data.clip_share,
            "flow_shift": flow_shift if self.flow_shift is None else self.flow_shift,
            "text_dropout": self.text_dropout,
            "changed_weight": self.changed_weight,
            "gradient_checkpointing": self.use_gradient_checkpointing,
            "checkpointing_offload": self.use_gradient_checkpointing_offload,
            "save_steps": self.save_steps,
            "samples": self.samples,
            "sample_every_s": self.sample_every_s,
            "seed": self.seed,
        }


def encoded(
    components: Components,
    sizes: SizeFlags,
    folder: Path,
    sets: tuple[list[Record], list[Record]],
    processes: Processes,
) -> tuple[Encoder, list[Example], list[Example]]:
    """The training and validation records as examples, each process having encoded its share into `folder`.

    Raises DataError, OutputError.
    """
    records, held_out = sets
    together = [*records, *held_out]
    encoder = make_encoder(components, sizes, folder)
    own = encode_with_bar(encoder, together[processes.rank :: processes.count], shown=processes.is_first)
    shares = processes.gather(own)
    examples: list[Any] = [None] * len(together)
    for rank, share in enumerate(shares):
        examples[rank :: processes.count] = share
    if processes.count > 1:
        encoder = make_encoder(components, sizes, folder)  # which finds what the others have written
    return encoder, examples[: len(records)], examples[len(records) :]


@contextmanager
def watching(flags: RunFlags, processes: Processes, should_stop: Callable[[], bool]) -> Iterator[Watch]:
    """Who watches the run of this process: the terminal, on the first one."""
    from chronoedit.training.finetune import Watch

    if not processes.is_first:
        yield Watch(should_stop=should_stop)
        return
    with TrainingView() as view:
        yield Watch(log=view.log, on_step=view.on_step, should_stop=should_stop, report_to=flags.report_to)


def announce(facts: TrainingFacts, steps: int, processes: Processes, device: torch.device) -> None:
    """Say what the run will take, in memory and time, before anything of it is loaded; on the first process.

    Raises TrainingError, which names what would fit, when the memory that is free is too small.
    """
    import torch

    from chronoedit.runtime.machine import free_bytes, measure_throughput
    from chronoedit.training.plan import make_plan
    from chronoedit.training.remedies import check

    plan = make_plan(facts)
    sharing = processes.count if facts.host_is_device else 1  # the processes of a machine without GPUs share it
    free = free_bytes(device) // sharing
    if processes.is_first:
        computed = torch.bfloat16 if facts.compute == "bf16" else torch.float32
        minutes = plan.seconds(steps, measure_throughput(device, computed)) / 60
        many = f"{processes.count} processes, each:" if processes.count > 1 else "one process:"
        print("the plan for", many, file=sys.stderr)
        print(*plan.lines(), sep="\n", file=sys.stderr)
        print(f"{free / 1e9:9.2f} GB  free; {steps} steps in about {minutes:.1f} minutes", file=sys.stderr)
    check(plan, free, free_bytes(torch.device("cpu")) // sharing)


def report(folder: Path, processes: Processes) -> None:
    """Write the page of a finished run, on the first process, and say where it is."""
    if not processes.is_first:
        return
    from chronoedit.training.run_report import write_report

    print(f"the run's page: {write_report(folder)}", file=sys.stderr)
