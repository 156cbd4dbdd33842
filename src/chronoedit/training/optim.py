"""The optimiser, its learning rate over the budget, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from chronoedit.training.optimizer_classes import build, optimizer_class, settings_of
from chronoedit.training.optimizer_state import put_together, take_apart
from chronoedit.training.recipes import Optimisation


class Optimizers:
    """Several optimisers of different parameters as one, each stepping on a thread of its own.

    Parameters are numbered one after the other. What an optimiser keeps outside of its `state` and `param_groups` is
    not known here, and not saved.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        self._as_made = [
            {name: copy(value) if isinstance(value, (list, dict)) else value for name, value in group.items()}
            for group in self.param_groups
        ]

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
        """The state in two parts: `state`, tensors by parameter and slot, and `extra`, all else, which JSON can write.

        Raises TrainingError for what an optimiser keeps that can be written as neither.
        """
        state: dict[int, dict[str, Tensor]] = {}
        slots: dict[str, dict[str, Any]] = {}
        for index, (part, _, parameter) in enumerate(self._parameters()):
            for slot, value in part.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and "/" not in slot:
                    state.setdefault(index, {})[slot] = value
                else:
                    plain = take_apart(value, slot, state.setdefault(index, {}))
                    slots.setdefault(str(index), {})[slot] = plain
        groups = [self._changed(number, state) for number in range(len(self.param_groups))]
        filled = {index: tensors for index, tensors in state.items() if tensors}
        return {"state": filled, "extra": {"slots": slots, "groups": groups}, "param_groups": self.param_groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from `state` and `extra` (which may be missing where it is empty), in the types that they have.

        Settings that the optimiser did not change itself stay those of the recipe. Raises KeyError or ValueError for
        the state of another optimiser.
        """
        extra = state_dict.get("extra") or {"slots": {}, "groups": [{}] * len(self.param_groups)}
        parameters = list(self._parameters())
        odd = [index for index in {*state_dict["state"], *map(int, extra["slots"])} if index >= len(parameters)]
        if odd or len(extra["groups"]) != len(self.param_groups):
            raise ValueError(f"the saved optimiser has other parameters: {odd or 'in other groups'}")
        placed: dict[int, dict[str, Tensor]] = {}
        for index, (part, group, parameter) in enumerate(parameters):
            tensors = {
                slot: value if _stays_on_cpu(slot, group) else value.to(parameter.device)
                for slot, value in state_dict["state"].get(index, {}).items()
            }
            placed[index] = tensors
            state = {slot: value for slot, value in tensors.items() if "/" not in slot}
            for slot, plain in extra["slots"].get(str(index), {}).items():
                state[slot] = put_together(plain, tensors)
            part.state[parameter] = state
        for number, (group, changed) in enumerate(zip(self.param_groups, extra["groups"], strict=True)):
            tensors = placed[self._first(number)] if changed else {}
            group.update({name: put_together(plain, tensors) for name, plain in changed.items()})

    def _parameters(self) -> Iterator[tuple[torch.optim.Optimizer, dict[str, Any], nn.Parameter]]:
        """In the order of their numbers, with their part and group."""
        for part in self.parts:
            for group in part.param_groups:
                for parameter in group["params"]:
                    yield part, group, parameter

    def _first(self, number: int) -> int:
        """The number of a group's first parameter, with whose tensors those of the group are saved."""
        return sum(len(group["params"]) for group in self.param_groups[:number])

    def _changed(self, number: int, state: dict[int, dict[str, Tensor]]) -> dict[str, Any]:
        """What an optimiser has changed in one of its groups (some keep a count or an estimate there)."""
        made, group = self._as_made[number], self.param_groups[number]
        changed = [
            name for name, value in group.items()
            if name not in ("params", "lr") and (name not in made or _has_tensors(value) or made[name] != value)
        ]  # fmt: skip
        tensors = state.setdefault(self._first(number), {})
        return {name: take_apart(group[name], f"group/{name}", tensors) for name in changed}


def _has_tensors(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_tensors(each) for each in value.values())
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(map(_has_tensors, value)))


def _stays_on_cpu(slot: str, group: dict[str, Any]) -> bool:
    """The count of steps lies there, as torch has it, unless it is needed on the device."""
    return slot == "step" and not group.get("capturable") and not group.get("fused")


def make_optimizer(modules: Sequence[nn.Module], recipe: Optimisation) -> Optimizers:
    """The recipe's optimiser over the trainable parameters; those of one axis (norms, biases) are not decayed.

    `muon` (Jordan 2024, with the update's size of Liu 2025, arXiv 2502.16982, so that one learning rate serves both)
    takes the matrices of repeated blocks, and the recipe's `optimizer_args`; embeddings, the ends of the model, norms
    and biases stay with AdamW. Any other optimiser takes all. Raises ValueError for one that there is not.
    """
    named = {name: p for module in modules for name, p in module.named_parameters() if p.requires_grad}
    if len(named) < sum(p.requires_grad for module in modules for p in module.parameters()):
        raise ValueError("two modules in training have parameters of the same name")
    if recipe.optimizer != "muon":
        return Optimizers(_built(recipe.optimizer, list(named.values()), recipe, recipe.optimizer_args))
    hidden = [p for name, p in named.items() if _is_hidden(name, p)]
    taken = {id(p) for p in hidden}
    rest = [p for p in named.values() if id(p) not in taken]
    shares = [hidden[k :: recipe.parts] for k in range(recipe.parts)]
    arguments = {"adjust_lr_fn": "match_rms_adamw", **recipe.optimizer_args}
    parts = [_built("adamw", rest, recipe, {})] if rest else []
    return Optimizers(*parts, *(_built("muon", share, recipe, arguments) for share in shares if share))


def _is_hidden(name: str, parameter: Tensor) -> bool:
    """A matrix inside a repeated block (`blocks.3.`, `encoder.block.0.`) that is no table of embeddings."""
    return parameter.ndim == 2 and "block" in name and "bias" not in name and "embed" not in name


def _is_vector(parameter: Tensor) -> bool:
    """A norm's or a bias, axes of length 1 aside; told by the shape alone, which sharded weights have too."""
    return sum(length > 1 for length in parameter.shape) <= 1


def _built(
    name: str, parameters: Sequence[nn.Parameter], recipe: Optimisation, arguments: Mapping[str, Any]
) -> torch.optim.Optimizer:
    found = optimizer_class(name)
    if name == "adamw" and not arguments.keys() & {"foreach", "differentiable"}:  # which exclude it
        arguments = {"fused": all(p.dtype == torch.float32 for p in parameters), **arguments}
    settings = settings_of(found, recipe.learning_rate, (recipe.beta1, recipe.beta2), arguments)
    vectors = [p for p in parameters if _is_vector(p)]
    matrices = [p for p in parameters if not _is_vector(p)]
    return build(found, matrices, vectors, recipe.weight_decay, settings)


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


def shares(count: int, parts: int) -> list[slice]:
    """The rows of a batch of `count` in at most `parts` runs of about the same length."""
    parts = min(parts, count)
    bounds = [count * k // parts for k in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


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
