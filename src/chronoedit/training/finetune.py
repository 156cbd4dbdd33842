"""What training a LoRA and full fine-tuning share: recipe, schedule of batches, objective, and the optimiser's step.

The same code trains the embedded model and the published layout, in one process or many. Shapes: b batch, z latent
channels, c 4 + z condition channels, t latent frames, h w latent height and width, l text tokens, d embedding width.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chronoedit.cache import content_key
from chronoedit.data.encoded import Encoder, Example
from chronoedit.data.loader import epoch_batches
from chronoedit.errors import OutputError, TrainingError
from chronoedit.ledger import locked
from chronoedit.media import atomic_path, save_image
from chronoedit.model.checkpoint import Components
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.runtime.processes import Processes
from chronoedit.training.board import Board
from chronoedit.training.objectives import add_noise, change_weight, flow_loss, logit_normal_sigmas
from chronoedit.training.optim import Optimizers, update
from chronoedit.training.recipes import Budget, Optimisation
from chronoedit.training.run_report import RECIPE_FILE, SAMPLES_FOLDER
from chronoedit.training.samples import Samples
from chronoedit.training.state import LOG_FILE, STATE_FILE, Resumable, Stage, step_generator
from chronoedit.training.velocity import Conditions, predict

LOCK_FILE = ".lock"
CHECKPOINTS_FOLDER = "checkpoints"
MODEL_FOLDER = "model"
VALIDATION_SIGMAS = (0.2, 0.5, 0.8, 1.0)
VALIDATION_EXAMPLES = 32
SAMPLE_STEPS = 20
# What may change between two runs of one command: where it ends, what is written on the way, where the weights lie.
FREE_TO_CHANGE = (
    "max_steps", "save_steps", "samples", "sample_every_s", "checkpoint_every_s", "validate_every_s", "strategy",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """How a model is trained further, apart from the data and the model.

    `num_epochs` or `max_steps`, whichever ends first. `clip_share` is the share of the batches that are reasoning clips
    (None: as they lie in the set). `changed_weight` is the extra weight of what the edit changes in the loss of
    training (see `objectives.change_weight`; the embedded model was trained with 3). `samples` examples are edited as
    training goes on, every `sample_every_s` seconds or, where that takes long, as often as takes a twentieth of the
    time.
    """

    optimisation: Optimisation
    num_epochs: int = 5
    max_steps: int | None = None
    gradient_accumulation_steps: int = 1
    clip_share: float | None = None
    flow_shift: float = 5.0
    text_dropout: float = 0.0
    changed_weight: float = 0.0
    gradient_checkpointing: bool = False
    checkpointing_offload: bool = False
    save_steps: int | None = None
    samples: int = 0
    sample_every_s: float = 600.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_epochs", "gradient_accumulation_steps", "max_steps", "save_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} is below 1")
        for name in ("clip_share", "text_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} {value} is not between 0 and 1")
        if self.changed_weight < 0:
            raise ValueError(f"changed_weight {self.changed_weight} is negative; use 0 for a plain loss, or up to 3")


@dataclass(frozen=True)
class Sources:
    """What is trained on: a model, and examples that its encoder has stored, some of them held out."""

    components: Components
    encoder: Encoder
    examples: Sequence[Example]
    lora_checkpoint: Path | None = None
    validation: Sequence[Example] = ()

    def identity(self) -> dict[str, str]:
        """What a run may not exchange when it goes on: the model, and the examples in their order."""
        content = [key for each in self.examples for key in (each.latents, each.condition, each.text)]
        return {"model": self.components.model_hash, "set": content_key("set", *content)}


def claim(folder: Path, recipe: FinetuneRecipe, identity: dict[str, str | None], processes: Processes) -> None:
    """Let `folder` be this run's, or find that it is; the first process writes `folder`/recipe.json.

    Raises OutputError, naming what differs, when the folder holds another run. The number of processes may change as
    long as a step of the optimiser is made of the same batches.
    """
    mine: dict[str, Any] = json.loads(json.dumps({**asdict(recipe), **identity}))
    mine["batches_a_step"] = mine.pop("gradient_accumulation_steps") * processes.data_count
    path = folder / RECIPE_FILE
    processes.barrier()
    if not path.exists():
        processes.barrier()
        if processes.is_first:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(mine, indent=1) + "\n", encoding="utf-8")
        processes.barrier()
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    processes.barrier()
    different = sorted(_differences(found, mine))
    if different:
        raise OutputError(
            f"{folder} holds a run of another recipe: {', '.join(different)} differ; start over there (--fresh), or "
            "choose another output"
        )


def _differences(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Names whose values differ, of nested tables as "optimisation.learning_rate"."""
    different = set()
    for name in {*one, *other} - set(FREE_TO_CHANGE):
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            different |= {f"{name}.{inner}" for inner in _differences(a, b)}
        elif a != b:
            different.add(name)
    return different


@contextmanager
def held(folder: Path, processes: Processes) -> Iterator[None]:
    """Within it the folder is this run's alone, until it ends in whatever way. Raises OutputError when another has it.

    Two runs in one folder would take each other's checkpoints away: the workers of a launcher that was killed live on.
    """
    with ExitStack() as stack:
        taken = processes.is_first and not stack.enter_context(locked(folder / LOCK_FILE))
        if processes.any(taken)[0]:
            raise OutputError(f"another process is training in {folder}; wait for it, or choose another output")
        yield


def forget(folder: Path, processes: Processes = Processes()) -> None:  # noqa: B008 - frozen
    """Take a run's state out of its folder, so that the next one starts over; LoRAs that it made stay."""
    if processes.is_first:
        for name in (RECIPE_FILE, STATE_FILE, LOG_FILE):
            (folder / name).unlink(missing_ok=True)
        for name in (CHECKPOINTS_FOLDER, MODEL_FOLDER):
            shutil.rmtree(folder / name, ignore_errors=True)
    processes.barrier()


class Schedule:
    """Which examples each step takes, over all processes; it follows from the recipe's seed alone.

    A step of the optimiser takes `accumulated` batches from each of `processes.data_count` processes at once.
    """

    def __init__(self, recipe: FinetuneRecipe, examples: Sequence[Example], processes: Processes) -> None:
        self.recipe, self.examples, self.processes = recipe, examples, processes
        self.buckets = [example.bucket for example in examples]
        self.batches_a_step = recipe.gradient_accumulation_steps * processes.data_count
        self._epochs = {0: self._epoch(0)}
        self.batches_an_epoch = len(self._epochs[0])

    @property
    def steps(self) -> int:
        """Steps of the optimiser in all."""
        whole = math.ceil(self.recipe.num_epochs * self.batches_an_epoch / self.batches_a_step)
        return whole if self.recipe.max_steps is None else min(whole, self.recipe.max_steps)

    def own(self, step: int) -> range:
        """The numbers of the batches that this process takes at a step."""
        first = step * self.batches_a_step
        return range(first + self.processes.data_rank, first + self.batches_a_step, self.processes.data_count)

    def batch(self, number: int) -> list[Example]:
        """The examples of a batch."""
        epoch, index = divmod(number, self.batches_an_epoch)
        if epoch not in self._epochs:  # of a large set this is work, and steps of one epoch follow each other
            self._epochs = {epoch: self._epoch(epoch)}
        return [self.examples[k] for k in self._epochs[epoch][index]]

    def _epoch(self, epoch: int) -> list[list[int]]:
        recipe = self.recipe
        return epoch_batches(self.buckets, recipe.optimisation.batch_size, recipe.seed, epoch, recipe.clip_share)


@dataclass(frozen=True)
class Objective:
    """Rectified flow on encoded examples, the loss of a batch."""

    recipe: FinetuneRecipe
    sources: Sources
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def loss(
        self,
        transformer: nn.Module,
        examples: Sequence[Example],
        generator: torch.Generator,
        sigmas: Tensor | None = None,
    ) -> Tensor:
        """Mean loss of a batch; noise levels are drawn, and prompts dropped, where `sigmas`, b, are not given."""
        loaded = [self.sources.encoder.load(example) for example in examples]
        latents = torch.stack([each.latents for each in loaded]).float()  # b z t h w
        in_training = sigmas is None
        dropout = self.recipe.text_dropout if in_training else 0.0
        strength = self.recipe.changed_weight if in_training else 0.0
        if sigmas is None:
            sigmas = logit_normal_sigmas(len(loaded), self.recipe.flow_shift, generator)
        noise = torch.randn(latents.shape, generator=generator)
        dropped = torch.rand(len(loaded), generator=generator) < dropout
        noisy, target = add_noise(latents, noise, sigmas)
        texts = [self._empty() if drop else each.text for each, drop in zip(loaded, dropped, strict=True)]
        conditions = Conditions.of(loaded, texts, self.sources.components.settings.max_sequence_length)
        compute = self.recipe.optimisation.precision
        with self._saving():
            velocity = predict(transformer, noisy, 1000 * sigmas, conditions, self.device, compute)
        weight = change_weight(latents, strength)
        return flow_loss(velocity, target.to(self.device), weight.to(self.device)).mean()

    @torch.no_grad()
    def validation(self, transformer: nn.Module, processes: Processes) -> dict[str, float]:
        """Loss of the held-out examples by noise level, with noise that is the same at each call; {} without any.

        The processes share the examples, and each calls the transformer as often as the others.
        """
        held_out = list(self.sources.validation)[:VALIDATION_EXAMPLES]
        if not held_out:
            return {}
        rounds = range(processes.data_rank, processes.data_count * _rounds(held_out, processes), processes.data_count)
        sums = torch.zeros(len(VALIDATION_SIGMAS), dtype=torch.float64)
        for at in rounds:
            example = held_out[at % len(held_out)]
            for place, level in enumerate(VALIDATION_SIGMAS):
                generator = step_generator(self.recipe.seed, at, "validation")
                loss = self.loss(transformer, [example], generator, torch.tensor([level]))
                sums[place] += float(loss) if at < len(held_out) else 0.0
        figures = dict(zip((f"val_{level}" for level in VALIDATION_SIGMAS), sums.tolist(), strict=True))
        share = processes.data_count / len(held_out)
        return {name: round(value * share, 5) for name, value in processes.mean_figures(figures).items()}

    def _empty(self) -> Tensor:
        return self.sources.encoder.cache.get(self.sources.encoder.text_key(""))

    def _saving(self) -> AbstractContextManager[Any]:
        """Where activations wait for the backward pass: in main memory, when they are offloaded."""
        if not self.recipe.checkpointing_offload:
            return nullcontext()
        return torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available())


def _rounds(held_out: Sequence[Example], processes: Processes) -> int:
    return math.ceil(len(held_out) / processes.data_count)


class Finetuner:
    """A model in training; what is trained, and how it is saved, is said by its subclasses.

    `share_gradients` is for parameters whose gradients nothing else reduces over the processes (FSDP reduces its own).
    """

    transformer: ChronoEditDiT
    state: Resumable
    optimizer: Optimizers
    share_gradients = True

    def __init__(self, recipe: FinetuneRecipe, sources: Sources, processes: Processes, device: torch.device) -> None:
        self.recipe, self.sources, self.processes, self.device = recipe, sources, processes, device
        self.schedule = Schedule(recipe, sources.examples, processes)
        self.objective = Objective(recipe, sources, device)

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One step of the optimiser, its gradient the mean over its batches on all processes.

        Returns the mean loss, the gradient's norm before clipping, and the learning rate. Raises TrainingError, with
        the rows, when a loss is not finite.
        """
        numbers = self.schedule.own(step)
        total = 0.0
        for number in numbers:
            examples = self.schedule.batch(number)
            loss = self.objective.loss(self.transformer, examples, step_generator(self.recipe.seed, number, "flow"))
            self._refuse_infinite(loss, step, examples)
            # the processes of a context group hold parts of one loss's gradient, and the mean over all divides by them
            (loss * self.processes.context / len(numbers)).backward()
            total += float(loss.detach()) / len(numbers)
        if self.share_gradients:
            self._share_gradients()
        norm = update(self.optimizer, self.recipe.optimisation, step, progress)
        rate = float(self.optimizer.param_groups[0]["lr"])
        return {**self.processes.mean_figures({"loss": total}), "grad_norm": norm, "lr": rate}

    def validate(self) -> dict[str, float]:
        """Loss of the held-out examples by noise level."""
        figures = self.objective.validation(self.transformer, self.processes)
        self.after_looking()
        return figures

    def after_looking(self) -> None:
        """What is to be done after forward passes that no backward pass follows."""

    def after_step(self, folder: Path, step: int) -> None:
        """What is to be done with `step` steps done."""

    def finish(self, folder: Path) -> Path:
        """Write the result; its path."""
        raise NotImplementedError

    def run(self, folder: Path, watch: Watch) -> Path:
        """Train to the end, from where the state stands; the result's path. All processes call it."""
        with self._board(folder, watch) as board:

            def log(record: dict[str, Any]) -> None:
                if board is not None:
                    board.write(record)
                watch.log(record)

            def on_step(step: int) -> None:
                self.after_step(folder, step)
                watch.on_step(step, self.schedule.steps)

            def on_sample(step: int) -> None:
                assert samples is not None
                sheet = samples.draw(self.transformer, self.device)
                self.after_looking()
                if board is not None:
                    save_image(sheet, folder / SAMPLES_FOLDER / f"step-{step}.png")
                    board.show("samples", sheet, step)

            samples = self._samples()
            Stage(
                state=self.state,
                budget=Budget(max_steps=self.schedule.steps),
                folder=folder,
                train_step=self.step,
                validate=self.validate,
                checkpoint_every_s=self.recipe.optimisation.checkpoint_every_s,
                validate_every_s=self.recipe.optimisation.validate_every_s,
                log=log,
                on_step=on_step,
                on_sample=None if samples is None else on_sample,
                sample_every_s=self.recipe.sample_every_s,
                should_stop=watch.should_stop,
                processes=self.processes,
                items_a_step=self.schedule.batches_a_step * self.recipe.optimisation.batch_size,
            ).run()
        return self.finish(folder)

    def _board(self, folder: Path, watch: Watch) -> AbstractContextManager[Board | None]:
        if not self.processes.is_first:
            return nullcontext()
        return Board(folder / "tensorboard", watch.report_to, asdict(self.recipe))

    def _samples(self) -> Samples | None:
        """Of held-out examples, where there are any; of clips, which take several times as long, one."""
        there = [*self.sources.validation, *self.sources.examples]
        clips = [example for example in there if example.bucket.latent_frames > 2][:1]
        pairs = [example for example in there if example.bucket.latent_frames == 2]
        examples = [*clips, *pairs][: self.recipe.samples]
        if not examples:
            return None
        return Samples(
            self.sources.encoder,
            examples,
            seed=self.recipe.seed,
            num_inference_steps=min(SAMPLE_STEPS, self.sources.components.settings.num_inference_steps),
            compute=self.recipe.optimisation.precision,
        )

    def _refuse_infinite(self, loss: Tensor, step: int, examples: Sequence[Example]) -> None:
        bad = not bool(torch.isfinite(loss.detach()))
        (any_bad,) = self.processes.any(bad)
        if any_bad:
            rows = ", ".join(example.row for example in examples) if bad else "rows of another process"
            raise TrainingError(
                f"the loss is {float(loss.detach()) if bad else 'not finite'} at step {step + 1}, on {rows}; look at "
                "those rows, or lower the learning rate. The last checkpoint is kept"
            )

    def _share_gradients(self) -> None:
        if self.processes.count == 1:
            return
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.processes.mean([p.grad for p in parameters if p.grad is not None])


@dataclass(frozen=True)
class Watch:
    """Whoever watches a run: `log` gets each record, `on_step` (done, of), and `should_stop` may end it.

    `report_to` names a tracker of `board.TRACKERS` that gets the records too.
    """

    log: Callable[[dict[str, Any]], None] = lambda record: None
    on_step: Callable[[int, int], None] = lambda done, total: None
    should_stop: Callable[[], bool] = lambda: False
    report_to: str | None = None
