"""A model opened for a command: the device checked, libraries hushed, LoRAs fused, memory errors put in words."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chronoedit.apps.launch import is_first, world_size
from chronoedit.apps.options import DEFAULT_MODEL, ModelFlags
from chronoedit.errors import ChronoEditError, ImageError, OutOfMemory, OutputError

if TYPE_CHECKING:
    from chronoedit.editing.editor import Editor
    from chronoedit.runtime.edit_processes import EditProcesses

logger = logging.getLogger(__name__)


@contextmanager
def opened(flags: ModelFlags, processes: EditProcesses | None = None) -> Iterator[Editor]:
    """The editor that the flags describe, ready to use; `processes` share its edits.

    Raises ValueError for a device that is not there, CheckpointError and LoraError as `chronoedit.load` does, and
    ChronoEditError when the block runs out of memory.
    """
    check_device(flags.device)
    from chronoedit.editing.coding import Coding
    from chronoedit.editing.loading import load
    from chronoedit.editing.out_of_memory import first_line, is_out_of_memory

    hush_libraries()
    editor: Editor | None = None
    try:
        path = flags.model_path or DEFAULT_MODEL
        logger.info("opening %s, LoRAs: %s", path, flags.loras() or "none")
        editor = load(
            path,
            device=flags.device,
            base=flags.base,
            offload=flags.offload,
            precision=flags.precision,
            attention=flags.attention,
            compile=flags.compile,
            coding=Coding(tile_px=flags.vae_tiling),
            processes=processes,
        )
        if flags.lora_path:
            editor.load_loras(flags.loras())
        logger.info("on %s, in %s", editor.placement.device, editor.components.dtype)
        yield editor
    except OutOfMemory as error:
        raise ChronoEditError(f"{error}{_also(flags, editor)}") from error
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise ChronoEditError(
            f"out of memory ({first_line(error)}); a smaller --height and --width take less{_also(flags, editor)}"
        ) from error


def _also(flags: ModelFlags, editor: Editor | None) -> str:
    """What else takes less than the layout and the precision at hand, where there is anything."""
    from chronoedit.editing.out_of_memory import lower_layout
    from chronoedit.runtime.plan import LAYOUTS

    lower = None if editor is None else lower_layout(editor.placement)
    ways = [LAYOUTS[lower].flag] if lower is not None else []
    ways += ["--precision int8"] if flags.precision is None else []
    return f", and so {'does' if len(ways) == 1 else 'do'} {' and '.join(ways)}" if ways else ""


@contextmanager
def bad_arguments() -> Iterator[None]:
    """Pictures that are refused and outputs that cannot be written are bad arguments, as long as nothing has run."""
    try:
        yield
    except (ImageError, OutputError) as error:
        raise ValueError(str(error)) from error


def check_device(name: str | None) -> None:
    """Raise ValueError when a device is not one, or this machine has none of it."""
    if name is None:
        return
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name!r} is no device; use cpu, cuda, cuda:1 or mps") from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type not in counts:
        raise ValueError(f"--device {name!r} is not supported; use cpu, cuda, cuda:1 or mps")
    if (device.index or 0) >= counts[device.type]:
        count = counts[device.type]
        why = "" if count or device.type != "cuda" else f": {_why_no_gpu()}"
        raise ValueError(
            f"--device {name}: this machine has {count} of {device.type}{why}; leave out --device to use the best"
        )


def _why_no_gpu() -> str:
    """What keeps torch from every GPU."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without it, install one that has it"
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        if os.environ.get(name) in ("", "-1"):
            return f"{name} hides them all"
    return "no driver answers, nvidia-smi (rocm-smi) must list the GPU first"


def is_extra_process() -> bool:
    """Whether this is one of several processes of `torchrun`, and not the first.

    For what one process does alone: the others have nothing to do, and must not write the same file.
    """
    if not is_first():
        return True
    if world_size() > 1:
        logger.warning("several processes do not share this; the first does it, the others end")
    return False


def hush_libraries() -> None:
    """No bars and advice of other libraries among ours; a download still shows its bar, on a terminal."""
    import diffusers.utils.logging
    import huggingface_hub.utils
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        if not logging.getLogger("chronoedit").isEnabledFor(logging.DEBUG):
            library.set_verbosity_error()
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
