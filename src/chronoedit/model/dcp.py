"""Checkpoints of torch.distributed.checkpoint (DCP): a folder with `.metadata`, and files with all processes' parts.

The metadata is a pickle. It is read by an unpickler that knows the few classes it is made of and no others, so that a
foreign checkpoint cannot run anything; the tensors in the parts are read as plain data (`weights_only`).
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta, TensorStorageMetadata

from chronoedit.errors import CheckpointError
from chronoedit.model import keys
from chronoedit.model.headers import TensorInfo, shown
from chronoedit.model.singlefile import SAFETENSORS_DTYPES

METADATA = ".metadata"
NESTED_FOLDER = "model"
GROUPS = {False: ("model", "net", "module"), True: ("ema", "net_ema", "model_ema")}
"""First parts of the names of a model's weights and of their average: ours, and those of the published trainer."""
WRAPPERS = re.compile(r"\b(_checkpoint_wrapped_module|_orig_mod|_fsdp_wrapped_module)\.")
IGNORED_SUFFIXES = ("._extra_state",)
OUTPUT_LAYERS = ("head.head.weight", "proj_out.weight")

ALLOWED = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata",
        "ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix", "SerializationFormat"},
    "torch": {"Size", "strided", *(str(dtype).removeprefix("torch.") for dtype in SAFETENSORS_DTYPES), "uint8", "int8",
              "int16", "int32", "int64", "bool"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"},
    "collections": {"OrderedDict"},
    "builtins": {"set", "frozenset", "tuple", "list", "dict", "slice", "complex"},
}  # fmt: skip
"""What metadata is made of, by module."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of such metadata")
        if module == "pathlib":
            return Path if name.startswith(("Posix", "Windows")) else super().find_class(module, name)
        return super().find_class(module, name)


def read_metadata(folder: Path) -> Metadata:
    """The metadata of a DCP folder. Raises CheckpointError for a damaged one, or one that asks for other classes."""
    path = folder / METADATA
    try:
        metadata = _Unpickler(io.BytesIO(path.read_bytes())).load()
        if not isinstance(metadata, Metadata) or not isinstance(metadata.state_dict_metadata, Mapping):
            raise pickle.UnpicklingError(f"it holds a {type(metadata).__name__}")
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise CheckpointError(f"{path} is no metadata of a checkpoint ({error}); nothing of it was run") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if getattr(metadata, "storage_meta", None) is None:
        metadata.storage_meta = StorageMeta()
    return metadata


class SafeReader(FileSystemReader):
    """torch's reader of a DCP folder, with the restricted unpickler."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return read_metadata(Path(self.path))


def is_dcp(path: Path) -> bool:
    """Whether a folder is a DCP checkpoint, or holds one as its `model`."""
    return any((folder / METADATA).is_file() for folder in (path, path / NESTED_FOLDER))


def open_dcp(path: Path, *, ema: bool = False) -> DcpSource:
    """The transformer's tensors of a DCP folder under our names; with `ema` those of the average of its weights.

    Optimisers and all else are left out. Raises CheckpointError where there is no such transformer, and for names
    that are none of its.
    """
    folder = path if (path / METADATA).is_file() else path / NESTED_FOLDER
    metadata = read_metadata(folder)
    entries = {n: e for n, e in metadata.state_dict_metadata.items() if isinstance(e, TensorStorageMetadata)}
    group = _group(entries, folder, ema)
    bare = {name: _bare(name, group) for name in entries if name.startswith(group)}
    bare = {name: short for name, short in bare.items() if not short.endswith(IGNORED_SUFFIXES)}
    ours = keys.names_to_ours(bare.values(), folder)
    storage = metadata.storage_data or {}
    tensors, chunks = {}, {}
    for name, short in bare.items():
        entry = entries[name]
        dtype, shape = entry.properties.dtype, tuple(entry.size)
        if dtype not in SAFETENSORS_DTYPES:
            raise CheckpointError(f"{folder}: {name} is of {dtype}, which is no type of weights")
        size_bytes = math.prod(shape) * dtype.itemsize
        tensors[ours[short]] = TensorInfo(folder / METADATA, name, SAFETENSORS_DTYPES[dtype], shape, size_bytes)
        chunks[ours[short]] = _chunks(name, entry, storage, folder)
    return DcpSource(folder, tensors, chunks)


def _group(entries: Mapping[str, Any], folder: Path, ema: bool) -> str:
    """The beginning of the names of the weights that are asked for, "" for names without one."""
    found = {group: any(_bare(name, group) in OUTPUT_LAYERS for name in entries if name.startswith(group))
             for group in ("", *(f"{each}." for average in (False, True) for each in GROUPS[average]))}  # fmt: skip
    wanted = [f"{each}." for each in GROUPS[ema]] + ([] if ema else [""])
    group = next((each for each in wanted if found[each]), None)
    if group is None:
        there = ", ".join(each or "(no prefix)" for each, present in found.items() if present)
        what = "average (ema) of a transformer" if ema else "transformer"
        raise CheckpointError(
            f"{folder} holds no {what}: neither {' nor '.join(OUTPUT_LAYERS)} stands under "
            f"{', '.join(each or 'no prefix' for each in wanted)}; there is {there or 'none at all'}, and its names "
            f"begin {shown(sorted(entries))}"
        )
    return group


def _bare(name: str, group: str) -> str:
    """A name without its group and wrappers; averages of the published trainer may have dashes for dots."""
    return WRAPPERS.sub("", name.removeprefix(group)).replace("-", ".")


@dataclass(frozen=True)
class _Chunk:
    """A part of a tensor: where it begins in it, its shape, and the bytes of a file that hold it."""

    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    start: int
    length: int


def _chunks(name: str, entry: TensorStorageMetadata, storage: Mapping[Any, Any], folder: Path) -> list[_Chunk]:
    chunks = []
    for chunk in entry.chunks:
        info = storage.get(MetadataIndex(name, chunk.offsets))
        if info is None:
            raise CheckpointError(f"{folder}: the metadata does not say where a part of {name} lies; it is damaged")
        if getattr(info, "transform_descriptors", None):
            raise CheckpointError(f"{folder}: {name} was written compressed, which is not read; save it without")
        place = (str(info.relative_path), info.offset, info.length)
        chunks.append(_Chunk(tuple(chunk.offsets), tuple(chunk.sizes), *place))
    missing = math.prod(entry.size) - sum(math.prod(chunk.shape) for chunk in chunks)
    if missing:
        raise CheckpointError(f"{folder}: the parts of {name} are {missing} elements short of {list(entry.size)}")
    return chunks


@dataclass(frozen=True)
class DcpSource:
    """Tensors that are put together from the parts of all processes, one in memory at a time."""

    folder: Path
    tensors: Mapping[str, TensorInfo]
    chunks: Mapping[str, list[_Chunk]]

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Each name with its tensor. Raises CheckpointError for a file that is missing or damaged."""
        types = {spelling: dtype for dtype, spelling in SAFETENSORS_DTYPES.items()}
        for name, info in self.tensors.items():
            tensor = torch.empty(info.shape, dtype=types[info.dtype], device=device)
            for chunk in self.chunks[name]:
                region = tuple(slice(at, at + size) for at, size in zip(chunk.offsets, chunk.shape, strict=True))
                tensor[region] = self._part(info.key, chunk).to(device)
            yield name, tensor

    def _part(self, key: str, chunk: _Chunk) -> Tensor:
        path = self.folder / chunk.file
        if path.resolve().parent != self.folder.resolve():
            raise CheckpointError(f"{self.folder}: a part of {key} is said to lie in {chunk.file}, outside the folder")
        try:
            with path.open("rb") as file:
                file.seek(chunk.start)
                data = file.read(chunk.length)
            if len(data) < chunk.length:
                raise ValueError(f"it is {chunk.length - len(data)} bytes short")
            part = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{path} cannot be read for {key} ({reason}); copy it again") from error
        if not isinstance(part, Tensor) or tuple(part.shape) != chunk.shape:
            raise CheckpointError(f"{path}: a part of {key} is not of shape {list(chunk.shape)}; copy it again")
        return part
