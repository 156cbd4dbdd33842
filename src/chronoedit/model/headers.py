"""Safetensors files from outside: names, types, shapes and sizes are read and checked before a tensor is loaded.

Nothing here imports torch, so that a broken download is reported at once and `chronoedit info` is quick.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chronoedit.errors import CheckpointError

SHOWN_KEYS = 10
PICKLE_SUFFIXES = frozenset({".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle"})
WEIGHT_STEMS = ("diffusion_pytorch_model", "model")
METADATA, DATA_SUFFIX, TRAINED_FOLDER = ".metadata", ".distcp", "model"
MAX_HEADER_BYTES = 100_000_000
DTYPE_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
FINGERPRINT_WHOLE_BYTES = 1 << 26
FINGERPRINT_BLOCK_BYTES = 1 << 16
FINGERPRINT_BLOCKS = 256


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: the name it has there, its type in safetensors' spelling, its shape and its size."""

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself: tensors by name, and free text metadata."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Names, types and shapes of a safetensors file, its length checked against them.

    Raises CheckpointError for a missing, truncated or foreign file; a pickle is refused unread.
    """
    refuse_pickle(path)
    if not path.is_file():
        raise CheckpointError(f"no file {path}; check the path, or download the checkpoint again")
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if start.startswith(b"version "):
            raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")
        if len(start) < 8 or length > size_bytes - 8:
            raise CheckpointError(f"{path} ({size_bytes} bytes) is truncated or no safetensors file; download it again")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(f"{path}: a header of {length} bytes is no safetensors header; download it again")
        text = file.read(length)
    try:
        parsed = json.loads(text)
        metadata = parsed.pop("__metadata__", {})
        tensors = {name: _tensor_info(path, name, entry) for name, entry in parsed.items()}
        expected_bytes = 8 + length + max((entry["data_offsets"][1] for entry in parsed.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path}: its safetensors header is damaged ({error}); download it again") from error
    if size_bytes != expected_bytes:
        raise CheckpointError(
            f"{path} has {size_bytes} bytes where its header promises {expected_bytes}; the file is "
            f"{'truncated' if size_bytes < expected_bytes else 'too long'}: download it again"
        )
    return Header(tensors, metadata)


def _tensor_info(path: Path, name: str, entry: dict[str, Any]) -> TensorInfo:
    begin, end = entry["data_offsets"]
    shape = tuple(int(side) for side in entry["shape"])
    numel = 1
    for side in shape:
        numel *= side
    width = DTYPE_BYTES.get(entry["dtype"])
    if width is not None and numel * width != end - begin:
        raise ValueError(f"{name}: {end - begin} bytes for {entry['dtype']} {list(shape)}")
    return TensorInfo(path, name, entry["dtype"], shape, end - begin)


def refuse_pickle(path: Path) -> None:
    """Raise CheckpointError for a file whose suffix says that it is a pickle."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path} is a pickle, which can run code when opened, and is not loaded; "
            f"turn it into safetensors with `chronoedit convert {path} OUTPUT`"
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one component's folder: one file, or the shards that its index lists.

    Raises CheckpointError when there is none, a shard is missing, or only pickles are there.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no folder {folder}; expected a checkpoint in the published layout")
    for stem in WEIGHT_STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return _shards(index)
        single = folder / f"{stem}.safetensors"
        if single.is_file():
            return [single]
    pickles = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICKLE_SUFFIXES)
    if pickles:
        refuse_pickle(pickles[0])
    expected = " or ".join(f"{stem}.safetensors" for stem in WEIGHT_STEMS)
    raise CheckpointError(f"{folder} has no weights: expected {expected}, or such a name with .index.json")


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map of tensor names to files; download it again")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index} names the shard {name!r}; a plain file name in the same folder is expected")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(f"{index.parent} lacks {shown(missing)} of {len(names)} shards; download them again")
    return [index.parent / name for name in names]


def find_dcp(path: Path) -> Path | None:
    """The folder of torch.distributed.checkpoint (DCP) that `path` is, or that is its `model`, as published.

    None for anything else. Raises CheckpointError for a folder that has the data files and no `.metadata`.
    """
    for folder in (path, path / TRAINED_FOLDER):
        if (folder / METADATA).is_file():
            return folder
        if folder.is_dir() and any(folder.glob(f"*{DATA_SUFFIX}")):
            raise CheckpointError(
                f"{folder} has {DATA_SUFFIX} files and no {METADATA}, which is written last: its save was cut off, or "
                f"a copy left out the files that begin with a dot; take another checkpoint, or copy it again"
            )
    return None


def read_tensors_info(files: Iterable[Path]) -> dict[str, TensorInfo]:
    """The tensors of several files as one table by name; a name in two files is a CheckpointError."""
    table: dict[str, TensorInfo] = {}
    for path in files:
        for name, info in read_header(path).tensors.items():
            if name in table:
                raise CheckpointError(f"{name} is in both {table[name].file} and {path}; remove the file that is stale")
            table[name] = info
    return table


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file; CheckpointError when it is missing, damaged or no object."""
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no file {path}; expected a checkpoint in the published layout") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); download it again") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path} holds {type(parsed).__name__}, an object was expected; download it again")
    return parsed


def check_names(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: str, remedy: str
) -> None:
    """Raise CheckpointError unless both tables have the same names and shapes; it shows ten of each difference."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of a wrong shape", wrong))
    problems = [f"{len(names)} {kind} ({shown(names)})" for kind, names in kinds if names]
    if problems:
        raise CheckpointError(f"{where}: of {len(expected)} tensors, {'; '.join(problems)}; {remedy}")


def shown(names: list[str]) -> str:
    """The first ten names, and how many more there are."""
    more = len(names) - SHOWN_KEYS
    return ", ".join(names[:SHOWN_KEYS]) + (f", and {more} more" if more > 0 else "")


def fingerprint(files: Mapping[str, Path]) -> str:
    """A sha256 over the named files that stays cheap when they are large.

    It covers each file's name and length, all bytes of files up to 64 MiB, and of larger ones the safetensors header
    and 256 blocks of 64 KiB at even distances, first and last included. So it changes with any retraining, merge or
    conversion of type, but a few altered bytes between the blocks of a large file go unseen: it identifies weights,
    it does not protect against tampering.
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        size_bytes = files[name].stat().st_size
        digest.update(f"{name}\0{size_bytes}\0".encode())
        for block in _sampled_blocks(files[name], size_bytes):
            digest.update(block)
    return digest.hexdigest()


def _sampled_blocks(path: Path, size_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        if size_bytes <= FINGERPRINT_WHOLE_BYTES:
            yield from iter(lambda: file.read(1 << 20), b"")
            return
        header_bytes = int.from_bytes(file.read(8), "little")
        if path.suffix == ".safetensors" and header_bytes <= min(MAX_HEADER_BYTES, size_bytes):
            yield file.read(header_bytes)
        last = size_bytes - FINGERPRINT_BLOCK_BYTES
        for block in range(FINGERPRINT_BLOCKS):
            file.seek(last * block // (FINGERPRINT_BLOCKS - 1))
            yield file.read(FINGERPRINT_BLOCK_BYTES)
