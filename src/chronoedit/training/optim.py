"""The optimiser, its learning rate over the budget, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from chronoedit.training.recipes import Optimisation


class Optimizers:
    """Several optimisers of different parameters as one, each stepping on a thread of its own.

    Their states are numbered one after the other.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """One step of each."""
        if len(self.parts) == 1:
            self.parts[0].step()
            return
        with ThreadPoolExecutor(len(self.parts)) as pool:
            list(pool.map(lambda part: part.step(), self.parts))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As one optimiser's: `state` by parameter, and `param_groups`."""
        state = {
            first + index: slots
            for first, part in self._numbered()
            for index, slots in part.state_dict()["state"].items()
        }
        return {"state": state, "param_groups": self.param_groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state`; the groups' settings stay those of the recipe."""
        for first, part in self._numbered():
            count = _parameter_count(part)
            state = {i - first: slots for i, slots in state_dict["state"].items() if first <= i < first + count}
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})

    def _numbered(self) -> Iterator[tuple[int, torch.optim.Optimizer]]:
        first = 0
        for part in self.parts:
            yield first, part
            first += _parameter_count(part)


def _parameter_count(optimizer: torch.optim.Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


def make_optimizer(modules: Sequence[nn.Module], recipe: Optimisation) -> Optimizers:
    """The recipe's optimiser over the trainable parameters; those of one axis (norms, biases) are not decayed.

    `muon` (Jordan 2024, with the update's size of Liu 2025, arXiv 2502.16982, so that one learning rate serves both)
    takes the matrices of repeated blocks; embeddings, the ends of the model, norms and biases stay with AdamW.
    Raises ValueError where torch has no Muon (before 2.9).
    """
    named = {name: p for module in modules for name, p in module.named_parameters() if p.requires_grad}
    if len(named) < sum(p.requires_grad for module in modules for p in module.parameters()):
        raise ValueError("two modules in training have parameters of the same name")
    hidden = [p for name, p in named.items() if recipe.optimizer == "muon" and _is_hidden(name, p)]
    taken = {id(p) for p in hidden}
    parts: list[torch.optim.Optimizer] = [_adamw([p for p in named.values() if id(p) not in taken], recipe)]
    parts += [_muon(hidden[k :: recipe.parts], recipe) for k in range(recipe.parts) if hidden[k :: recipe.parts]]
    return Optimizers(*parts)


def _is_hidden(name: str, parameter: Tensor) -> bool:
    """A matrix inside a repeated block (`blocks.3.`, `encoder.block.0.`) that is no table of embeddings."""
    return parameter.ndim == 2 and "block" in name and "bias" not in name and "embed" not in name


def _is_vector(parameter: Tensor) -> bool:
    """A norm's or a bias, axes of length 1 aside; told by the shape alone, which sharded weights have too."""
    return sum(length > 1 for length in parameter.shape) <= 1


def _adamw(parameters: list[nn.Parameter], recipe: Optimisation) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in parameters if not _is_vector(p)], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if _is_vector(p)], "weight_decay": 0.0},
    ]
    fused = all(p.dtype == torch.float32 for p in parameters)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=fused)


def _muon(parameters: list[nn.Parameter], recipe: Optimisation) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"torch {torch.__version__} has no Muon; use torch 2.9 or newer, or optimizer = 'adamw'")
    return torch.optim.Muon(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
    )


def learning_rate(recipe: Optimisation, step: int, progress: float) -> float:
    """Linear warm-up over the first steps, then a cosine that reaches 0 at progress 1."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress))


def update(optimizer: Optimizers, recipe: Optimisation, step: int, progress: float) -> float:
    """Clip the gradients, step with the rate that is due, clear them; the gradients' norm before clipping."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, recipe.grad_clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, step, progress)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def set_gradients(losses: Sequence[Callable[[], Tensor]], optimizer: Optimizers) -> list[Tensor]:
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
