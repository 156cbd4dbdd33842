"""Which component sits on the device when: all of them, or with offload one stage after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Placement:
    """`device` does the work; with `offload` a component visits it for its stage and goes back to memory after."""

    device: torch.device
    offload: bool = False

    @contextmanager
    def stage(self) -> Iterator[Callable[[nn.Module], None]]:
        """Gives `bring(module)`, which puts a module on the device until the block ends (for good without offload)."""
        visitors: list[nn.Module] = []

        def bring(module: nn.Module) -> None:
            if not any(module is visitor for visitor in visitors):
                module.to(self.device)
                visitors.append(module)

        try:
            yield bring
        finally:
            for module in visitors if self.offload else ():
                module.to("cpu")
