"""An optimiser's state of any structure, taken apart into tensors by name and the rest as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from chronoedit.errors import TrainingError


def take_apart(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON can write it; each tensor in it goes into `tensors`, named by its path.

    Raises TrainingError for what is made of neither numbers, text nor tensors.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [take_apart(each, f"{path}/{k}", tensors) for k, each in enumerate(value)]}
    if isinstance(value, dict):
        pairs = enumerate(value.items())
        return {"dict": [[take_apart(k, path, tensors), take_apart(v, f"{path}/{n}", tensors)] for n, (k, v) in pairs]}
    raise TrainingError(f"the optimiser keeps {path} as a {type(value).__name__}, which cannot be saved; use another")


def put_together(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What was taken apart. Raises KeyError for a tensor that is missing."""
    if not isinstance(plain, dict):
        return plain
    ((kind, parts),) = plain.items()
    if kind == "tensor":
        return tensors[parts]
    if kind == "dict":
        return {put_together(key, tensors): put_together(value, tensors) for key, value in parts}
    members = [put_together(each, tensors) for each in parts]
    return tuple(members) if kind == "tuple" else members
