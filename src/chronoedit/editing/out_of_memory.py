"""Memory that ran out in an edit: recognised whoever says so, named by its stage, and nothing of the edit kept alive.

Every allocator has its own words: torch raises `OutOfMemoryError` for a GPU, a plain RuntimeError for main memory and
for libraries of the GPU, Python a MemoryError, the system ENOMEM for a file that cannot be mapped.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from chronoedit.editing.placement import Placement
from chronoedit.errors import OutOfMemory
from chronoedit.runtime.plan import LAYOUTS, next_layout

WORDS = (
    "out of memory",  # CUDA, HIP, MPS
    "can't allocate memory",  # torch's allocator of main memory
    "not enough memory",  # the same on Windows
    "cannot allocate memory",
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no more memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def first_line(error: BaseException) -> str:
    """What an allocator says, without its advice and its stack."""
    return str(error).strip().split("\n")[0] or "no more to be had"


@contextmanager
def memory_named(stage: Callable[[], str], let_go: Callable[[str], None]) -> Iterator[None]:
    """Raises OutOfMemory, with the `stage` under way, where the block runs out of memory.

    `let_go(stage)` is then called, to free what is kept. The frames of what failed are cleared: as long as their
    exception lives, they would hold its tensors.
    """
    found: OutOfMemory | None = None
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        found = OutOfMemory(stage(), first_line(error))
        traceback.clear_frames(error.__traceback__)
    if found is not None:
        let_go(found.stage)
        raise found from None


def lower_layout(placement: Placement) -> str | None:
    """The next layout that takes less where this edit was; None when there is none.

    Where the device has no memory of its own, it makes no difference where parts lie, only whether they stay in files.
    """
    name = next_layout(placement.layout)
    while name is not None and placement.device.type in ("cpu", "mps") and not LAYOUTS[name].mapped:
        name = next_layout(name)
    return name
