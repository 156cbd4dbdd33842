"""Training checkpoints of torch.distributed.checkpoint (DCP): a folder with `.metadata` and each process's tensors.

`.metadata` is a pickle, and a pickle may name any function of the machine to be called. So it is read into plain
records: of what it names, only what such metadata consists of is known, and even that is not the thing itself. What
was found is checked, and made into torch's own classes only then. The tensors are read one at a time, each put
together from its chunks.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from chronoedit.errors import CheckpointError
from chronoedit.model import keys
from chronoedit.model.headers import METADATA, TensorInfo, shown
from chronoedit.model.singlefile import SAFETENSORS_DTYPES
from chronoedit.model.tensors import TensorSource


def open_dcp(folder: Path, *, ema: bool = False) -> TensorSource:
    """The transformer's weights in a DCP folder under our names, or their average with `ema`; no tensor is read yet.

    Raises CheckpointError when the metadata is damaged or hostile, when it has no such weights, when a file is missing
    or truncated, or when the chunks of a tensor do not make it whole.
    """
    items = read_items(folder)
    renamed = keys.training_names(items, average=ema, where=folder)
    chosen = {ours: items[name] for name, ours in renamed.items()}
    foreign = [item.key for item in chosen.values() if item.dtype not in SAFETENSORS_DTYPES]
    if foreign:
        raise CheckpointError(f"{folder}: {len(foreign)} weights are of no floating-point type ({shown(foreign)})")
    for item in chosen.values():
        _check_whole(folder, item)
    _check_files(folder, chosen.values())
    return DcpSource(folder, {name: _info(folder, name, item) for name, item in chosen.items()}, chosen)


@dataclass(frozen=True)
class Chunk:
    """A part of a tensor: where it belongs, its shape, and the bytes of a file that have it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start_byte: int
    size_bytes: int

    @property
    def ends(self) -> tuple[int, ...]:
        """The first index past it on each axis."""
        return tuple(offset + size for offset, size in zip(self.offsets, self.sizes, strict=True))

    @property
    def place(self) -> tuple[slice, ...]:
        """Its part of the whole tensor."""
        return tuple(slice(offset, end) for offset, end in zip(self.offsets, self.ends, strict=True))


@dataclass(frozen=True)
class Item:
    """A tensor as the metadata describes it: its name there, type, shape, and its chunks (none of them empty)."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class DcpSource:
    """Weights in a DCP folder; `items` has their chunks by our name."""

    folder: Path
    tensors: Mapping[str, TensorInfo]
    items: Mapping[str, Item]

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Each name with its tensor, file by file; a tensor in one chunk is not copied."""
        for name in sorted(self.items, key=lambda name: _first_place(self.items[name])):
            yield name, _assembled(self.folder, self.items[name]).reshape(self.tensors[name].shape).to(device)


def _first_place(item: Item) -> tuple[str, int]:
    return min(((chunk.file, chunk.start_byte) for chunk in item.chunks), default=("", 0))


def _assembled(folder: Path, item: Item) -> Tensor:
    if len(item.chunks) == 1:
        return _read_chunk(folder, item, item.chunks[0])
    whole = torch.empty(item.shape, dtype=item.dtype)
    for chunk in item.chunks:
        whole[chunk.place] = _read_chunk(folder, item, chunk)
    return whole


def _read_chunk(folder: Path, item: Item, chunk: Chunk) -> Tensor:
    path = folder / chunk.file
    try:
        with path.open("rb") as file:
            file.seek(chunk.start_byte)
            stored = io.BytesIO(file.read(chunk.size_bytes))
        tensor = torch.load(stored, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: {item.key} cannot be read ({reason}); copy the checkpoint again") from error
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != chunk.sizes or tensor.dtype != item.dtype:
        found = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise CheckpointError(
            f"{path} has {found} for {item.key}, where {METADATA} promises {item.dtype} {list(chunk.sizes)}; the two "
            f"are not of one save, copy the checkpoint again"
        )
    return tensor


def _info(folder: Path, name: str, item: Item) -> TensorInfo:
    """What a header would say."""
    file, shape = folder / _first_place(item)[0], keys.convolution_shape(name, item.shape)
    return TensorInfo(file, item.key, SAFETENSORS_DTYPES[item.dtype], shape, item.size_bytes)


def _check_whole(folder: Path, item: Item) -> None:
    """The chunks must cover the tensor exactly once."""
    outside = [c for c in item.chunks if any(end > side for end, side in zip(c.ends, item.shape, strict=True))]
    covered = sum(math.prod(chunk.sizes) for chunk in item.chunks)
    problem = None
    if outside:
        problem = f"a chunk at {list(outside[0].offsets)} of {list(outside[0].sizes)} lies outside"
    elif _overlap(item.chunks):
        problem = "its chunks overlap"
    elif covered != math.prod(item.shape):
        problem = f"its chunks have {covered} of {math.prod(item.shape)} values"
    if problem:
        raise CheckpointError(f"{folder}: {item.key} {list(item.shape)} is not whole, {problem}; copy it again")


def _overlap(chunks: tuple[Chunk, ...]) -> bool:
    ordered = sorted(chunks, key=lambda chunk: chunk.offsets)
    for index, chunk in enumerate(ordered):
        for other in ordered[index + 1 :]:
            if chunk.ends and other.offsets[0] >= chunk.ends[0]:
                break  # and all that follow begin even later on the first axis
            begins = map(max, chunk.offsets, other.offsets)
            if all(begin < end for begin, end in zip(begins, map(min, chunk.ends, other.ends), strict=True)):
                return True
    return False


def _check_files(folder: Path, items: Iterable[Item]) -> None:
    """Every file that a chunk is in must be there, and long enough."""
    needed: dict[str, int] = {}
    for item in items:
        for chunk in item.chunks:
            needed[chunk.file] = max(needed.get(chunk.file, 0), chunk.start_byte + chunk.size_bytes)
    missing = sorted(name for name in needed if not (folder / name).is_file())
    if missing:
        raise CheckpointError(f"{folder} lacks {shown(missing)} of {len(needed)} data files; copy the whole folder")
    for name, end_byte in sorted(needed.items()):
        size_bytes = (folder / name).stat().st_size
        if size_bytes < end_byte:
            raise CheckpointError(
                f"{folder / name} has {size_bytes} bytes where {METADATA} promises {end_byte}; it is truncated: copy "
                f"or download it again"
            )


class Record:
    """What stands for every class that metadata names: it takes any state and does nothing with it."""

    arguments: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(key): value for key, value in state.items()})
        else:
            self.arguments = state if isinstance(state, tuple) else (state,)


class TensorRecord(Record):
    """A tensor's entry."""

    properties: Any
    size: Any
    chunks: Any


class BytesRecord(Record):
    """The entry of anything else, which is a pickle of its own."""


def _record_attribute(owner: Any, name: Any) -> Record:
    """`getattr`, by which Python 3.11 writes members of enumerations: of records alone, and a record again."""
    if isinstance(owner, type) and issubclass(owner, Record):
        return Record(name)
    raise pickle.UnpicklingError(f"it asks for the attribute {name!r} of {owner!r}")


_DCP = "torch.distributed.checkpoint"
STAND_INS: dict[tuple[str, str], Any] = {
    (f"{_DCP}.metadata", "TensorStorageMetadata"): TensorRecord,
    (f"{_DCP}.metadata", "BytesStorageMetadata"): BytesRecord,
    **{
        (f"{_DCP}.metadata", name): Record
        for name in (
            "Metadata", "MetadataIndex", "ChunkStorageMetadata", "TensorProperties", "StorageMeta",
            "_MEM_FORMAT_ENCODING",
        )
    },
    **{(f"{_DCP}.filesystem", name): Record for name in ("_StorageInfo", "_StoragePrefix", "SerializationFormat")},
    **{  # of torch before 2.3
        ("torch.distributed._shard.sharded_tensor.metadata", name): Record
        for name in ("TensorProperties", "MEM_FORMAT_ENCODING")
    },
    ("torch.serialization", "_get_layout"): str,
    ("torch", "Size"): tuple,
    **{("torch", name): dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)},
    **{
        (module, name): Record
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    },
    ("collections", "OrderedDict"): OrderedDict,
    **{("builtins", kind.__name__): kind for kind in (dict, list, tuple, set, frozenset)},
    ("builtins", "getattr"): _record_attribute,
}  # fmt: skip
"""All that metadata may name, with what is taken instead of it. None of these does anything but hold values."""

DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, OverflowError, MemoryError,
    RuntimeError, OSError,
)  # fmt: skip
"""What reading bytes that are no sound pickle may raise; Python does not promise one kind."""


class MetadataUnpickler(pickle.Unpickler):
    """An unpickler that knows nothing but `STAND_INS`."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name; CheckpointError for any other, before anything is made of it."""
        if (module, name) in STAND_INS:
            return STAND_INS[module, name]
        raise CheckpointError(
            f"its {METADATA} names {module}.{name}, which no metadata of torch.distributed.checkpoint consists of; "
            f"such a file can run code when opened, so it is refused"
        )


def read_metadata(folder: Path) -> Metadata:
    """What a DCP folder says of itself, without what only its writer needs (`planner_data`, `storage_meta`).

    Raises CheckpointError when the metadata names what it should not, or is damaged.
    """
    path = folder / METADATA
    try:
        content = path.read_bytes()
        if content.startswith(b"version https://git-lfs"):
            raise CheckpointError(f"its {METADATA} is a Git LFS pointer; run `git lfs pull` there")
        record = MetadataUnpickler(io.BytesIO(content)).load()
        entries = {_text(key): _entry(entry) for key, entry in record.state_dict_metadata.items()}
        storage = {_index(index): _storage(info) for index, info in record.storage_data.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path} is damaged or no metadata of a checkpoint ({reason}); copy it again") from error
    return Metadata(state_dict_metadata=entries, storage_data=storage, storage_meta=StorageMeta())


def _entry(record: Any) -> TensorStorageMetadata | BytesStorageMetadata:
    if isinstance(record, BytesRecord):
        return BytesStorageMetadata()
    if not isinstance(record, TensorRecord):
        raise ValueError(f"an entry is {type(record).__name__}")
    properties = (*record.properties.arguments, *vars(record.properties).values())
    dtype = next((value for value in properties if isinstance(value, torch.dtype)), None)
    if dtype is None:
        raise ValueError("a tensor has no type")
    size = _numbers(record.size)
    chunks = [ChunkStorageMetadata(_numbers(chunk.offsets), _numbers(chunk.sizes)) for chunk in record.chunks]
    if any(len(chunk.offsets) != len(size) or len(chunk.sizes) != len(size) for chunk in chunks):
        raise ValueError("a chunk has other axes than its tensor")
    return TensorStorageMetadata(TensorProperties(dtype=dtype), size, chunks)


def _index(record: Any) -> MetadataIndex:
    offset = getattr(record, "offset", None)
    return MetadataIndex(_text(record.fqn), None if offset is None else _numbers(offset))


def _storage(record: Any) -> _StorageInfo:
    if getattr(record, "transform_descriptors", None):
        raise CheckpointError(f"its tensors are stored transformed ({record.transform_descriptors}), which is not read")
    file = _text(record.relative_path)
    if file in ("", "..") or Path(file).name != file or "\\" in file:
        raise CheckpointError(f"its {METADATA} names the data file {file!r}; a file in the same folder is expected")
    return _StorageInfo(file, *_numbers((record.offset, record.length)))


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r} where a name is expected")
    return value


def _numbers(values: Any) -> torch.Size:
    if not isinstance(values, tuple | list) or any(type(value) is not int or value < 0 for value in values):
        raise ValueError(f"{values!r} where whole numbers of at least 0 are expected")
    return torch.Size(values)


class SafeReader(FileSystemReader):
    """torch's reader of a DCP folder, which resumes a training, with the metadata read as here."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The metadata; CheckpointError when it is refused or damaged."""
        return read_metadata(Path(self.path))


def read_items(folder: Path) -> dict[str, Item]:
    """The tensors of a DCP folder by the names that they have there; all else that was saved is left out.

    Raises CheckpointError when the metadata names what it should not, is damaged, or does not say where a chunk is.
    """
    metadata = read_metadata(folder)
    items = {}
    for key, entry in metadata.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            # a process that has no part of a small tensor says so with an empty chunk
            filled = [chunk for chunk in entry.chunks if math.prod(chunk.sizes)]
            chunks = dict.fromkeys(_chunk(folder, key, chunk, metadata.storage_data) for chunk in filled)
            items[key] = Item(key, entry.properties.dtype, tuple(entry.size), tuple(chunks))
    return items


def _chunk(folder: Path, key: str, entry: ChunkStorageMetadata, storage: Mapping[MetadataIndex, _StorageInfo]) -> Chunk:
    info = storage.get(MetadataIndex(key, entry.offsets))
    if info is None and not any(entry.offsets):
        info = storage.get(MetadataIndex(key))  # whole tensors need no offset
    if info is None:
        raise CheckpointError(
            f"{folder}: its {METADATA} does not say where the chunk of {key} at {list(entry.offsets)} is; copy it again"
        )
    return Chunk(tuple(entry.offsets), tuple(entry.sizes), info.relative_path, info.offset, info.length)
