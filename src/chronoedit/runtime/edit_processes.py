"""One edit over several processes: the two guidance branches at once, and the tokens of each shared (Ulysses).

Ranks are laid out as branches × context: the processes of one context group share the tokens of one branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True)
class Layout:
    """How many guidance branches are computed at once (1 or 2), and over how many processes each."""

    branches: int = 1
    context: int = 1

    @property
    def count(self) -> int:
        """Processes in use."""
        return self.branches * self.context


def best_layout(count: int, heads: int, *, guided: bool) -> Layout:
    """The layout that uses most of `count` processes; of two that use as many, the one that exchanges less.

    A context needs a number that divides the heads. Raises ValueError for less than one process.
    """
    if count < 1:
        raise ValueError(f"{count} processes; 1 or more are expected")
    layouts = [
        Layout(branches, context)
        for branches in ((2, 1) if guided else (1,))
        for context in range(1, count // branches + 1)
        if heads % context == 0
    ]
    return max(layouts, key=lambda each: (each.count, each.branches))


@dataclass(frozen=True, kw_only=True)
class EditProcesses:
    """This process, `rank` of `layout.count`, and its groups: those of its tokens, and of the same tokens' branches."""

    rank: int
    layout: Layout
    context_group: dist.ProcessGroup | None = None
    branch_group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this one speaks and writes."""
        return self.rank == 0

    @property
    def branch(self) -> int:
        """0: with the prompt, 1: with the negative prompt."""
        return self.rank // self.layout.context

    def share(self, value: Value) -> Value:
        """The first process's value, on all; it is pickled on the way."""
        box: list[Any] = [value if self.is_first else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def both(self, mine: Tensor) -> tuple[Tensor, Tensor]:
        """The velocities of both branches, with and without the prompt, of which this process has one."""
        parts = [torch.empty_like(mine) for _ in range(self.layout.branches)]
        dist.all_gather(parts, mine.contiguous(), group=self.branch_group)
        cond, uncond = parts
        return cond, uncond


def connect(layout: Layout) -> EditProcesses:
    """The groups of a layout, on the default group that torch.distributed has been given; all its processes call this.

    Raises ValueError when their number is another.
    """
    count, rank = dist.get_world_size(), dist.get_rank()
    if count != layout.count:
        raise ValueError(f"{count} processes for {layout.branches} branches of {layout.context}; start {layout.count}")
    ranks = torch.arange(count).reshape(layout.branches, layout.context)
    contexts = [dist.new_group(row.tolist()) for row in ranks]
    branches = [dist.new_group(column.tolist()) for column in ranks.T]
    return EditProcesses(
        rank=rank,
        layout=layout,
        context_group=contexts[rank // layout.context],
        branch_group=branches[rank % layout.context],
    )
