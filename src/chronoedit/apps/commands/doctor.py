"""`chronoedit doctor`: what this machine has, and what is missing."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from chronoedit import __version__
from chronoedit.apps.options import Switch, option

EXTRAS = {
    "gguf": "models in GGUF files",
    "lora": "training LoRAs; its curves",
    "parquet": "training sets and benchmarks in parquet",
    "quantize": "weights in int8 and fp8",
    "vlm": "asking vision-language models on a server",
    "judge": "an embedding distance beside the judges",
    "cluster": "labelling over a Ray cluster",
}
OLDEST_PYTHON = (3, 10)

State = Literal["ok", "missing", "optional"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    detail: str


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what this machine has: Python, packages, devices, memory, disk, the embedded model.

    Exit code 1 when something that an edit needs is missing.
    """

    json: Annotated[Switch, option("print one JSON object")] = False

    def run(self) -> int:
        """Look, and print what was found."""
        found = [*_python(), *_packages(), *_hardware(), *_speed(), *_model()]
        if self.json:
            print(json.dumps({"version": __version__, "findings": [asdict(finding) for finding in found]}))
        else:
            marks = {"ok": "ok", "missing": "MISSING", "optional": "-"}
            for finding in found:
                print(f"{marks[finding.state]:<8} {finding.what:<14} {finding.detail}")
        return int(any(finding.state == "missing" for finding in found))


def _python() -> list[Finding]:
    state: State = "ok" if sys.version_info >= OLDEST_PYTHON else "missing"
    wanted = "" if state == "ok" else f"; {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed"
    return [Finding("Python", state, f"{platform.python_version()} on {platform.system()}{wanted}")]


def _packages() -> list[Finding]:
    needed, extras = _requirements()
    found = [Finding(name, *_installed(name, least, "missing")) for name, least in needed]
    for extra, purpose in EXTRAS.items():
        absent = [name for name, least in extras[extra] if _installed(name, least, "optional")[0] != "ok"]
        if absent:
            found.append(Finding(extra, "optional", f'{purpose}: pip install "chronoedit[{extra}]"'))
        else:
            found.append(Finding(extra, "ok", purpose))
    return found


def _installed(name: str, least: str, otherwise: State) -> tuple[State, str]:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return otherwise, f"is not installed; {least} or newer is needed: pip install chronoedit"
    if _numbers(version) < _numbers(least):
        return otherwise, f"{version} is too old; {least} or newer is needed: pip install -U {name}"
    return "ok", version


def _requirements() -> tuple[list[tuple[str, str]], dict[str, list[tuple[str, str]]]]:
    """(name, oldest version) of what is always needed, and of each extra, as the package itself says."""
    needed: list[tuple[str, str]] = []
    extras: dict[str, list[tuple[str, str]]] = {}
    for line in importlib.metadata.requires("chronoedit") or []:
        parsed = re.match(r"([A-Za-z0-9_.-]+)>=([0-9.]+)(?:; (.*))?$", line)
        if parsed is None:
            continue
        name, least, marker = parsed.groups()
        extra = re.search(r'extra == ["\'](\w+)["\']', marker or "")
        if extra:
            extras.setdefault(extra[1], []).append((name, least))
        elif not marker:
            needed.append((name, least))
    return needed, extras


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _hardware() -> list[Finding]:
    try:
        from chronoedit.host import free_host_bytes, total_host_bytes
        from chronoedit.runtime.machine import devices, free_disk_bytes
    except ImportError:  # torch is missing, which was said
        return []
    found = [
        Finding(device.torch_name, "ok", f"{device.name}, {_gb(device.free_bytes)} of {_gb(device.total_bytes)} free")
        for device in devices()
        if device.kind != "cpu"
    ]
    if not found:
        found.append(Finding("GPU", "optional", "none that torch can use: the embedded model edits on the CPU"))
    cpu = devices()[-1]
    found.append(Finding("CPU", "ok", cpu.name))
    found.append(Finding("memory", "ok", f"{_gb(free_host_bytes())} of {_gb(total_host_bytes())} free"))
    found.append(Finding("disk here", "ok", f"{_gb(free_disk_bytes(Path.cwd()))} free"))
    cache = _hub_cache()
    if cache is not None:
        found.append(Finding("disk of hub", "ok", f"{_gb(free_disk_bytes(cache))} free, models are kept in {cache}"))
    return found


def _speed() -> list[Finding]:
    """The attention kernels for the device of an edit and the type that it computes in there; whether it compiles."""
    try:
        import torch

        from chronoedit.runtime.attention_backends import AUTO, BACKENDS, able, choose, why_not
        from chronoedit.runtime.compile import check_compile
    except ImportError:
        return []
    on_gpu = torch.cuda.is_available()
    device, dtype = (torch.device("cuda"), torch.bfloat16) if on_gpu else (torch.device("cpu"), torch.float32)
    found = [Finding("attention", "ok", f"{', '.join(able(device, dtype))}; auto is {choose(device, dtype)}")]
    for name in (name for name, backend in BACKENDS.items() if device.type in backend.devices):
        reason = why_not(name, device, dtype)
        if reason is not None:
            found.append(Finding(f"  {name}", "optional", reason))
    try:
        check_compile(device, AUTO)
    except ValueError as error:
        return [*found, Finding("compile", "optional", str(error))]
    return [*found, Finding("compile", "ok", f"blocks can be compiled for {device.type}")]


def _hub_cache() -> Path | None:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE)


def _model() -> list[Finding]:
    folder = Path(__file__).parents[2] / "weights" / "tiny"
    files = list(folder.rglob("*.safetensors"))
    if not files:
        return [Finding("embedded model", "missing", f"there are no weights in {folder}; install the package anew")]
    return [Finding("embedded model", "ok", f"{sum(path.stat().st_size for path in files) / 1e6:.0f} MB")]


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


COMMANDS: dict[str, type[Any]] = {"doctor": Doctor}
