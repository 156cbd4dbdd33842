"""Recipes: frozen dataclasses read from TOML, where an unknown key is an error."""

from __future__ import annotations

import sys
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from chronoedit.training.optimizer_classes import canonical_name, check_optimizer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Recipe = TypeVar("Recipe")

PRECISIONS = ("fp32", "bf16")


def load_recipe(path: str | Path, kind: type[Recipe]) -> Recipe:
    """The recipe of a TOML file as the dataclass `kind`.

    Raises ValueError for a file that is missing or no TOML, an unknown or missing key, or a value of the wrong type.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"recipe {path} does not exist; recipes/cpu and recipes/gpu hold the project's own") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"recipe {path} is not TOML: {error}") from None
    return recipe_from_dict(kind, values, where=str(path))


def recipe_from_dict(kind: type[Recipe], values: dict[str, Any], *, where: str = "recipe") -> Recipe:
    """Build the dataclass `kind`, nested ones too, from plain values.

    Raises ValueError for an unknown or missing key or a value of the wrong type, naming the table `where`.
    """
    types_of = typing.get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; the keys are {', '.join(sorted(known))}")
    read = {name: _read(types_of[name], value, f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**read)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def recipe_to_dict(recipe: Any) -> dict[str, Any]:
    """Plain values of a recipe, for JSON; `recipe_from_dict` reads them back."""
    return asdict(recipe)


def _read(kind: Any, value: Any, where: str) -> Any:
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    tables = [each for each in allowed if is_dataclass(each)]
    if value is None and type(None) in allowed:
        return None
    if tables:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {value!r}; expected a table")
        return recipe_from_dict(typing.cast(type, tables[0]), value, where=where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is {value!r}; expected a list")
        return tuple(_read(typing.get_args(kind)[0], each, where) for each in value)
    if typing.get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {value!r}; expected a table")
        return value
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join(each.__name__ for each in allowed)
        raise ValueError(f"{where} is {value!r}; expected {names}")
    return value


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a stage runs: minutes of work counted over all resumes, or steps; whichever comes first."""

    max_minutes: float | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.max_minutes, self.max_steps) if value is not None]
        if not given or min(given) <= 0:
            raise ValueError(
                f"budget of {self.max_minutes} minutes and {self.max_steps} steps; give a positive max_minutes or "
                "max_steps"
            )

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is used, in [0, 1]."""
        shares = [0.0]
        if self.max_minutes is not None:
            shares.append(seconds / (60 * self.max_minutes))
        if self.max_steps is not None:
            shares.append(step / self.max_steps)
        return min(1.0, max(shares))


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """An optimiser with warm-up and cosine over the stage's budget, gradient clipping and an average of the weights.

    `optimizer` is "adamw", "muon" (see `optim.make_optimizer`), any other of torch.optim, or package.module.Class;
    `optimizer_args` are its own arguments besides those that have a name here.
    Each batch is computed in `parts`, side by side; see `optim.set_gradients`.
    """

    learning_rate: float
    optimizer: str = "adamw"
    optimizer_args: dict[str, Any] = field(default_factory=dict)
    warmup_steps: int = 100
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    precision: str = "fp32"
    compile: bool = False
    batch_size: int = 32
    parts: int = 1
    checkpoint_every_s: float = 180.0
    validate_every_s: float = 60.0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
        object.__setattr__(self, "optimizer", canonical_name(self.optimizer))
        check_optimizer(self.optimizer, self.optimizer_args, self.weight_decay)
        if self.learning_rate <= 0 or self.batch_size < 1 or self.grad_clip <= 0:
            raise ValueError(
                f"learning_rate {self.learning_rate}, batch_size {self.batch_size} and grad_clip {self.grad_clip} "
                "must be positive"
            )
        if self.parts < 1:
            raise ValueError(f"parts {self.parts} is not positive; use 1, or the number of CPU cores")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay {self.ema_decay} is not in [0, 1)")


def precision(name: str, device: torch.device) -> torch.autocast:
    """The autocast of a recipe's precision; off for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=name == "bf16")
