"""Exact resume: one safetensors file holds weights, averages, optimiser and progress; what is random follows the step.

Each step draws from generators made from (seed, step), so no generator's state needs saving, and a run that was
stopped and resumed sees the batches and the noise of one that was not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from chronoedit.errors import CheckpointError, OutputError
from chronoedit.media import save_tensors
from chronoedit.runtime.processes import Processes
from chronoedit.training.optim import Ema, Optimizers
from chronoedit.training.recipes import Budget

STATE_FILE = "state.safetensors"
LOG_FILE = "log.jsonl"
SAMPLE_SHARE = 0.05


@dataclass
class Progress:
    """Steps done and seconds of work spent on them, over all resumes."""

    step: int = 0
    seconds: float = 0.0


@dataclass
class TrainingState:
    """All that a stage changes as it trains."""

    modules: dict[str, nn.Module]
    averages: dict[str, Ema]
    optimizer: Optimizers
    progress: Progress
    collective = False

    def finish(self) -> None:
        """Nothing: what was saved is on the disk."""

    def save(self, folder: Path) -> None:
        """Write `folder`/state.safetensors, whole or not at all. Raises OutputError."""
        tensors = {f"model.{m}.{n}": t for m, module in self.modules.items() for n, t in module.state_dict().items()}
        tensors |= {f"ema.{m}.{n}": t for m, ema in self.averages.items() for n, t in ema.average.items()}
        optimizer = self.optimizer.state_dict()
        for index, slots in optimizer["state"].items():
            tensors |= {f"optim.{index}.{slot}": value for slot, value in slots.items()}
        tensors = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}  # shared ones too
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"progress": json.dumps(asdict(self.progress)), "optimizer": json.dumps(optimizer["extra"])}
        save_tensors(tensors, folder / STATE_FILE, metadata)

    def load(self, folder: Path) -> bool:
        """Continue from `folder` when a state was saved there; whether there was one.

        Raises CheckpointError for a damaged file or one of another model.
        """
        path = folder / STATE_FILE
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                metadata = file.metadata()
            self.progress = Progress(**json.loads(metadata["progress"]))
            self._restore(tensors, json.loads(metadata["optimizer"]))
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} does not continue this run ({error}); train into another folder, or delete this one"
            ) from error
        return True

    def _restore(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(_under(tensors, f"model.{name}."))
        for name, ema in self.averages.items():
            ema.load(_under(tensors, f"ema.{name}."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optim.").items():
            index, slot = name.split(".", 1)
            state.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({"state": state, "extra": extra})


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def step_generator(seed: int, step: int, stream: str) -> torch.Generator:
    """The CPU generator of one purpose (`stream`) at one step: the same at every resume."""
    entropy = np.random.SeedSequence([seed, step, *stream.encode()]).generate_state(2)
    return torch.Generator().manual_seed(int(entropy[0]) << 31 | int(entropy[1]) >> 1)


class Resumable(Protocol):
    """What a stage saves and goes on from; `collective` when all processes must save together, each its part."""

    collective: bool
    progress: Progress

    def save(self, folder: Path) -> None: ...

    def finish(self) -> None: ...


@dataclass
class Stage:
    """The loop of one stage: run until the budget is used, with validation and checkpoints on the way.

    `train_step(step, progress)` does one step and returns figures to log; `validate()` returns more of them.
    `log` is called with each record, after it is appended to `folder`/log.jsonl; `on_checkpoint` after each saved
    state; `on_step` with the number of steps done, after each; `on_sample` with the same, every `sample_every_s` (and
    so seldom that it takes at most `SAMPLE_SHARE` of the time) and at the end. Once `should_stop()` is true the state
    is saved after the step at hand, and KeyboardInterrupt is raised.
    With several `processes` all do the same at the same step, and the first one writes the log.
    """

    state: Resumable
    budget: Budget
    folder: Path
    train_step: Callable[[int, float], dict[str, float]]
    validate: Callable[[], dict[str, float]]
    checkpoint_every_s: float
    validate_every_s: float
    log: Callable[[dict[str, Any]], None]
    on_checkpoint: Callable[[], None] | None = None
    on_step: Callable[[int], None] | None = None
    on_sample: Callable[[int], None] | None = None
    sample_every_s: float = 600.0
    should_stop: Callable[[], bool] = lambda: False
    processes: Processes = field(default_factory=Processes)
    items_a_step: int | None = None

    def run(self) -> None:
        """Train to the end of the budget. Interrupted, the same call resumes from the last checkpoint."""
        progress = self.state.progress
        saved = validated = sampled = progress.seconds
        first_step, saved_step = progress.step, progress.step
        sample_every_s = self.sample_every_s
        figures: list[dict[str, float]] = []
        while (share := self.budget.progress(progress.step, progress.seconds)) < 1:
            began = time.perf_counter()
            figures.append(self.train_step(progress.step, share))
            progress.step += 1
            progress.seconds += time.perf_counter() - began
            if self.on_step is not None:
                self.on_step(progress.step)
            now = progress.seconds
            validate, save, sample, stop = self.processes.any(
                now - validated >= self.validate_every_s,
                now - saved >= self.checkpoint_every_s,
                now - sampled >= sample_every_s,
                self.should_stop(),
            )
            if validate:
                self._record(figures, now - validated)
                figures, validated = [], now
            if sample:
                began = time.perf_counter()
                self._sample()
                sampled, took = now, time.perf_counter() - began
                sample_every_s = max(self.sample_every_s, took / SAMPLE_SHARE)
            if save or stop:
                self._checkpoint()
                saved, saved_step = now, progress.step
            if stop:
                self.state.finish()
                raise KeyboardInterrupt
        if figures:
            self._record(figures, progress.seconds - validated)
        if progress.step > first_step:
            self._sample()
        if progress.step > saved_step:
            self._checkpoint()
        self.state.finish()

    def _checkpoint(self) -> None:
        if self.state.collective or self.processes.is_first:
            self.state.save(self.folder)
        if self.on_checkpoint is not None:
            self.on_checkpoint()

    def _sample(self) -> None:
        if self.on_sample is not None:
            self.on_sample(self.state.progress.step)

    def _record(self, figures: list[dict[str, float]], seconds: float) -> None:
        record: dict[str, Any] = {
            "step": self.state.progress.step,
            "minutes": round(self.state.progress.seconds / 60, 2),
        }
        if figures:
            names = {name for each in figures for name in each}
            record |= {n: float(np.mean([each[n] for each in figures if n in each])) for n in sorted(names)}
            record |= self._speed(len(figures) / max(seconds, 1e-9))
        record |= self.validate()
        record["peak_memory_bytes"] = peak_memory_bytes(self.processes.device)
        if not self.processes.is_first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(self.folder / LOG_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.folder / LOG_FILE}: {error.strerror or error}") from error
        self.log(record)

    def _speed(self, steps_per_s: float) -> dict[str, float]:
        """Steps and items a second, and the seconds that are left at this speed."""
        speed = {"steps_per_s": steps_per_s}
        if self.items_a_step is not None:
            speed["items_per_s"] = steps_per_s * self.items_a_step
        progress, budget = self.state.progress, self.budget
        left = []
        if budget.max_steps is not None:
            left.append((budget.max_steps - progress.step) / steps_per_s)
        if budget.max_minutes is not None:
            left.append(60 * budget.max_minutes - progress.seconds)
        return {**speed, "eta_s": max(0.0, min(left))}


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that the job has had: of a CUDA device what torch had on it, else the process's own."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
