"""Functions run by two processes that are connected by gloo, as tests of parallel code need."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

COUNT = 2


def run_by_two(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(*arguments)`, of a module, in two new processes of one group; an error in one is raised here."""
    torch.multiprocessing.spawn(_connected, (_free_port(), function, arguments), nprocs=COUNT)


def _connected(rank: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=COUNT)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the parts of all processes."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def save(value: Any, path: Path) -> None:
    """Keep what the first process found."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save(value, path)
