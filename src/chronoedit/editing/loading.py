"""An editor opened from a folder, a hub id, a file, or the embedded model; and what opens one elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from chronoedit.editing.coding import Coding
from chronoedit.editing.editor import Editor
from chronoedit.editing.placement import default_device, layout_of
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.runtime.attention_backends import AUTO, check_backend
from chronoedit.runtime.compile import check_compile
from chronoedit.runtime.edit_processes import EditProcesses
from chronoedit.runtime.quantize import check_precision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    path_or_id: str | Path = "tiny",
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    base: str | Path | None = None,
    offload: bool | str = False,
    precision: str | None = None,
    attention: str = AUTO,
    compile: bool = False,
    coding: Coding | None = None,
    processes: EditProcesses | None = None,
) -> Editor:
    """An editor of the embedded model ("tiny"), a folder in the published layout, a hub id, or a transformer file.

    `dtype` (torch's, or a name in `DTYPES`) is the precision of the transformer and the text encoder, by default
    float32 on the CPU and bfloat16 elsewhere; `device` is the GPU when there is one. A single transformer file takes
    its other components from the folder `base`, and its fp8 or GGUF weights stay so. With `offload` the
    components take turns on the device, or are arranged as a layout of that name (`runtime.plan.LAYOUTS`). With a
    `precision` of `runtime.quantize.PRECISIONS` the transformer's weights are stored in it once LoRAs are fused, before
    the first edit. `attention` names the kernel (`runtime.attention_backends.BACKENDS`, or "auto"); with `compile` the
    transformer's blocks are compiled before the first step. `coding` says how the autoencoder is used, in tiles for
    one. `processes` share each edit (see `Editor`).
    Raises CheckpointError when the model cannot be opened, ValueError for an unknown dtype, or a precision, a kernel or
    a compilation that the device cannot do.
    """
    place = default_device() if device is None else torch.device(device)
    compute = _dtype(dtype) or (torch.float32 if place.type == "cpu" else torch.bfloat16)
    if precision is not None:
        check_precision(precision, place)
    check_backend(attention, place, compute)
    if compile:
        shares_tokens = processes is not None and processes.layout.context > 1
        check_compile(place, attention, precision=precision, shares_tokens=shares_tokens)
    layout_of(offload)
    components = open_checkpoint(path_or_id, dtype=compute, device=place, base=base, as_stored=True)
    return Editor(
        components,
        device=place,
        offload=offload,
        precision=precision,
        attention=attention,
        compile=compile,
        coding=coding,
        processes=processes,
    )


@dataclass(frozen=True, kw_only=True)
class EditorLoader:
    """A picklable `EditorFactory`: the arguments of `load`, and the LoRAs; a call makes the editor."""

    path: str = "tiny"
    dtype: str | None = None
    device: str | None = None
    base: str | None = None
    offload: bool | str = False
    precision: str | None = None
    attention: str = AUTO
    compile: bool = False
    coding: Coding | None = None
    loras: tuple[tuple[str, float], ...] = ()

    def __call__(self) -> Editor:
        """Load the model. Raises as `load` and `Editor.load_loras` do."""
        editor = load(
            self.path,
            dtype=self.dtype,
            device=self.device,
            base=self.base,
            offload=self.offload,
            precision=self.precision,
            attention=self.attention,
            compile=self.compile,
            coding=self.coding,
        )
        if self.loras:
            editor.load_loras(self.loras)
        return editor


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if not isinstance(dtype, str):
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; choose from {', '.join(DTYPES)}")
    return DTYPES[dtype]
