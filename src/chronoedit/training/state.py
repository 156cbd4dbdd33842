"""Exact resume: one safetensors file holds weights, averages, optimiser and progress; what is random follows the step.

Each step draws from generators made from (seed, step), so no generator's state needs saving, and a run that was
stopped and resumed sees the batches and the noise of one that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from chronoedit.errors import CheckpointError
from chronoedit.media import atomic_path
from chronoedit.training.optim import Ema, Optimizers
from chronoedit.training.recipes import Budget

STATE_FILE = "state.safetensors"
LOG_FILE = "log.jsonl"


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

    def save(self, folder: Path) -> None:
        """Write `folder`/state.safetensors, whole or not at all. Raises OutputError."""
        tensors = {f"model.{m}.{n}": t for m, module in self.modules.items() for n, t in module.state_dict().items()}
        tensors |= {f"ema.{m}.{n}": t for m, ema in self.averages.items() for n, t in ema.average.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optim.{index}.{slot}": value for slot, value in slots.items()}
        tensors = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}  # shared ones too
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / STATE_FILE) as path:
            save_file(tensors, path, metadata={"progress": json.dumps(asdict(self.progress))})

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
                self.progress = Progress(**json.loads(file.metadata()["progress"]))
            self._restore(tensors)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} does not continue this run ({error}); train into another folder, or delete this one"
            ) from error
        return True

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(_under(tensors, f"model.{name}."))
        for name, ema in self.averages.items():
            ema.load(_under(tensors, f"ema.{name}."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optim.").items():
            index, slot = name.split(".", 1)
            state.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def step_generator(seed: int, step: int, stream: str) -> torch.Generator:
    """The CPU generator of one purpose (`stream`) at one step: the same at every resume."""
    entropy = np.random.SeedSequence([seed, step, *stream.encode()]).generate_state(2)
    return torch.Generator().manual_seed(int(entropy[0]) << 31 | int(entropy[1]) >> 1)


@dataclass
class Stage:
    """The loop of one stage: run until the budget is used, with validation and checkpoints on the way.

    `train_step(step, progress)` does one step and returns figures to log; `validate()` returns more of them.
    `log` is called with each record, after it is appended to `folder`/log.jsonl; `on_checkpoint` after each saved
    state; `on_step` with the number of steps done, after each. Once `should_stop()` is true the state is saved after
    the step at hand, and KeyboardInterrupt is raised.
    """

    state: TrainingState
    budget: Budget
    folder: Path
    train_step: Callable[[int, float], dict[str, float]]
    validate: Callable[[], dict[str, float]]
    checkpoint_every_s: float
    validate_every_s: float
    log: Callable[[dict[str, Any]], None]
    on_checkpoint: Callable[[], None] | None = None
    on_step: Callable[[int], None] | None = None
    should_stop: Callable[[], bool] = lambda: False

    def run(self) -> None:
        """Train to the end of the budget. Interrupted, the same call resumes from the last checkpoint."""
        progress = self.state.progress
        saved = validated = progress.seconds
        figures: list[dict[str, float]] = []
        while (share := self.budget.progress(progress.step, progress.seconds)) < 1:
            began = time.perf_counter()
            figures.append(self.train_step(progress.step, share))
            progress.step += 1
            progress.seconds += time.perf_counter() - began
            if self.on_step is not None:
                self.on_step(progress.step)
            if progress.seconds - validated >= self.validate_every_s:
                self._record(figures, progress.seconds - validated)
                figures, validated = [], progress.seconds
            if progress.seconds - saved >= self.checkpoint_every_s:
                self._checkpoint()
                saved = progress.seconds
            if self.should_stop():
                self._checkpoint()
                raise KeyboardInterrupt
        if figures:
            self._record(figures, progress.seconds - validated)
            self._checkpoint()

    def _checkpoint(self) -> None:
        self.state.save(self.folder)
        if self.on_checkpoint is not None:
            self.on_checkpoint()

    def _record(self, figures: list[dict[str, float]], seconds: float) -> None:
        record: dict[str, Any] = {
            "step": self.state.progress.step,
            "minutes": round(self.state.progress.seconds / 60, 2),
        }
        if figures:
            names = {name for each in figures for name in each}
            record |= {n: float(np.mean([each[n] for each in figures if n in each])) for n in sorted(names)}
            record["steps_per_s"] = len(figures) / max(seconds, 1e-9)
        record |= self.validate()
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / LOG_FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.log(record)
