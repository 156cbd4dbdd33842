"""Tensors from files into modules: strict about names, straight to the wanted type and device.

A module is first made without memory (its parameters on the meta device), then takes each tensor as it is read, so
that no second copy of the weights is held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from chronoedit.model.headers import TensorInfo, check_names

ModuleT = TypeVar("ModuleT", bound=nn.Module)
HALF_DTYPES = (torch.float16, torch.bfloat16)


class TensorSource(Protocol):
    """Named tensors that can be read one by one; `tensors` tells their types and shapes beforehand."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What there is, by name."""
        ...

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Each name with its tensor, in an order that is quick for the files."""
        ...


@dataclass(frozen=True)
class SafetensorsSource:
    """The tensors of safetensors files; `tensors` maps the names to give out to where they lie."""

    tensors: Mapping[str, TensorInfo]

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Each name with its tensor, file by file; on the CPU they are mapped, not copied."""
        from safetensors import safe_open

        by_file: dict[Path, list[str]] = {}
        for name, info in self.tensors.items():
            by_file.setdefault(info.file, []).append(name)
        for file, names in by_file.items():
            with ExitStack() as stack:
                handle = stack.enter_context(safe_open(file, framework="pt", device=str(device)))
                for name in names:
                    yield name, handle.get_tensor(self.tensors[name].key)


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """How a module takes its tensors: type, device, parts that stay fp32, names that may be there or not.

    Where `mapped`, parameters keep the type of their file, so that they stay in it; `computed_in` tells the other.
    """

    dtype: torch.dtype
    device: torch.device
    where: str
    keep_in_fp32: Collection[str] = ()
    ignored: Callable[[str], bool] = lambda name: False
    mapped: bool = False

    def dtype_of(self, name: str) -> torch.dtype:
        """The type of one parameter: half precision is widened where a component of its name asks for it."""
        widened = self.dtype in HALF_DTYPES and any(part in name.split(".") for part in self.keep_in_fp32)
        return torch.float32 if widened else self.dtype


def empty_module(make: Callable[[], ModuleT]) -> ModuleT:
    """The module that `make` builds, its parameters without memory; its buffers are real."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return make()


def load_module(module: ModuleT, source: TensorSource, plan: LoadPlan) -> ModuleT:
    """Fill a module made by `empty_module` from a source and put it in inference state (eval, no gradients).

    A parameter that the module holds under several names needs one of them. Raises CheckpointError that lists missing
    and unexpected names and wrong shapes, before any tensor is read.
    """
    twins = _names_by_parameter(module)
    check_module_names(module, source, plan)
    for name, tensor in source.read(plan.device):
        if name not in twins:
            continue
        dtype = plan.dtype_of(name)
        if not plan.mapped or hasattr(tensor, "__tensor_flatten__"):  # what is made of others says only what it is for
            tensor = tensor.to(dtype=dtype)
        tensor = tensor.to(plan.device)
        for twin in twins.pop(name):
            twins.pop(twin, None)
            _assign(module, twin, tensor, dtype)
    module.to(plan.device)
    return module.requires_grad_(False).eval()


def check_module_names(module: nn.Module, source: TensorSource, plan: LoadPlan) -> None:
    """Compare a source with a module's parameters and persistent buffers; CheckpointError lists the differences."""
    twins = _names_by_parameter(module)
    found = {name: info.shape for name, info in source.tensors.items() if not plan.ignored(name)}
    expected = {name: tuple(tensor.shape) for name, tensor in _state(module).items()}
    for name in list(expected):
        if name not in found and any(twin in found for twin in twins[name]):
            del expected[name]
    check_names(found, expected, plan.where, "the weights and the config beside them do not belong together")


def _state(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict(keep_vars=True))


def _names_by_parameter(module: nn.Module) -> dict[str, list[str]]:
    groups: dict[int, list[str]] = {}
    state = _state(module)
    for name, tensor in state.items():
        groups.setdefault(id(tensor), []).append(name)
    return {name: groups[id(tensor)] for name, tensor in state.items()}


def _assign(module: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        tensor = nn.Parameter(tensor, requires_grad=False)
        owner._parameters[leaf] = tensor
    else:
        owner._buffers[leaf] = tensor
    if tensor.dtype != dtype:
        setattr(tensor, _COMPUTED_IN, dtype)


_COMPUTED_IN = "_chronoedit_computed_in"


def computed_in(tensor: Tensor) -> torch.dtype:
    """The type that a parameter is computed with: its own, unless it was loaded as it is stored in a file."""
    return getattr(tensor, _COMPUTED_IN, tensor.dtype)


def convert(parameter: Tensor) -> None:
    """Give a parameter that was loaded as it is stored the type that it is computed with."""
    if hasattr(parameter, _COMPUTED_IN):
        parameter.data = parameter.data.to(computed_in(parameter))
        delattr(parameter, _COMPUTED_IN)
