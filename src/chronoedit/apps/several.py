"""One edit by the processes that `torchrun` started: which of them take part, and how they are connected."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chronoedit.apps.launch import is_first, own_device, world_size
from chronoedit.apps.memory import known_facts
from chronoedit.apps.options import DEFAULT_MODEL, ModelFlags
from chronoedit.request import EditRequest

if TYPE_CHECKING:
    from chronoedit.runtime.edit_processes import EditProcesses

PATIENCE = datetime.timedelta(hours=2)
"""That the others wait for the first, which may ask a vision-language model or download weights."""


class NothingToDo(Exception):
    """Raised in a process that an edit has no use for."""


@contextmanager
def sharing(flags: ModelFlags, request: EditRequest) -> Iterator[tuple[ModelFlags, EditProcesses | None]]:
    """The processes of this command, connected, or None for one alone; the flags name the device of this one.

    Raises NothingToDo where more were started than can share the edit, or the sizes of the model are not known yet.
    """
    if world_size() == 1:
        yield flags, None
        return
    facts = known_facts(flags.model_path or DEFAULT_MODEL, flags.base)
    if facts is None:
        if not is_first():
            raise NothingToDo
        print(
            "note: the model is not downloaded yet, so one process edits alone; the next edit is shared",
            file=sys.stderr,
        )
        yield flags, None
        return
    from chronoedit.runtime.edit_processes import best_layout

    scale = facts.settings.guidance_scale if request.guidance_scale is None else request.guidance_scale
    layout = best_layout(world_size(), facts.transformer.heads, guided=scale > 1)
    if int(os.environ["RANK"]) >= layout.count:
        raise NothingToDo
    if is_first():
        idle = world_size() - layout.count
        more = f"; {idle} more have nothing to do" if idle else ""
        print(
            f"note: {layout.count} processes share the edit: guidance branches {layout.branches}, parts of the tokens "
            f"{layout.context}{more}",
            file=sys.stderr,
        )
    with _connected(flags, layout.count) as flags:
        from chronoedit.runtime.edit_processes import connect

        yield flags, connect(layout)


@contextmanager
def _connected(flags: ModelFlags, count: int) -> Iterator[ModelFlags]:
    from dataclasses import replace

    import torch
    import torch.distributed as dist

    flags = replace(flags, device=own_device(flags.device))
    kind = torch.device(flags.device or "cpu").type
    if flags.device is not None and kind == "cuda":
        torch.cuda.set_device(torch.device(flags.device))
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, rank=int(os.environ["RANK"]), world_size=count, timeout=PATIENCE)
    try:
        yield flags
    finally:
        dist.destroy_process_group()
