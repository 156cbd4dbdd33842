"""An average of the weights that forgets at a rate of its own age, over sharded weights too."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def power_of(sigma_rel: float) -> float:
    """The exponent gamma of the average whose profile has the relative width `sigma_rel` (Karras 2024, 2312.02696).

    Its weights at time t are proportional to (time / t)^gamma, whose standard deviation relative to t is
    sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3)): a cubic in gamma. Raises ValueError outside (0, 0.28].
    """
    if not 0 < sigma_rel <= 0.28:
        raise ValueError(f"the average's width {sigma_rel} is not in (0, 0.28]; 0.05 to 0.1 is usual")
    t = sigma_rel**-2
    return float(max(root.real for root in np.roots([1, 7, 16 - t, 12 - t])))


class PowerAverage:
    """The average of a module's trainable parameters, weighted by a power of the step."""

    def __init__(self, module: nn.Module, sigma_rel: float) -> None:
        self.gamma = power_of(sigma_rel)
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are after step `step`, from 0; the first ones replace the average."""
        weight = 1 - (1 - 1 / (step + 1)) ** (self.gamma + 1)
        torch._foreach_lerp_(
            [local(each) for each in self.average.values()], [local(p.detach()) for p in self._live.values()], weight
        )

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and parameters in place; call it again to go on training."""
        for name, p in self._live.items():
            mine, theirs = local(p.detach()), local(self.average[name])
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; the tensor itself where it is whole."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
