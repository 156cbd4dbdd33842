"""The attention kernels that a transformer can use, by name: what each needs, which can run here, which is best.

A kernel is chosen for self-attention and for cross-attention without a bias. Where collapsed padding adds a bias to the
logits, cross-attention stays on torch's own kernels, whichever was chosen: few others take one, and its few hundred
keys cost little.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _check_attention_backend_requirements
from torch import nn

from chronoedit.model.attention import Attention

AUTO = "auto"
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A kernel, and what it needs: of `devices`, CUDA's compute capability, `dtypes` (None: any), head dimensions.

    `package` is (name, oldest version) of what brings it, if that is not torch. `capabilities` are (least, most).
    `exact` kernels compute softmax(QKᵀ)V to rounding, the others approximate it.
    """

    kernel: AttentionBackendName
    about: str
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    capabilities: tuple[tuple[int, int], tuple[int, int]] | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    cpu_dtypes: tuple[torch.dtype, ...] | None = None
    head_dims: Sequence[int] | None = None
    package: tuple[str, str] | None = None
    exact: bool = True
    compiles: bool = True


ANY_LATER = (99, 0)
EIGHTS_TO_128, EIGHTS_TO_256 = range(8, 129, 8), range(8, 257, 8)

BACKENDS = {
    "flash3": Backend(
        kernel=AttentionBackendName._FLASH_3,
        about="FlashAttention 3, for Hopper",
        devices=("cuda",),
        capabilities=((9, 0), (9, 9)),
        dtypes=HALF,
        head_dims=EIGHTS_TO_256,
        package=("flash_attn_3", "3.0"),
    ),
    "cudnn": Backend(
        kernel=AttentionBackendName._NATIVE_CUDNN,
        about="torch's call of cuDNN",
        devices=("cuda",),
        capabilities=((8, 0), ANY_LATER),
        dtypes=HALF,
        head_dims=EIGHTS_TO_128,
    ),
    "sdpa": Backend(kernel=AttentionBackendName.NATIVE, about="torch's own choice among its kernels"),
    "flash2": Backend(
        kernel=AttentionBackendName.FLASH,
        about="FlashAttention 2",
        devices=("cuda",),
        capabilities=((8, 0), ANY_LATER),
        dtypes=HALF,
        head_dims=EIGHTS_TO_256,
        package=("flash_attn", "2.6.3"),
    ),
    "flash": Backend(
        kernel=AttentionBackendName._NATIVE_FLASH,
        about="FlashAttention 2 as torch has it; on a CPU, torch's kernel of that kind",
        devices=("cpu", "cuda"),
        capabilities=((8, 0), ANY_LATER),
        dtypes=HALF,
        cpu_dtypes=(torch.float32, *HALF),
        head_dims=EIGHTS_TO_256,
    ),
    "efficient": Backend(
        kernel=AttentionBackendName._NATIVE_EFFICIENT,
        about="torch's memory-efficient kernel",
        devices=("cuda",),
        head_dims=EIGHTS_TO_256,
    ),
    "xformers": Backend(
        kernel=AttentionBackendName.XFORMERS,
        about="memory-efficient attention of xformers",
        devices=("cuda",),
        head_dims=EIGHTS_TO_256,
        package=("xformers", "0.0.29"),
        compiles=False,
    ),
    "math": Backend(
        kernel=AttentionBackendName._NATIVE_MATH, about="plain products, all logits in memory: a reference"
    ),
    "sage": Backend(
        kernel=AttentionBackendName.SAGE,
        about="SageAttention: 8-bit products, an approximation",
        devices=("cuda",),
        capabilities=((8, 0), ANY_LATER),
        dtypes=HALF,
        head_dims=(64, 96, 128),
        package=("sageattention", "2.1.1"),
        exact=False,
        compiles=False,
    ),
}
"""By our names, from the fastest on. Kernels that diffusers would fetch from the hub are not among them: they are code
that strangers can change. FlexAttention neither: what it is for, masks of one's own, has no use here, and uncompiled it
holds all logits in memory."""

AUTOMATIC = ("flash3", "cudnn", "sdpa")
"""What `auto` chooses from, the first that can run; an approximation is never among them."""


def why_not(name: str, device: torch.device, dtype: torch.dtype | None, head_dim: int | None = None) -> str | None:
    """Why a kernel cannot run there, or None if it can. What is not known yet (None) is not held against it."""
    backend = BACKENDS[name]
    if device.type not in backend.devices:
        return f"it runs on {' and '.join(backend.devices)}, not on {device.type}"
    if backend.capabilities is not None and device.type == "cuda":
        here, (least, most) = torch.cuda.get_device_capability(device), backend.capabilities
        if not least <= here <= most:
            wanted = f"{_dotted(least)} or later" if most == ANY_LATER else f"{least[0]}.x"
            return f"it needs compute capability {wanted}, this device has {_dotted(here)}"
    dtypes = backend.cpu_dtypes if device.type == "cpu" and backend.cpu_dtypes else backend.dtypes
    if dtype is not None and dtypes is not None and dtype not in dtypes:
        return f"it computes in {' or '.join(map(_named, dtypes))}, not in {_named(dtype)}"
    if head_dim is not None and backend.head_dims is not None and head_dim not in backend.head_dims:
        return f"it cannot do heads of {head_dim} channels"
    return None if backend.package is None else _why_not_installed(backend.kernel, *backend.package)


def able(device: torch.device, dtype: torch.dtype | None, head_dim: int | None = None) -> list[str]:
    """The kernels that can run there, the fastest first."""
    return [name for name in BACKENDS if why_not(name, device, dtype, head_dim) is None]


def choose(device: torch.device, dtype: torch.dtype | None, head_dim: int | None = None) -> str:
    """The kernel that `auto` means there."""
    return next(name for name in AUTOMATIC if why_not(name, device, dtype, head_dim) is None)


def check_backend(name: str, device: torch.device, dtype: torch.dtype | None, head_dim: int | None = None) -> None:
    """Raise ValueError for an unknown name, and for a kernel that cannot run there, with those that can."""
    if name != AUTO and name not in BACKENDS:
        raise ValueError(f"attention {name!r} is unknown; choose one of {', '.join((AUTO, *BACKENDS))}")
    reason = None if name == AUTO else why_not(name, device, dtype, head_dim)
    if reason is not None:
        raise ValueError(
            f"attention {name!r} cannot run here: {reason}; choose one of "
            f"{', '.join((AUTO, *able(device, dtype, head_dim)))}"
        )


def use_backend(transformer: nn.Module, name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Let all of a transformer's attention use this kernel, and return its name, which is another for `auto`.

    Unlike diffusers' `set_attention_backend` it leaves other models of the process alone. Raises as `check_backend`.
    """
    layers = [module for module in transformer.modules() if isinstance(module, Attention)]
    head_dim = layers[0].norm_q.normalized_shape[0] // layers[0].heads
    check_backend(name, device, dtype, head_dim)
    chosen = choose(device, dtype, head_dim) if name == AUTO else name
    for layer in layers:
        layer.processor._attention_backend = BACKENDS[chosen].kernel
    return chosen


def _why_not_installed(kernel: AttentionBackendName, package: str, least: str) -> str | None:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"the package {package}, {least} or newer, is not installed"
    if _numbers(version) < _numbers(least):
        return f"{package} {version} is too old, {least} or newer is needed"
    try:
        _check_attention_backend_requirements(kernel)
    except RuntimeError:  # diffusers has tried to import it
        return f"{package} {version} is installed, but cannot be imported; it may be built for another torch"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
