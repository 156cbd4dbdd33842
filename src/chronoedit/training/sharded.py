"""Training states of any size: each process writes its part, in the background (torch.distributed.checkpoint).

A checkpoint is a folder step-N with the keys model.*, ema.*, optim.*, and progress. It is whole once it has a
`.metadata`, which is written last, so a run that is killed at any instant goes on from the last whole one. Its
parts can be read by another number of processes.
"""

from __future__ import annotations

import json
import shutil
import warnings
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from chronoedit.errors import CheckpointError, OutputError
from chronoedit.model.dcp import METADATA, SafeReader
from chronoedit.runtime.processes import Processes
from chronoedit.training.average import PowerAverage
from chronoedit.training.finetune import CHECKPOINTS_FOLDER
from chronoedit.training.optim import Optimizers
from chronoedit.training.state import Progress

PROGRESS = "progress"


def finished(folder: Path) -> list[Path]:
    """The whole checkpoints below a run's folder, oldest first."""
    steps = [path for path in (folder / CHECKPOINTS_FOLDER).glob("step-*") if (path / METADATA).is_file()]
    return sorted(steps, key=lambda path: int(path.name.removeprefix("step-")))


class ShardedState:
    """Weights, average, optimiser and progress of full fine-tuning, each process holding all of them or a part.

    The last checkpoint is kept, and every `keep_every` steps one for good.
    """

    collective = True

    def __init__(
        self,
        module: nn.Module,
        average: PowerAverage | None,
        optimizer: Optimizers,
        processes: Processes,
        keep_every: int | None = None,
    ) -> None:
        self.module, self.average, self.optimizer = module, average, optimizer
        self.processes, self.keep_every = processes, keep_every
        self.progress = Progress()
        self._pending: Future[Any] | None = None
        self._saved: Path | None = None
        # a group of its own: its collectives run on another thread than the training's
        self._group = dist.new_group(backend="gloo") if processes.mesh is not None else None

    def save(self, folder: Path) -> None:
        """Begin to write `folder`/checkpoints/step-N; all processes call it. Raises OutputError of the one before."""
        self.finish()
        path = folder / CHECKPOINTS_FOLDER / f"step-{self.progress.step}"
        if path in finished(folder):
            return
        self.processes.barrier()
        if self.processes.is_first and path.exists():
            shutil.rmtree(path)  # the rest of a write that was cut off
        self.processes.barrier()
        optimizer = self.optimizer.state_dict()
        tensors: dict[str, Any] = {**self._weights(), **self._slots(optimizer["state"])}
        plain = json.dumps({"progress": asdict(self.progress), "optimizer": optimizer["extra"]})
        tensors[PROGRESS] = torch.tensor(list(plain.encode()), dtype=torch.uint8)
        self._saved = path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a single process, which needs no group
            pending = dcp.async_save(  # which copies them to main memory before it returns
                tensors,
                storage_writer=dcp.FileSystemWriter(path, sync_files=True),
                process_group=self._group,
                no_dist=self._group is None,
            )
        self._pending = pending if isinstance(pending, Future) else pending.upload_completion

    def finish(self) -> None:
        """Wait for what is being written, and take away what it replaces. Raises OutputError."""
        if self._pending is None or self._saved is None:
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except (Exception, CheckpointException) as error:  # whatever the writer's thread died of
            raise OutputError(
                f"cannot write {self._saved}: {_reason(error)}; the checkpoint before it is kept: free some space, and "
                "the same command goes on"
            ) from error
        if self.processes.is_first:
            for old in finished(self._saved.parent.parent)[:-1]:
                if self.keep_every is None or int(old.name.removeprefix("step-")) % self.keep_every:
                    (old / METADATA).unlink()  # first: a folder half taken away is no checkpoint
                    shutil.rmtree(old)

    def load(self, folder: Path) -> bool:
        """Continue from the last whole checkpoint below `folder`; whether there is one. All processes call it.

        Raises CheckpointError for a damaged one, or one of another model.
        """
        self.processes.barrier()
        found = finished(folder)
        if not found:
            return False
        reader = SafeReader(found[-1])
        try:
            metadata = reader.read_metadata().state_dict_metadata
            slots = self._empty_slots(metadata)
            tensors: dict[str, Any] = {**self._weights(), **self._slots(slots)}
            progress = metadata[PROGRESS]
            assert isinstance(progress, TensorStorageMetadata)
            tensors[PROGRESS] = torch.empty(progress.size, dtype=torch.uint8)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dcp.load(tensors, storage_reader=reader, process_group=self._group, no_dist=self._group is None)
            plain = json.loads(bytes(tensors[PROGRESS].tolist()))
            self.progress = Progress(**plain["progress"])
            self.optimizer.load_state_dict({"state": slots, "extra": plain["optimizer"]})
        except (Exception, CheckpointException) as error:  # the reader raises its own, and what damaged bytes cause
            raise CheckpointError(
                f"{found[-1]} does not continue this run ({_reason(error)}); train into another folder, or delete this "
                "one"
            ) from error
        return True

    def _weights(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": p.detach() for name, p in self.module.named_parameters()}
        if self.average is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.average.average.items()}
        return tensors

    def _slots(self, state: dict[int, dict[str, Tensor]]) -> dict[str, Tensor]:
        """The optimiser's tensors by key; their parameters' names do not depend on the optimiser's order."""
        names = self._parameter_names()
        return {f"optim.{names[k]}.{slot}": tensor for k, slots in state.items() for slot, tensor in slots.items()}

    def _parameter_names(self) -> list[str]:
        """Names of the parameters in the optimiser's order."""
        names = {id(p): name for name, p in self.module.named_parameters()}
        return [names[id(p)] for group in self.optimizer.param_groups for p in group["params"]]

    def _empty_slots(self, metadata: dict[str, Any]) -> dict[int, dict[str, Tensor]]:
        """Room for the optimiser's state, as the checkpoint has it."""
        parameters = dict(self.module.named_parameters())
        numbers = {name: number for number, name in enumerate(self._parameter_names())}
        slots: dict[int, dict[str, Tensor]] = {}
        for key, info in metadata.items():
            if not key.startswith("optim."):
                continue
            name, slot = key.removeprefix("optim.").rsplit(".", 1)
            assert isinstance(info, TensorStorageMetadata)
            dtype, parameter = info.properties.dtype, parameters[name]
            whole = info.size == parameter.shape
            empty = torch.zeros_like(parameter.detach(), dtype=dtype) if whole else torch.zeros(info.size, dtype=dtype)
            slots.setdefault(numbers[name], {})[slot] = empty
        return slots


def _reason(error: BaseException) -> str:
    """In a line what a failure was, of the process that failed first."""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (failure, _) = next(iter(error.failures.items()))
        return f"process {rank}: {failure!r}"
    return str(error)
