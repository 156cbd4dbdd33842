"""A checkpoint written anew: to the published layout (a folder), or to one file with the original Wan names.

Weights keep their type and every bit unless a `dtype` is asked for; GGUF and scaled fp8 files are decoded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from chronoedit.errors import CheckpointError, OutputError
from chronoedit.media import atomic_path
from chronoedit.model import keys
from chronoedit.model.checkpoint import locate
from chronoedit.model.headers import find_dcp, read_json, shown
from chronoedit.model.parts import Transformer, open_transformer
from chronoedit.model.random_checkpoint import INDEX_STYLES, write_json
from chronoedit.model.singlefile import SAFETENSORS_DTYPES, open_source
from chronoedit.model.tensors import TensorSource

LAYOUTS = ("published", "original")
STEM = "diffusion_pytorch_model"
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a checkpoint is written.

    `layout` is one of `LAYOUTS`; `dtype` None keeps each tensor's own. For original names, `prefix` goes before each
    (ComfyUI's is `model.diffusion_model.`), and `unused_norm` adds the `norm_q_img` that the original carries and
    nothing uses. For the published layout, shards hold at most `max_shard_bytes`. Raises ValueError.
    """

    layout: str
    dtype: torch.dtype | None = None
    prefix: str = ""
    unused_norm: bool = False
    max_shard_bytes: int = 5 * 10**9

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {self.layout!r}; choose one of {', '.join(LAYOUTS)}")
        if self.dtype is not None and self.dtype not in SAFETENSORS_DTYPES:
            raise ValueError(f"dtype {self.dtype} is no type of weights; choose torch.float32, bfloat16 or float16")
        if self.layout == "published" and (self.prefix or self.unused_norm):
            raise ValueError("prefix and unused_norm belong to original names; leave them out for the published layout")
        if self.prefix and not self.prefix.endswith("."):
            raise ValueError(f"prefix {self.prefix!r} does not end in a dot; use {self.prefix + '.'!r}")
        if self.max_shard_bytes < 1:
            raise ValueError(f"max_shard_bytes is {self.max_shard_bytes}; at least 1 is expected")


def convert(
    source: str | Path,
    output: str | Path,
    conversion: Conversion,
    *,
    base: str | Path | None = None,
    ema: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a checkpoint (name, folder, hub id, or transformer alone with its `base` folder) in another layout.

    A transformer alone is a single file, or a folder of torch.distributed.checkpoint, of which `ema` takes the average
    of the weights. `base` gives it the other components for the published layout, and a config to be checked against.
    `progress` is told (tensors done, of). Whatever is at `output` stays until the new one is whole, and a folder that
    is not empty is never replaced. Raises CheckpointError for the input, OutputError for the output,
    ValueError for arguments that do not go together.
    """
    output = Path(output)
    tensors, folder = _opened(source, base, ema)
    if folder is not None:
        config = folder / "transformer" / "config.json"
        Transformer(keys.check_config(read_json(config), config), tensors, str(source))
    _refuse_same(Path(source), output)
    report = progress or (lambda done, total: None)
    if conversion.layout == "original":
        _write_original(tensors, output, conversion, report)
    elif folder is None:
        raise CheckpointError(
            f"{source} holds a transformer alone; the published layout needs the other components: give a folder that "
            f"has them (--base FOLDER), or convert to original names (an output that ends in .safetensors)"
        )
    else:
        _write_published(folder, tensors, output, conversion, report)
    return output


def _opened(source: str | Path, base: str | Path | None, ema: bool) -> tuple[TensorSource, Path | None]:
    """The transformer's tensors, and the folder that has the config and the other components if there is one."""
    path = Path(source)
    training = find_dcp(path)
    if ema and training is None:
        raise ValueError(
            f"{source} is no folder of torch.distributed.checkpoint, which alone may hold an average (ema)"
        )
    if training is None and not path.is_file():
        folder = locate(source, base).folder
        return open_transformer(folder / "transformer").source, folder
    if training is None:
        tensors = open_source(path, pickles=True)
    else:
        from chronoedit.model.dcp import open_dcp  # its part of torch takes a second

        tensors = open_dcp(training, ema=ema)
    return tensors, None if base is None else locate(base).folder


def _refuse_same(source: Path, output: Path) -> None:
    if source.exists() and output.exists() and source.resolve() == output.resolve():
        raise OutputError(f"{output} is the input itself; choose another output")


def _write_original(
    source: TensorSource, output: Path, conversion: Conversion, report: Callable[[int, int], None]
) -> None:
    if output.suffix.lower() != ".safetensors":
        raise ValueError(f"output {output} must end in .safetensors for original names")
    if output.is_dir():
        raise OutputError(f"{output} is a folder; give a file that ends in .safetensors")
    nameless = [name for name in source.tensors if keys.to_original(name) is None]
    if nameless:
        raise CheckpointError(f"{len(nameless)} tensors have no original name ({shown(nameless)}); nothing was written")
    tensors = {
        f"{conversion.prefix}{keys.to_original(name)}": tensor
        for name, tensor in _typed(source, conversion.dtype, report)
        if keys.IGNORED_NAME.fullmatch(name) is None
    }
    if conversion.unused_norm:
        tensors |= _unused_norms(tensors)
    with atomic_path(output) as temporary:
        save(tensors, temporary)


def _unused_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    twin, unused = ".cross_attn.norm_k_img.weight", ".cross_attn.norm_q_img.weight"
    return {
        name.removesuffix(twin) + unused: torch.ones_like(tensor)
        for name, tensor in tensors.items()
        if name.endswith(twin)
    }


def _write_published(
    folder: Path, source: TensorSource, output: Path, conversion: Conversion, report: Callable[[int, int], None]
) -> None:
    with _new_folder(output) as temporary:
        for path in sorted(folder.iterdir()):
            if path.name in ("transformer", "model_index.json") or path.name.startswith("."):
                continue
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, temporary / path.name)
        pipeline, transformer = INDEX_STYLES["chronoedit"]
        if (folder / "model_index.json").is_file():
            index = read_json(folder / "model_index.json")
            index |= {"_class_name": pipeline, "transformer": ["diffusers", transformer]}
            write_json(temporary / "model_index.json", index)
        config = read_json(folder / "transformer" / "config.json")
        write_json(temporary / "transformer" / "config.json", {**config, "_class_name": transformer})
        kept = ((n, t) for n, t in _typed(source, conversion.dtype, report) if keys.IGNORED_NAME.fullmatch(n) is None)
        _write_shards(temporary / "transformer", kept, conversion.max_shard_bytes)


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place at the end, or is gone after an error."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} exists and is not empty; choose another folder, or remove it first")
    temporary = output.with_name(f".{output.name}.{os.urandom(4).hex()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}; nothing was written") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _typed(
    source: TensorSource, dtype: torch.dtype | None, report: Callable[[int, int], None]
) -> Iterator[tuple[str, Tensor]]:
    total = len(source.tensors)
    for done, (name, tensor) in enumerate(source.read(CPU), start=1):
        yield name, (tensor if dtype is None else tensor.to(dtype)).contiguous()
        report(done, total)


def _write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]], max_bytes: int) -> None:
    """Write shards as they fill, so that one shard at a time is in memory; their names count them at the end."""
    written: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total_bytes = shard_bytes = 0
    for name, tensor in tensors:
        size_bytes = tensor.numel() * tensor.element_size()
        if shard and shard_bytes + size_bytes > max_bytes:
            written.append(_write_shard(folder, len(written), shard))
            shard, shard_bytes = {}, 0
        shard[name] = tensor
        shard_bytes += size_bytes
        total_bytes += size_bytes
    written.append(_write_shard(folder, len(written), shard))
    if len(written) == 1:
        (folder / "0").rename(folder / f"{STEM}.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(written):
        file_name = f"{STEM}-{number + 1:05d}-of-{len(written):05d}.safetensors"
        (folder / str(number)).rename(folder / file_name)
        weight_map |= dict.fromkeys(names, file_name)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    write_json(folder / f"{STEM}.safetensors.index.json", index)


def _write_shard(folder: Path, number: int, shard: dict[str, Tensor]) -> list[str]:
    save(shard, folder / str(number))
    return list(shard)


def save(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file; OutputError when the disk is full or the place cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OutputError(f"cannot write {path.parent}: {error}; free some space or choose another output") from error


def layout_for(output: Path) -> str:
    """The layout that an output's name asks for: original names for a `.safetensors` file, else the published."""
    return "original" if output.suffix.lower() == ".safetensors" else "published"
