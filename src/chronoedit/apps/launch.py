"""Several processes for one command: what `torchrun` and `accelerate launch` say in the environment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from chronoedit.runtime.processes import Processes
    from chronoedit.runtime.shared_work import SharedWork

SAME_SIGNAL_S = 2.0  # a launcher passes on the Ctrl-C that the terminal sent already


def world_size(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes the launcher started; 1 without one."""
    return int(environment.get("WORLD_SIZE", "1"))


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the process that speaks and writes."""
    return int(environment.get("RANK", "0")) == 0


def own_device(name: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The device of this process: of several on a machine with GPUs, each has one of its own; else as it was named.

    Raises ValueError when there are more processes than GPUs here.
    """
    import torch

    if world_size(environment) == 1 or not (name is None or name.startswith("cuda")):
        return name
    gpus, here = torch.cuda.device_count(), int(environment.get("LOCAL_WORLD_SIZE", "1"))
    if not gpus and name is None:
        return None
    if here > gpus:
        raise ValueError(
            f"{here} processes were started on this machine, which has {gpus} GPUs; start "
            f"--nproc_per_node={max(gpus, 1)}, or give --device cpu"
        )
    return f"cuda:{environment.get('LOCAL_RANK', '0')}"


def shared_work() -> SharedWork:
    """The work that the processes of this command share, over the launcher's store."""
    import torch.distributed as dist

    from chronoedit.runtime.shared_work import SharedWork

    store, rank, count = next(dist.rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return SharedWork(dist.PrefixStore(f"shared work {attempt}", store), rank, count)


@contextmanager
def joined(device: str | None, context: int = 1) -> Iterator[tuple[Processes, torch.device]]:
    """The processes of this command, connected, and the device of this one; they part at the end.

    Raises ValueError when `context` does not divide their number, or there are more of them than GPUs here.
    """
    import torch
    import torch.distributed as dist

    from chronoedit.runtime.processes import Processes, arrange

    chosen = torch.device(own_device(device) or ("cuda" if torch.cuda.is_available() else "cpu"))
    if world_size() == 1:
        if context != 1:
            raise ValueError(f"--context-parallel {context} needs several processes (torchrun --nproc_per_node=N)")
        yield Processes(), chosen
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield arrange(chosen.type, context), chosen
    finally:
        dist.destroy_process_group()


@contextmanager
def stop_after_step(what: str = "step") -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C, or SIGTERM, only asks to stop, which the given function tells; a second one interrupts.

    `what` is finished first, in words.
    """
    asked_at: list[float] = []

    def ask(signum: int, frame: object) -> None:
        if asked_at and time.monotonic() - asked_at[0] > SAME_SIGNAL_S:
            raise KeyboardInterrupt
        if not asked_at:
            asked_at.append(time.monotonic())
            if not is_first():
                return
            print(f"stopping after this {what}; what is done is saved, the same command goes on", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield lambda: bool(asked_at)
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked_at)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
