"""Blocks whose frozen weights wait in main memory, and are on the device only while they are multiplied by.

So a LoRA is trained on a model that does not fit on its device. Each linear layer fetches its weight for itself, in the
forward pass, when a checkpoint computes it again, and in the backward pass (see `frozen`); nothing of it stays.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chronoedit.runtime.frozen import blocks_of, each_part, freeze, frozen_linears


def swap_blocks(transformer: nn.Module, count: int, device: torch.device) -> None:
    """Bring the transformer to `device`, but for the linear weights of its last `count` blocks, which stay behind.

    Called last: once factors have been added and weights quantised, and instead of `transformer.to(device)`. Load the
    model on the CPU, if it does not fit on the device. Copies are queued behind the work before them and are not
    fetched ahead, so it makes no difference to the speed which blocks wait. On CUDA the weights lie in pinned memory,
    which torch hands out in powers of two.
    Raises ValueError for a count that there is not, or weights in training.
    """
    total = len(blocks_of(transformer))
    if not 0 <= count <= total:
        raise ValueError(f"{count} blocks are to wait in main memory; this transformer has {total}, give 0 to {total}")
    waiting = [layer for _, layer in frozen_linears(transformer, range(total - count, total))]
    weights = [layer.weight for layer in waiting]
    for layer in waiting:
        layer.register_parameter("weight", None)
    try:
        transformer.to(device)
    finally:
        for layer, weight in zip(waiting, weights, strict=True):
            layer.weight = weight
    for layer in waiting:
        freeze(layer, each_part(layer.weight.detach(), lambda part: _in_main_memory(part, device)))


def _in_main_memory(part: Tensor, device: torch.device) -> Tensor:
    part = part.cpu()
    return part.pin_memory() if device.type == "cuda" else part
