"""The processes of one job, as training and several-GPU inference see them: who am I, of how many, in which groups.

Ranks are laid out as data × context: the processes of one context group work on the same examples, each on a part of
their tokens (see `context_parallel`); different context groups have different examples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

Share = TypeVar("Share")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """`rank` of `count` processes; `mesh` has the dimensions "data" and "context", and is None for a process alone."""

    rank: int = 0
    count: int = 1
    context: int = 1
    mesh: DeviceMesh | None = None

    @property
    def is_first(self) -> bool:
        """Whether this one writes what is written once."""
        return self.rank == 0

    @property
    def data_count(self) -> int:
        """How many batches are worked on at once."""
        return self.count // self.context

    @property
    def data_rank(self) -> int:
        """Which of those batches is this process's."""
        return self.rank // self.context

    def barrier(self) -> None:
        """Wait for all."""
        if self.mesh is not None:
            dist.barrier()

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag as true on all processes if it is on one, so that all take the same branch."""
        if self.mesh is None:
            return flags
        votes = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return tuple(bool(vote) for vote in votes.tolist())

    @property
    def device(self) -> torch.device:
        """Where tensors must lie that are exchanged."""
        if self.mesh is None or self.mesh.device_type == "cpu":
            return torch.device("cpu")
        return torch.device(self.mesh.device_type, torch.accelerator.current_device_index())

    def gather(self, mine: Share) -> list[Share]:
        """What each process has, by rank; it is pickled on the way."""
        if self.mesh is None:
            return [mine]
        shares: list[Any] = [None] * self.count
        dist.all_gather_object(shares, mine)
        return shares

    def mean(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in place."""
        if self.mesh is None:
            return
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= self.count

    def mean_figures(self, figures: dict[str, float]) -> dict[str, float]:
        """Figures of the log, each averaged over the processes; all must have the same names."""
        if self.mesh is None or not figures:
            return figures
        values = torch.tensor([figures[name] for name in sorted(figures)], dtype=torch.float64, device=self.device)
        self.mean([values])
        return dict(zip(sorted(figures), values.tolist(), strict=True))


def arrange(device_type: str, context: int = 1) -> Processes:
    """The processes of the default group that torch.distributed has been given, `context` of them to a group.

    Raises ValueError when `context` does not divide their number.
    """
    count = dist.get_world_size()
    if context < 1 or count % context:
        raise ValueError(f"context parallel over {context} of {count} processes; give a number that divides {count}")
    mesh = init_device_mesh(device_type, (count // context, context), mesh_dim_names=("data", "context"))
    return Processes(rank=dist.get_rank(), count=count, context=context, mesh=mesh)
