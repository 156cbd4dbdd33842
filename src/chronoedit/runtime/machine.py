"""What this machine has: devices and their speed, memory that programs can still get, disk."""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from chronoedit.host import free_host_bytes, total_host_bytes

Kind = Literal["cuda", "rocm", "mps", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that can edit. `index` counts those of its kind; an MPS device and the CPU share main memory."""

    kind: Kind
    index: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int] | None = None

    @property
    def torch_name(self) -> str:
        """As torch calls it: ROCm's devices are called cuda there."""
        kind = "cuda" if self.kind == "rocm" else self.kind
        return f"{kind}:{self.index}" if kind == "cuda" else kind


def devices() -> list[Device]:
    """All of this machine, the fastest kind first; the CPU is always there."""
    found = [_gpu(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    total, free = total_host_bytes(), free_host_bytes()
    if torch.backends.mps.is_available():
        name = platform.processor() or "Apple GPU"
        found.append(Device(kind="mps", index=0, name=name, total_bytes=total, free_bytes=free))
    return [*found, Device(kind="cpu", index=0, name=_cpu_name(), total_bytes=total, free_bytes=free)]


def _gpu(index: int) -> Device:
    free, total = torch.cuda.mem_get_info(index)
    properties = torch.cuda.get_device_properties(index)
    return Device(
        kind="rocm" if torch.version.hip else "cuda",
        index=index,
        name=properties.name,
        total_bytes=int(total),
        free_bytes=int(free),
        capability=(properties.major, properties.minor),
    )


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be had on a device; on the CPU, main memory that programs can get."""
    if device.type != "cuda":
        return free_host_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + cached)


def free_disk_bytes(folder: Path) -> int:
    """Of the disk on which a folder lies or would lie."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def measure_throughput(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """FLOP/s of a large matrix product, timed for about so long after a first one that is not counted."""
    side = 4096 if device.type == "cuda" else 1024
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    _synchronised(matrix @ matrix)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        _synchronised(matrix @ matrix)
        count += 1
    return count * 2 * side**3 / (time.perf_counter() - began)


def measure_copies(device: torch.device, seconds: float = 0.1) -> float:
    """Bytes/s from pinned main memory to a CUDA device, timed for about so long after a copy that is not counted."""
    host = torch.empty(1 << 28, dtype=torch.uint8).pin_memory()
    there = torch.empty_like(host, device=device)
    _synchronised(there.copy_(host, non_blocking=True))
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        _synchronised(there.copy_(host, non_blocking=True))
        count += 1
    return count * host.nbytes / (time.perf_counter() - began)


def _synchronised(tensor: torch.Tensor) -> None:
    if tensor.device.type == "cuda":
        torch.cuda.synchronize(tensor.device)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.machine()}, {os.cpu_count()} cores"
