"""The optimiser, its learning rate over the budget, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from chronoedit.training.recipes import Optimisation


def make_optimizer(modules: Iterable[nn.Module], recipe: Optimisation) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; those of one axis (norms, biases) are not decayed."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.squeeze().ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.squeeze().ndim <= 1], "weight_decay": 0.0},
    ]
    fused = all(p.dtype == torch.float32 for p in parameters)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=fused)


def learning_rate(recipe: Optimisation, step: int, progress: float) -> float:
    """Linear warm-up over the first steps, then a cosine that reaches 0 at progress 1."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress))


def update(optimizer: torch.optim.Optimizer, recipe: Optimisation, step: int, progress: float) -> float:
    """Clip the gradients, step with the rate that is due, clear them; the gradients' norm before clipping."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, recipe.grad_clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, step, progress)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)


def set_gradients(losses: Sequence[Callable[[], Tensor]], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Set the parameters' gradients to the mean over `losses`, each computed on a thread of its own; their values.

    On a CPU that other programs use too, several threads on one operation wait for the slowest at each of a thousand
    operations; threads that each take a part of the batch wait once a step. For as many parts as cores, give torch
    one thread (`torch.set_num_threads(1)`).
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def gradients(loss_of: Callable[[], Tensor]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        loss = loss_of()
        return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

    if len(losses) == 1:
        done = [gradients(losses[0])]
    else:
        with ThreadPoolExecutor(len(losses)) as pool:
            done = list(pool.map(gradients, losses))
    for parameter, parts in zip(parameters, zip(*(each[1] for each in done), strict=True), strict=True):
        present = [part for part in parts if part is not None]
        parameter.grad = sum(present[1:], present[0]) / len(losses) if present else None
    return [loss for loss, _ in done]


class Ema:
    """Exponential moving average of a module's trainable parameters.

    The decay ramps up as (1 + step) / (10 + step), so that the first steps are forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the parameters as they are after step `step`."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self._live.values()], weight)

    def load(self, average: dict[str, Tensor]) -> None:
        """Continue from a saved average; raises ValueError when its names are others."""
        if average.keys() != self.average.keys():
            odd = sorted(average.keys() ^ self.average.keys())[:10]
            raise ValueError(f"saved average and model differ in {', '.join(odd)}; was the recipe's model changed?")
        for name, value in average.items():
            self.average[name].copy_(value)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and parameters in place; call it again to go on training."""
        for name, p in self._live.items():
            kept = p.detach().clone()
            p.copy_(self.average[name])
            self.average[name].copy_(kept)
