"""Which class an optimiser's name means: any of torch.optim that can be used here, or `package.module.Class`."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

RECIPE_SETS = {"lr": "learning_rate", "weight_decay": "weight_decay", "params": "the model"}
"""Arguments that have a name of their own in a recipe."""

NOT_USED = {
    "lbfgs": "its step computes the loss again and again (a closure), and here it is computed once",
    "sparseadam": "it takes sparse gradients alone, and the layers here have dense ones",
}


def torch_optimizers() -> dict[str, type[Optimizer]]:
    """The classes of torch.optim by their names in lower case, those that cannot be used here included."""
    classes = [each for each in vars(torch.optim).values() if isinstance(each, type) and issubclass(each, Optimizer)]
    return {each.__name__.lower(): each for each in classes if each is not Optimizer}


def canonical_name(name: str) -> str:
    """One spelling for each optimiser: lower case for those of torch.optim."""
    return name if "." in name else name.lower()


def optimizer_class(name: str) -> type[Optimizer]:
    """The class that a name means. Raises ValueError for one that there is not, or that cannot be used here."""
    found = _imported(name) if "." in name else _of_torch(name.lower())
    reason = NOT_USED.get(found.__name__.lower()) if found.__module__.startswith("torch.") else None
    if reason is None and _needs_closure(found):
        reason = NOT_USED["lbfgs"]
    if reason is None and hasattr(found, "train") and hasattr(found, "eval"):
        reason = "it has other weights for evaluation than for training, and they are not exchanged here"
    if reason is None and not _takes(found, "lr"):
        reason = "it takes no lr, which is what warms up and falls off here"
    if reason is not None:
        raise ValueError(f"optimizer {name!r} cannot be used: {reason}; choose another")
    return found


def check_optimizer(name: str, arguments: Mapping[str, Any], weight_decay: float) -> None:
    """Raise ValueError, saying what would do, for a name, arguments or a weight decay that cannot be."""
    found = optimizer_class(name)
    try:
        json.dumps(arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer_args {dict(arguments)!r} cannot be written as JSON: {error}") from None
    for argument, setting in RECIPE_SETS.items():
        if argument in arguments:
            raise ValueError(f"optimizer_args has {argument}, which is set by {setting}; leave it out")
    unknown = [argument for argument in arguments if not _takes(found, argument)]
    if unknown:
        own = [argument for argument in _parameters(found) if argument not in RECIPE_SETS]
        raise ValueError(f"optimizer {name!r} takes no {', '.join(unknown)}; its arguments are {', '.join(own)}")
    if weight_decay and not _takes(found, "weight_decay"):
        raise ValueError(f"optimizer {name!r} has no weight decay; set weight_decay = 0, or choose another")
    try:
        found([nn.Parameter(torch.zeros(2, 2))], **settings_of(found, 1e-3, (0.9, 0.99), arguments))
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(f"optimizer {name!r} refuses {dict(arguments)!r}: {error}") from error


def settings_of(
    found: type[Optimizer], learning_rate: float, betas: tuple[float, float], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """What the class is made with. The betas are given to those that take two, unless the arguments have their own."""
    settings: dict[str, Any] = {"lr": learning_rate}
    parameter = _parameters(found).get("betas")
    if parameter is not None and isinstance(parameter.default, tuple) and len(parameter.default) == len(betas):
        settings["betas"] = betas
    return settings | {argument: _with_tuples(value) for argument, value in arguments.items()}


def build(
    found: type[Optimizer], decayed: Sequence[nn.Parameter], others: Sequence[nn.Parameter], weight_decay: float,
    settings: Mapping[str, Any],
) -> Optimizer:  # fmt: skip
    """The optimiser over two groups, of which one is decayed; an empty one is left out."""
    groups: list[dict[str, Any]] = [{"params": list(decayed)}, {"params": list(others)}]
    if _takes(found, "weight_decay"):
        for group, decay in zip(groups, (weight_decay, 0.0), strict=True):
            group["weight_decay"] = decay
    return found([group for group in groups if group["params"]], **settings)


def _of_torch(name: str) -> type[Optimizer]:
    classes = torch_optimizers()
    if name in classes:
        return classes[name]
    if name == "muon":
        raise ValueError(f"torch {torch.__version__} has no Muon; use torch 2.9 or newer, or optimizer = 'adamw'")
    usable = ", ".join(sorted(classes.keys() - NOT_USED.keys()))
    raise ValueError(f"optimizer {name!r} is unknown; choose one of {usable}, or give package.module.Class")


def _imported(path: str) -> type[Optimizer]:
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
        if missing and f"{module_name}.".startswith(f"{missing}."):
            reason = f"there is no module {missing}"
        else:
            reason = f"{module_name} cannot be imported: {error}"
        raise ValueError(f"optimizer {path!r}: {reason}; install the package that has it") from error
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Optimizer) and found is not Optimizer:
        return found
    reason = f"{module_name} has no {name}" if found is None else f"{found!r} is no torch.optim.Optimizer"
    there = sorted(
        key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Optimizer)
    )
    raise ValueError(f"optimizer {path!r}: {reason}; the optimisers there are {', '.join(there) or 'none'}")


def _parameters(found: type[Optimizer]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(found).parameters.items()
        if parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    }


def _takes(found: type[Optimizer], argument: str) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(found).parameters.values()]
    return argument in _parameters(found) or inspect.Parameter.VAR_KEYWORD in kinds


def _needs_closure(found: type[Optimizer]) -> bool:
    parameters = list(inspect.signature(found.step).parameters.values())[1:]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in plain and each.default is inspect.Parameter.empty for each in parameters)


def _with_tuples(value: Any) -> Any:
    """JSON and TOML have lists where the classes take tuples."""
    return tuple(_with_tuples(each) for each in value) if isinstance(value, list) else value
