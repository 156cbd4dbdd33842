"""Compiled blocks: torch's compiler fuses what stands between their matrix products (see `model.fused`).

The blocks share one code, so it is compiled once for all of them, with the numbers of rows, tokens and keys left open:
both stages of an edit, prompts of any length and other sizes run the same. What cannot stay open (one row or several,
a bias or none) is compiled by `warming`, before the first step.

The blocks' `forward` is compiled, not their call: hooks, which offloading and step caches put on blocks, stay outside.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from chronoedit.errors import ChronoEditError
from chronoedit.model.dit import ChronoEditBlock, ChronoEditDiT
from chronoedit.runtime.attention_backends import BACKENDS
from chronoedit.runtime.frozen import is_quantised
from chronoedit.runtime.quantize import PRECISIONS

BLOCKS_WARMED = 2
"""The first, whose input can be laid out otherwise, and one that stands for all the others."""

MOST_VARIANTS = 64
"""Of one code, over all models of a process; torch gives up after 8."""


def check_compile(
    device: torch.device, attention: str, *, precision: str | None = None, shares_tokens: bool = False
) -> None:
    """Raise ValueError where blocks cannot be compiled, before anything is loaded: with what is missing, or conflicts.

    `attention` is the name of a backend, or `auto`; with `shares_tokens` several processes compute one pass.
    """
    if precision is not None and PRECISIONS[precision].config is not None:
        raise ValueError(f"blocks whose weights are stored in {precision} are not compiled; leave out one of the two")
    if shares_tokens:
        raise ValueError("processes that share an edit's tokens talk inside the blocks, which cannot be compiled then")
    if attention in BACKENDS and not BACKENDS[attention].compiles:
        others = [name for name, backend in BACKENDS.items() if backend.compiles]
        raise ValueError(
            f"attention {attention!r} cannot be part of compiled blocks; choose one of {', '.join(others)}, "
            "or do not compile"
        )
    if device.type == "cpu" and not _has_cpp_compiler():
        raise ValueError("compiling for the CPU needs a C++ compiler, and there is none; install g++ or clang")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ValueError("compiling for a GPU needs Triton, which is not installed; pip install triton")
    if device.type == "cuda" and not any(map(shutil.which, ("cc", "gcc", "clang", "cl"))):
        raise ValueError("compiling for a GPU needs a C compiler, and there is none; install gcc or clang")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"blocks are not compiled for {device.type}, only for cpu and cuda")


def compile_blocks(transformer: ChronoEditDiT, backend: str = "inductor") -> None:
    """Let the transformer's blocks be compiled when they are first called; nothing changes for those that are already.

    `backend` is a name of torch's. The whole of a block becomes one graph, or its first call raises torch's error.
    Raises ChronoEditError for weights that are quantised: what is compiled refers to them, so that they could not be
    moved any more.
    """
    if any(is_quantised(parameter) for parameter in transformer.blocks.parameters()):
        raise ChronoEditError(
            "blocks whose weights are quantised are not compiled; load the model from a file in bf16, or do not compile"
        )
    for block in transformer.blocks:
        if not is_compiled(block):
            block.forward = torch.compile(block.forward, fullgraph=True, dynamic=True, backend=backend)


def restore_blocks(transformer: ChronoEditDiT) -> None:
    """The blocks as they were before `compile_blocks`."""
    for block in filter(is_compiled, transformer.blocks):
        del block.forward


def is_compiled(block: nn.Module) -> bool:
    """Whether `compile_blocks` has seen a block."""
    return isinstance(block, ChronoEditBlock) and "forward" in vars(block)


@contextmanager
def warming() -> Iterator[None]:
    """For the calls that compile: sizes that happen to be equal are not taken to be so always.

    Torch would, and compile again for the first prompt that has not as many tokens as the picture, say.
    """
    dynamo, symbolic = map(importlib.import_module, ("torch._dynamo.config", "torch.fx.experimental._config"))
    with symbolic.patch(use_duck_shape=False), dynamo.patch(recompile_limit=MOST_VARIANTS):
        yield


def first_blocks(transformer: ChronoEditDiT) -> ChronoEditDiT:
    """The transformer with its first `BLOCKS_WARMED` blocks alone, all weights shared; takes `PromptKV.first`."""
    short = copy.copy(transformer)
    short._modules = {**transformer._modules, "blocks": nn.ModuleList(list(transformer.blocks)[:BLOCKS_WARMED])}
    return short


def _has_cpp_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True
